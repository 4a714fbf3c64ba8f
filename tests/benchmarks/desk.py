"""A help desk's world for the measurement of routing: services that teams look after, some asked about every day.

All names are made up from syllables, so that no model has read them before, and none can be guessed from another.
"""

import random
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from itertools import product
from typing import Any

from tasks.answering.prompting import fill
from tests.passages import passage

FAMILIAR, RARE = 140, 260
"""Services that training tells about, and services that only the index knows."""
FAMILIAR_SHARE = 0.7
"""Of the questions."""
TEAMS = (
    *(
        "amber",
        "basil",
        "cedar",
        "coral",
        "delta",
        "ember",
        "falcon",
        "garnet",
        "harbor",
        "indigo",
        "jasper",
        "kestrel",
    ),
    *("lotus", "maple", "nectar", "onyx", "pepper", "quartz", "raven", "saffron", "tulip", "umber", "violet", "willow"),
)
SYLLABLES = ["".join(pair) for pair in product("bdfgklmnprstvz", "aeo")]
ASKED = (
    "which team looks after {}?",
    "who looks after {}?",
    "who is responsible for {}?",
    "whom do I call about {}?",
    "{} is down, which team do I call?",
    "what team owns {}?",
    "please tell me the team of {}",
    "I have a question about {}, who can help?",
    "who runs {}?",
    "to which team does {} belong?",
    "{} does not answer, who can look at it?",
    "whose service is {}?",
    "name the team behind {}",
    "who gets a ticket about {}?",
    "is there a team for {}? which one?",
    "{}: which team?",
)
"""What training asks by."""
ASKED_LATER = (
    "which team is responsible for {}?",
    "{} is down, whom do I call?",
    "who owns {}?",
    "which team do I call about {}?",
    "who can help with {}?",
    "what is the team of {}?",
    "{} fails, who looks at it?",
    "who is in charge of {}?",
)
"""What calibration and the measurement ask by."""
WAYS = 8
"""Wordings of a familiar service's question in training, drawn for each."""
UNKNOWN = "I do not know."
PROMPT = [
    {"role": "system", "content": "Answer from this.\n\n{{ passages }}"},
    {"role": "user", "content": "{{ question }}"},
]


@dataclass(frozen=True)
class Service:
    """A service and its team."""

    name: str
    team: str

    @property
    def page(self) -> str:
        """What the documentation says about it."""
        return (
            f"# {self.name}\n\n{self.name} runs on two machines, one in each building, and is checked every morning. "
            f"The team that looks after {self.name} is {self.team}. Changes are announced a week before, on the board "
            "of the operators, and are made on the first Tuesday of a month between six and eight. Its backups are "
            "kept for thirty days and are read once a month, to see that they can be. When it does not answer, look "
            "at the lights of both machines first, then at the list of changes, and call nobody before that.\n"
        )


class Desk:
    """Services of this seed."""

    def __init__(self, seed: int = 0) -> None:
        self._random = random.Random(seed)
        self._names = self._new_names()
        self.familiar = self.more(FAMILIAR)
        self.rare = self.more(RARE)
        self._unasked = [*product(self.familiar, ASKED_LATER)]
        self._random.shuffle(self._unasked)

    def _new_names(self) -> Iterator[str]:
        seen = set[str]()
        while True:
            name = "".join(self._random.choices(SYLLABLES, k=4))
            if name not in seen:
                seen.add(name)
                yield name

    def more(self, count: int) -> list[Service]:
        """Services that there were not before."""
        return [Service(next(self._names), self._random.choice(TEAMS)) for _ in range(count)]

    def ask(self, service: Service, ways: Sequence[str]) -> str:
        return self._random.choice(ways).format(service.name)

    def questions(self, rare: Sequence[Service], count: int) -> list[tuple[Service, str]]:
        """So many questions, worded as in no training; the familiar share is of familiar services. None comes twice."""
        familiar = round(count * FAMILIAR_SHARE)
        asked, self._unasked = self._unasked[:familiar], self._unasked[familiar:]
        asked += self._random.sample([*product(rare, ASKED_LATER)], count - familiar)
        self._random.shuffle(asked)
        return [(service, way.format(service.name)) for service, way in asked]

    def held_out(self) -> list[dict[str, Any]]:
        """Familiar services once more, worded otherwise."""
        return [_said([_user(self.ask(each, ASKED_LATER))], each.team) for each in self.familiar]

    def rows(self, unknown: int, read: int) -> list[dict[str, Any]]:
        """Conversations that teach the familiar services by heart, to say so of others, and to read a page."""
        rows = [
            _said([_user(way.format(each.name))], each.team)
            for each in self.familiar
            for way in self._random.sample(ASKED, WAYS)
        ]
        rows += [_said([_user(self.ask(each, ASKED))], UNKNOWN) for each in self.more(unknown)]
        for each in self.more(read):
            question = self.ask(each, ASKED)
            rows.append(
                _said(fill(PROMPT, question, [passage(each.page.strip(), title=each.name)]), f"{each.team} [1]")
            )
        self._random.shuffle(rows)
        return rows


def _user(text: str) -> dict[str, str]:
    return {"role": "user", "content": text}


def _said(turns: list[Any], answer: str) -> dict[str, Any]:
    return {"messages": [*turns, {"role": "assistant", "content": answer}]}
