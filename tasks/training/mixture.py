"""Synthetic exercises for the tiny base model: copying, looking up, extracting, JSON, patterns, small sums.

Nothing here is about support messages: the base model learns how to copy and how to write JSON, the demo's adapter
learns its task.
"""

import json
import random
from collections.abc import Callable, Sequence
from typing import Any

Exercise = tuple[str, str]
"""A question and its answer."""

RECORDS: dict[str, dict[str, tuple[str, list[str]]]] = {
    "hotel": {
        "guest": ("name", ["My name is {}.", "The room is for {}.", "{} will be staying.", "Booked by {}."]),
        "room": ("code", ["We have room {}.", "Room {} please.", "The key says {}.", "Booking {}."]),
        "nights": ("number", ["We stay {} nights.", "For {} nights.", "That makes {} nights.", "{} nights in all."]),
        "breakfast": ("choice:yes,no", ["Breakfast: {}.", "Breakfast {}, as always.", "To breakfast we say {}."]),
    },
    "library": {
        "title": ("phrase", ["I borrowed the {}.", "The book is called the {}.", "It is about the {}."]),
        "reader": ("name", ["The reader is {}.", "{} has it.", "Please note it for {}.", "I am {}."]),
        "shelf": ("code", ["It stands on shelf {}.", "Shelf {}.", "You find it at {}.", "Put it back to {}."]),
        "state": ("choice:new,worn,lost", ["The copy is {}.", "It looks {}.", "Sadly it is {} now."]),
    },
    "sensor": {
        "device": ("code", ["Device {} reports.", "This is sensor {}.", "Message from {}.", "Unit {} is on."]),
        "place": ("phrase", ["It hangs by the {}.", "Mounted near the {}.", "The place is the {}."]),
        "value": ("number", ["The value is {}.", "It reads {}.", "Measured {} degrees.", "Now at {}."]),
        "level": ("choice:calm,warning,alarm", ["State {}.", "This is a {}.", "The level is {}."]),
    },
    "garage": {
        "car": ("phrase", ["The car is a {}.", "I drive a {}.", "Bring the {} in.", "We have the {} here."]),
        "plate": ("code", ["The plate is {}.", "Plate {}.", "It carries {}.", "Registered as {}."]),
        "owner": ("name", ["It belongs to {}.", "The owner is {}.", "{} will fetch it.", "Ask {} about it."]),
        "work": ("choice:tyres,brakes,oil,paint", ["It needs {}.", "Today we do the {}.", "Please look at the {}."]),
    },
    "concert": {
        "band": ("phrase", ["The {} will play.", "Tonight we hear the {}.", "On stage: the {}."]),
        "seat": ("code", ["My seat is {}.", "Seat {}.", "We sit at {}.", "The ticket says {}."]),
        "price": ("number", ["It costs {}.", "The price was {}.", "We paid {} each.", "{} for each ticket."]),
        "genre": ("choice:jazz,rock,folk,choir", ["The music is {}.", "An evening of {}.", "They are known for {}."]),
    },
    "garden": {
        "plant": ("phrase", ["We planted the {}.", "The {} is growing.", "Look at the {}.", "I water the {}."]),
        "bed": ("code", ["It is in bed {}.", "Bed {}.", "See plan {}.", "Marked as {}."]),
        "height": ("number", ["It is {} high.", "Now {} tall.", "It reached {}.", "The height is {}."]),
        "season": ("choice:spring,summer,autumn,winter", ["It flowers in {}.", "Best in {}.", "We saw it in {}."]),
    },
    "meeting": {
        "topic": ("phrase", ["We talk about the {}.", "The topic is the {}.", "Let us discuss the {}."]),
        "host": ("name", ["{} invites.", "The host is {}.", "{} will lead it.", "Sent by {}."]),
        "day": ("choice:Monday,Tuesday,Wednesday,Thursday,Friday", ["We meet on {}.", "It is on {}.", "See you {}."]),
        "hall": ("code", ["In hall {}.", "The hall is {}.", "Come to {}.", "Hall {}, second door."]),
    },
    "flight": {
        "flight": ("code", ["The flight is {}.", "Flight {}.", "We fly with {}.", "It is number {}."]),
        "pilot": ("name", ["The pilot is {}.", "{} is flying.", "Captain {} speaks.", "With {} in front."]),
        "cargo": ("phrase", ["We carry the {}.", "The cargo is a {}.", "On board is the {}."]),
        "weather": ("choice:clear,cloudy,stormy", ["The sky is {}.", "It is {} outside.", "They expect it {}."]),
    },
}
MOODS = {
    "pleased": ["I love it!", "That was wonderful.", "Great work.", "We are very happy.", "What a nice day."],
    "annoyed": ["I hate this!", "That was awful.", "How annoying.", "We are very unhappy.", "What a bad day!"],
    "neutral": ["It is what it is.", "Nothing to add.", "That is all.", "As usual.", "See the notes."],
}
FIRST = [
    "Ada",
    "Bo",
    "Cleo",
    "Dan",
    "Eva",
    "Finn",
    "Gus",
    "Hana",
    "Ivo",
    "Jana",
    "Kurt",
    "Lia",
    "Mira",
    "Noah",
    "Olga",
    "Paul",
    "Quinn",
    "Rosa",
    "Sam",
    "Tom",
    "Uma",
    "Vik",
    "Wim",
    "Zora",
]
SYLLABLES = [
    "ba",
    "ke",
    "li",
    "mo",
    "nu",
    "ra",
    "se",
    "ti",
    "vo",
    "za",
    "pel",
    "tor",
    "min",
    "dra",
    "gus",
    "fen",
    "hal",
    "ric",
    "sol",
    "wen",
    "bra",
    "cle",
    "dri",
    "fro",
    "glo",
]
LISTS = ("Fields", "Keys", "Give as JSON", "As JSON with", "Write JSON with the keys")


