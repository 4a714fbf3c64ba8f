"""Two releases beside each other, answer by answer, where mostly nobody knows which answer is right."""

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Literal

from tasks.evaluation.golden import GoldenQuery
from tasks.evaluation.sequential import ConfidenceSequence
from tasks.evaluation.stages import is_right, said, support
from tasks.evaluation.statistics import Estimate
from tasks.evaluation.texts import token_f1
from tasks.records import Answer

Basis = Literal["known answer", "correction", "liked answer", "support"]
BASES: dict[Basis, str] = {
    "known answer": "1 where the answer is right by the golden query, else 0",
    "correction": "the words that the answer shares with what a person said it should have been (token F1)",
    "liked answer": "the share of documents that it cites in common with an answer that a person liked",
    "support": "share of its words that stand in the passages it cites; 0 for a refusal, right or wrong",
}
"""What an answer's worth, between 0 and 1, is by, the best that is known of the question first."""


@dataclass(frozen=True, slots=True)
class Question:
    """What both releases are asked, and what is known of a good answer."""

    id: str
    """Of its trace, or of its golden query."""
    text: str
    tenant: str | None = None
    golden: GoldenQuery | None = None
    correction: str = ""
    """What a person said that the answer should have been."""
    liked: frozenset[str] | None = None
    """Documents that an answer cited which a person liked; none where it was a refusal."""
    disliked: bool = False
    """A person did not like the answer."""
    keeps_answers: bool = True
    """Whether the texts of answers to it may be kept."""

    @property
    def basis(self) -> Basis:
        if self.golden:
            return "known answer"
        if self.correction:
            return "correction"
        return "support" if self.liked is None else "liked answer"


@dataclass(frozen=True, slots=True)
class Reply:
    """What one release made of a question: an answer, or an error."""

    answer: Answer | None
    error: str = ""

    @property
    def documents(self) -> frozenset[str]:
        """Those that it cites."""
        return frozenset(passage.document for passage in self.answer.cited) if self.answer else frozenset()

    @property
    def refused(self) -> bool:
        """It said nothing, whether on purpose or not."""
        return self.answer is None or self.answer.refused

    @property
    def seconds(self) -> float:
        return sum(self.answer.seconds.values()) if self.answer else 0.0


@dataclass(frozen=True, slots=True)
class Pair:
    """One question, answered by both."""

    question: Question
    champion: Reply
    candidate: Reply

    @property
    def counts(self) -> bool:
        """Where both fail, as when a server is gone, the pair says nothing of either."""
        return bool(self.champion.answer or self.candidate.answer)

    @property
    def difference(self) -> float:
        """The candidate's worth minus the champion's, between -1 and 1."""
        return worth(self.candidate, self.question) - worth(self.champion, self.question)

    @property
    def likeness(self) -> float:
        """From 0, where only one refuses, to 1, where both do, or cite the same and say the same."""
        if self.champion.refused or self.candidate.refused:
            return float(self.champion.refused and self.candidate.refused)
        return (_overlap(self.champion.documents, self.candidate.documents) + self.same_words) / 2

    @property
    def same_words(self) -> float:
        """Token F1 of the two answers; 0 where one does not answer."""
        if not (self.champion.answer and self.candidate.answer):
            return 0.0
        return token_f1(said(self.candidate.answer), [said(self.champion.answer)])

    def agrees(self, similar: float) -> bool:
        """Both refuse, or cite the same documents and share so much of their words."""
        if self.champion.refused or self.candidate.refused:
            return self.champion.refused and self.candidate.refused
        return self.champion.documents == self.candidate.documents and self.same_words >= similar


def worth(reply: Reply, question: Question) -> float:
    """How good an answer is, between 0 and 1, by what is known of the question: see `BASES`; 0 for an error."""
    if reply.answer is None:
        return 0.0
    if question.golden:
        return float(is_right(reply.answer, question.golden))
    if question.correction:
        return token_f1(said(reply.answer), [question.correction])
    if question.liked is not None:
        return _overlap(reply.documents, question.liked)
    return support(reply.answer)


@dataclass(frozen=True, slots=True)
class Measure:
    """A share, or a mean, of both releases, and the difference with an interval that holds at any time."""

    name: str
    champion: float
    candidate: float
    difference: Estimate


def measures(pairs: Sequence[Pair], confidence: float) -> list[Measure]:
    """Worth, refusals, answers with citations, and errors, over the pairs that count."""
    return [
        _measure("worth", [(worth(p.champion, p.question), worth(p.candidate, p.question)) for p in pairs], confidence),
        _measure("refused", [(p.champion.refused, p.candidate.refused) for p in pairs], confidence),
        _measure("cites", [(bool(p.champion.documents), bool(p.candidate.documents)) for p in pairs], confidence),
        _measure("failed", [(not p.champion.answer, not p.candidate.answer) for p in pairs], confidence),
    ]


def share(values: Sequence[bool], confidence: float) -> Estimate:
    """How many hold, with an interval that holds at any time."""
    sequence = ConfidenceSequence(0, 1, confidence)
    for value in values:
        sequence.add(float(value))
    return sequence.interval()


def most_unlike(pairs: Sequence[Pair], count: int) -> list[Pair]:
    """The pairs that disagree most, those in which the candidate loses most first among equals."""
    unlike = [pair for pair in pairs if pair.likeness < 1]
    return sorted(unlike, key=lambda pair: (pair.likeness, pair.difference))[:count]


def _measure(name: str, values: Sequence[tuple[float, float]], confidence: float) -> Measure:
    sequence = ConfidenceSequence(-1, 1, confidence)
    for before, now in values:
        sequence.add(now - before)
    count = len(values)
    before, now = sum(each for each, _ in values), sum(each for _, each in values)
    return Measure(name, before / count, now / count, sequence.interval())


def _overlap(one: frozenset[str], other: frozenset[str]) -> float:
    """Jaccard; 1 for two empty sets."""
    return len(one & other) / len(one | other) if one or other else 1.0
