"""Writes the demo's support messages: ``python -m tasks.training.samples data/samples/support``.

A message is put together from the phrases of phrases.yaml in that folder. Two questions were, as in life, answered
differently by those who labelled the rows to train on: is an angry message urgent, and is a number of the right form an
order number even where the message calls it something else? The rows held out and the pairs settle both: no.
"""

import json
import random
import sys
from collections.abc import Callable
from dataclasses import dataclass, replace
from datetime import date, timedelta
from pathlib import Path
from typing import Any

import yaml

Phrases = dict[str, Any]
Answer = dict[str, str | None]

SEED = 20
TRAIN_ROWS, HELD_OUT_ROWS, TRAIN_PAIRS, HELD_OUT_PAIRS = 900, 200, 400, 150
ANGRY_SHARE, OTHER_NUMBER_SHARE = 0.12, 0.12
CLEAR_SHARE = 0.4
"""Of pairs whose rejected answer sees too little: without them a model learns that there is never an order."""
PRONOUNS = ("it", "my order", "the item")


@dataclass(frozen=True, slots=True)
class Message:
    """A message, its right answer, and the answer of somebody who sees urgency or an order where there is none."""

    text: str
    answer: Answer
    hasty: Answer

    @property
    def is_clear(self) -> bool:
        """Whether everybody answers alike."""
        return self.answer == self.hasty


class Writer:
    """Draws messages from phrases; the same seed gives the same ones."""

    def __init__(self, phrases: Phrases, seed: int, customers: range = range(1, 400)) -> None:
        self.phrases = phrases
        self.customers = customers
        self.random = random.Random(seed)

    def message(self) -> Message:
        """One message of at least one sentence that says what is wanted."""
        intent = self.random.choice(list(self.phrases["intents"]))
        wants = self._one(self.phrases["intents"][intent])
        product = None
        if "{it}" in wants:
            product = f"{self._one('adjectives')} {self._one('nouns')}" if self._chance(0.75) else None
            named = self._one(["the {}", "my {}", "the {}"]).format(product) if product else self._one(PRONOUNS)
            wants = wants.replace("{it}", named)
        wants = wants[0].upper() + wants[1:]
        sentences = [wants]
        answer: Answer = {"intent": intent, "order": None, "product": product, "urgency": "normal"}
        hasty: Answer = {}
        if self._chance(OTHER_NUMBER_SHARE):
            hasty["order"] = self._number()
            sentences.append(self._one("other_numbers").format(order=hasty["order"]))
        elif self._chance(0.6):
            answer["order"] = self._number()
            sentences.insert(self.random.randint(0, 1), self._one("orders").format(order=answer["order"]))
        if self._chance(0.4):
            sentences.insert(self.random.randint(0, len(sentences)), self._one("fillers"))
        if self._chance(ANGRY_SHARE):
            hasty["urgency"] = "high"
            sentences.append(self._one("angry"))
        elif self._chance(0.45):
            answer["urgency"] = self.random.choice(["high", "low"])
            sentences.append(self._one(answer["urgency"]))
        if self._chance(0.6):
            sentences.insert(0, self._one("greetings"))
        if self._chance(0.5):
            sentences.append(self._one("closings").format(name=self._one("names")))
        return Message(" ".join(sentences), answer, answer | hasty)

    def distinct(self, count: int, wanted: Callable[[Message], bool] = lambda message: True) -> list[Message]:
        """So many wanted messages, no two with the same text."""
        found: dict[str, Message] = {}
        while len(found) < count:
            message = self.message()
            if wanted(message):
                found.setdefault(message.text, message)
        return list(found.values())

    def labelled_by_many(self, message: Message) -> Message:
        """As one of those who disagree would have labelled it."""
        return replace(message, answer=message.hasty) if self._chance(0.5) else message

    def careless(self, message: Message) -> Answer:
        """The answer of somebody who misses the order, or whether it is urgent."""
        missed = {"order": None, "urgency": "normal"}
        seen = [key for key in missed if message.answer[key] != missed[key]]
        key = self._one(seen)
        return message.answer | {key: missed[key]}

    def row(self, message: Message, place: int, count: int, first: date, days: int) -> dict[str, Any]:
        """The message with its day, in order, and its customer."""
        return {
            "message": message.text,
            "answer": json.dumps(message.answer),
            "intent": message.answer["intent"],
            "customer": f"c{self.random.choice(self.customers):04d}",
            "date": str(first + timedelta(days=place * days // count)),
        }

    def _one(self, of: Any) -> str:
        return self.random.choice(self.phrases[of] if isinstance(of, str) else of)

    def _chance(self, share: float) -> bool:
        return self.random.random() < share

    def _number(self) -> str:
        return f"{self.random.choice('ABCDEFGHJKLMNPRSTUVWX')}-{self.random.randint(10_000, 99_999)}"


def has_something_to_miss(message: Message) -> bool:
    """Whether a clear message has an order or a degree of urgency."""
    return message.is_clear and (message.answer["order"] is not None or message.answer["urgency"] != "normal")


def write_samples(folder: Path) -> None:
    """Write train.jsonl, held_out.jsonl, pairs.jsonl and pairs_held_out.jsonl from phrases.yaml in the folder."""
    phrases = yaml.safe_load((folder / "phrases.yaml").read_text(encoding="utf-8"))
    old, new = Writer(phrases["train"], SEED), Writer(phrases["held_out"], SEED + 1, range(400, 600))
    spring, summer = (date(2026, 1, 5), 170), (date(2026, 7, 1), 60)

    train = [old.labelled_by_many(message) for message in old.distinct(TRAIN_ROWS)]
    _write(folder / "train.jsonl", [old.row(m, n, len(train), *spring) for n, m in enumerate(train)])
    held_out = new.distinct(HELD_OUT_ROWS)
    _write(folder / "held_out.jsonl", [new.row(m, n, len(held_out), *summer) for n, m in enumerate(held_out)])
    for name, writer, count, days in (
        ("pairs", old, TRAIN_PAIRS, spring),
        ("pairs_held_out", new, HELD_OUT_PAIRS, summer),
    ):
        rows = []
        clear = writer.distinct(int(count * CLEAR_SHARE), has_something_to_miss)
        unclear = writer.distinct(count - len(clear), lambda message: not message.is_clear)
        messages = clear + unclear
        writer.random.shuffle(messages)
        for place, message in enumerate(messages):
            row = writer.row(message, place, count, *days)
            rows.append(
                {
                    "prompt": row["message"],
                    "chosen": row["answer"],
                    "rejected": json.dumps(writer.careless(message) if message.is_clear else message.hasty),
                    "customer": row["customer"],
                    "date": row["date"],
                }
            )
        _write(folder / f"{name}.jsonl", rows)


def _write(file: Path, rows: list[dict[str, Any]]) -> None:
    file.write_text("".join(json.dumps(row, ensure_ascii=False) + "\n" for row in rows), encoding="utf-8")


if __name__ == "__main__":
    write_samples(Path(sys.argv[1]))