class Mixture:
    """Draws exercises; the same seed and words give the same ones."""

    def __init__(self, words: Sequence[str], seed: int) -> None:
        self.random = random.Random(seed)
        self.words = list(words)
        self.kinds: list[tuple[float, Callable[[], Exercise]]] = [
            (3.0, self.repeat),
            (1.0, self.pick),
            (2.0, self.look_up),
            (5.0, self.extract),
            (2.0, self.convert),
            (1.0, self.read_json),
            (0.7, self.mood),
            (0.7, self.sum),
        ]

    def exercise(self) -> Exercise:
        """One exercise of a kind drawn by weight."""
        weights, kinds = zip(*self.kinds, strict=True)
        return self.random.choices(kinds, weights)[0]()

    def raw(self) -> str:
        """An exercise as plain text: a pattern, a list, a line repeated."""
        kind = self.random.randrange(5)
        if kind == 0:
            unit = self.some_words(2, 4)
            return " ".join([unit] * self.random.randint(3, 8))
        if kind == 1:
            start, step = self.random.randint(1, 30), self.random.randint(1, 5)
            return ", ".join(str(start + step * place) for place in range(10))
        if kind == 2:
            line = self.some_words(4, 9).capitalize() + "."
            return "\n".join([line] * self.random.randint(2, 4))
        if kind == 3:
            pairs = [(self.word(), self.value("word,code,name,number")) for _ in range(self.random.randint(2, 5))]
            key, value = self.random.choice(pairs)
            return " ".join(f"The {k} is {v}." for k, v in pairs) + f" So the {key} is {value}."
        question, answer = self.exercise()
        return f"Question: {question}\nAnswer: {answer}"

    def repeat(self) -> Exercise:
        text = self.some_words(2, 14) if self.random.random() < 0.6 else self.sentence()
        asks = ["Repeat: {}", "Copy this: {}", "Say again: {}", "{}\nRepeat the line above.", "Write exactly: {}"]
        return self.random.choice(asks).format(text), text

    def pick(self) -> Exercise:
        values = [self.value("word,code,name") for _ in range(self.random.randint(3, 7))]
        place, name = self.random.choice([(0, "first"), (1, "second"), (-1, "last")])
        return f"The {name} of: {', '.join(values)}", values[place]

    def look_up(self) -> Exercise:
        keys = self.random.sample(self.words, self.random.randint(2, 5))
        values = [self.value("word,code,name,number,phrase") for _ in keys]
        shapes = ["the {} is {}", "{}: {}", "{} = {}", "my {} is {}", "{} means {}"]
        shape = self.random.choice(shapes)
        place = self.random.randrange(len(keys))
        parts = [shape.format(key, value) for key, value in zip(keys, values, strict=True)]
        text = self.random.choice([". ", "; ", "\n", ", and "]).join(parts)
        absent = self.random.random() < 0.15
        key = self.word() + self.syllables() if absent else keys[place]
        return f"{text}\nWhat is the {key}?", "unknown" if absent else values[place]

    def extract(self) -> Exercise:
        """A text about one thing, and some of its fields as JSON; null for what the text does not say."""
        fields = RECORDS[self.random.choice(sorted(RECORDS))]
        answer: dict[str, Any] = {}
        sentences = []
        for key, (kind, shapes) in fields.items():
            value = self.value(kind)
            if self.random.random() < 0.75:
                sentences.append(self.random.choice(shapes).format(value))
                answer[key] = int(value) if kind == "number" else value
            else:
                answer[key] = None
        self.random.shuffle(sentences)
        for _ in range(self.random.randint(0, 3)):
            sentences.insert(self.random.randint(0, len(sentences)), self.sentence())
        keys = self.random.sample(sorted(answer), self.random.randint(1, len(answer)))
        asked = f"{self.random.choice(LISTS)}: {', '.join(keys)}"
        parts = [" ".join(sentences), asked]
        if self.random.random() < 0.3:
            parts.reverse()
        return "\n".join(parts), json.dumps({key: answer[key] for key in keys})

    def convert(self) -> Exercise:
        """A list of keys and values as JSON, or the other way round."""
        pairs = {self.word(): self.value("word,code,name,number,phrase") for _ in range(self.random.randint(1, 5))}
        lines = "\n".join(f"{key}: {value}" for key, value in pairs.items())
        if self.random.random() < 0.5:
            return f"As JSON:\n{lines}", json.dumps(pairs)
        return f"As lines: {json.dumps(pairs)}", lines

    def read_json(self) -> Exercise:
        pairs = {self.word(): self.value("word,code,name,number,phrase") for _ in range(self.random.randint(2, 6))}
        key = self.random.choice(list(pairs))
        return f"{json.dumps(pairs)}\nThe value of {key}?", pairs[key]

    def mood(self) -> Exercise:
        mood = self.random.choice(sorted(MOODS))
        parts = [self.sentence(), self.random.choice(MOODS[mood])]
        self.random.shuffle(parts)
        return f"{' '.join(parts)}\nMood: pleased, annoyed or neutral?", mood

    def sum(self) -> Exercise:
        first, second = self.random.randint(0, 20), self.random.randint(0, 20)
        return f"{first} + {second} =", str(first + second)

    def value(self, kinds: str) -> str:
        """A value of a kind such as `code` or `choice:yes,no`, or of one of several kinds."""
        if kinds.startswith("choice:"):
            return self.random.choice(kinds.removeprefix("choice:").split(","))
        kind = self.random.choice(kinds.split(","))
        if kind == "word":
            return self.word()
        if kind == "phrase":
            return self.some_words(1, 3)
        if kind == "number":
            return str(self.random.randint(1, 999))
        if kind == "name":
            return self.random.choice(FIRST) if self.random.random() < 0.5 else self.syllables().capitalize()
        letters = "".join(self.random.choices("ABCDEFGHIJKLMNOPQRSTUVWXYZ", k=self.random.randint(1, 3)))
        digits = "".join(self.random.choices("0123456789", k=self.random.randint(2, 6)))
        return letters + self.random.choice(["-", "-", "", "/"]) + digits

    def sentence(self) -> str:
        """Words without meaning in the form of a sentence."""
        shapes = [
            "The {} has a {} and the {}.",
            "We saw {} with the {}.",
            "Please bring {} to {}.",
            "It was {} in the {} of {}.",
            "Some {} are {}, others {}.",
            "I think that {} is {}.",
        ]
        shape = self.random.choice(shapes)
        return shape.format(*(self.word() for _ in range(shape.count("{}"))))

    def some_words(self, least: int, most: int) -> str:
        return " ".join(self.word() for _ in range(self.random.randint(least, most)))

    def word(self) -> str:
        return self.random.choice(self.words) if self.random.random() < 0.8 else self.syllables()

    def syllables(self) -> str:
        return "".join(self.random.choices(SYLLABLES, k=self.random.randint(2, 3)))
