"""From which confidence on a model may answer without a search, and what that saves.

The threshold is that of conformal risk control (Angelopoulos, Bates, Fisch, Lei and Schuster, "Conformal Risk
Control", ICLR 2024): of questions like the held-out ones, the share that is answered wrongly alone and would have been
answered rightly after a search is at most the tolerated one, in expectation, whatever model and questions are like. A
tolerance of 1 % needs 99 questions; with fewer, every question is searched for.
"""

from collections.abc import Sequence
from dataclasses import dataclass
from functools import cached_property
from math import ceil, floor

from tasks.evaluation.scores import compare_scores, make_score
from tasks.evaluation.statistics import Comparison

FOLDS = 5
SEED = 20
RIGHT = "right"
ALWAYS = 0.0
"""The threshold that every confidence reaches."""


@dataclass(frozen=True, slots=True)
class Way:
    """One way of answering a question."""

    right: bool
    seconds: float
    tokens: int
    """Read and written by the language model."""


@dataclass(frozen=True, slots=True)
class Tried:
    """A held-out question, answered both ways."""

    id: str
    confidence: float
    """Of the model when it answers alone."""
    alone: Way
    searched: Way
    may_be_alone: bool = True
    """False where the question asks for a source, or the model alone says nothing."""

    @property
    def loses(self) -> bool:
        """Whether it is worse off without a search."""
        return self.may_be_alone and self.searched.right and not self.alone.right

    def is_alone(self, alone_from: float | None) -> bool:
        """Whether the model answers it alone."""
        return self.may_be_alone and alone_from is not None and self.confidence >= alone_from


@dataclass(frozen=True)
class Routed:
    """A threshold, and what routing does to held-out questions, each by a threshold that the others gave."""

    alone_from: float | None
    """Least confidence with which the model answers alone; None where it never does."""
    max_loss: float
    tried: tuple[Tried, ...]
    alone: tuple[bool, ...]
    """By question, whether the model answers it alone."""

    @property
    def share(self) -> float:
        """Share of the questions that the model answers alone."""
        return sum(self.alone) / len(self.alone) if self.alone else 0.0

    @cached_property
    def accuracy(self) -> Comparison:
        """Of right answers, beside a search for every question."""
        ids = [tried.id for tried in self.tried]
        routed = [float(of.alone.right if alone else of.searched.right) for of, alone in self._pairs()]
        always = [float(of.searched.right) for of in self.tried]
        return compare_scores(make_score(RIGHT, ids, routed), make_score(RIGHT, ids, always))

    @property
    def seconds_saved(self) -> float:
        """Share of the time of answers."""
        return self._saved([(of.alone.seconds, of.searched.seconds, of.may_be_alone) for of in self.tried])

    @property
    def tokens_saved(self) -> float:
        """Share of the tokens that the model reads and writes."""
        return self._saved([(of.alone.tokens, of.searched.tokens, of.may_be_alone) for of in self.tried])

    def _pairs(self) -> list[tuple[Tried, bool]]:
        return list(zip(self.tried, self.alone, strict=True))

    def _saved(self, costs: Sequence[tuple[float, float, bool]]) -> float:
        """Where the model is asked alone and a search follows, both are paid for."""
        if not any(self.alone):
            return 0.0
        always = sum(searched for _, searched, _ in costs)
        routed = sum(
            (own if asked else 0) + (0 if alone else searched)
            for (own, searched, asked), alone in zip(costs, self.alone, strict=True)
        )
        return 1 - routed / always if always else 0.0

    @property
    def sentence(self) -> str:
        """The figures for a person."""
        count = len(self.tried)
        if self.alone_from is None:
            why = (
                f"a tolerated loss of {self.max_loss:.1%} takes {needed(self.max_loss)} held-out questions with short "
                f"answers, and there are {count}"
                if count < needed(self.max_loss)
                else f"it is never so sure of itself that a loss of at most {self.max_loss:.1%} could be relied on"
            )
            return f"Every question is searched for: for the model to answer alone, {why}."
        found = self.accuracy
        return (
            f"Cross-validated on {count} held-out questions: the model answers {self.share:.1%} of them alone, and "
            f"{found.candidate:.3f} are right, where {found.other:.3f} are right with a search for each "
            f"({found.difference.mean:+.3f}, from {found.difference.low:+.3f} to {found.difference.high:+.3f}; "
            f"tolerated is a loss of {self.max_loss:.3f}). That saves {self.seconds_saved:.0%} of the time and "
            f"{self.tokens_saved:.0%} of the tokens. It answers alone from a confidence of "
            f"{self.alone_from:.3f} on."
        )


def needed(max_loss: float) -> int:
    """How many held-out questions a tolerated loss takes."""
    return ceil(round(1 / max_loss - 1, 9))


def calibrate_routing(tried: Sequence[Tried], max_loss: float) -> Routed:
    """The threshold for these questions, and what it does to each of them where the others alone decide."""
    from sklearn.model_selection import KFold

    alone = [False] * len(tried)
    if len(tried) >= FOLDS:
        for rest, fold in KFold(FOLDS, shuffle=True, random_state=SEED).split(tried):
            alone_from = choose([tried[place] for place in rest], max_loss)
            for place in fold:
                alone[place] = tried[place].is_alone(alone_from)
    return Routed(choose(tried, max_loss), max_loss, tuple(tried), tuple(alone))


def choose(tried: Sequence[Tried], max_loss: float) -> float | None:
    """The lowest threshold at which (losses + 1) / (questions + 1) is no more than tolerated; None for none."""
    tolerated = floor(round(max_loss * (len(tried) + 1) - 1, 9))
    if tolerated < 0:
        return None
    losing = sorted((of.confidence for of in tried if of.loses), reverse=True)
    if len(losing) <= tolerated:
        return ALWAYS
    highest = losing[tolerated]
    above = [of.confidence for of in tried if of.may_be_alone and of.confidence > highest]
    return max(ALWAYS, (highest + min(above)) / 2) if above else None
