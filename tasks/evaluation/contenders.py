"""What the gates of adapters and of releases have in common: scores by contender, a candidate beside a champion."""

import math
from collections.abc import Iterator, Mapping
from typing import NamedTuple, Protocol

from tasks.evaluation.gate import Decision, Words, judge_loss, numbers_of
from tasks.evaluation.scores import LOSSES, Score, compare_scores


class LossGate(Protocol):
    """What a comparison with a champion may show."""

    @property
    def max_loss(self) -> float: ...
    @property
    def confidence(self) -> float: ...


class Gate(LossGate, Protocol):
    """The thresholds that both have."""

    @property
    def min_rows(self) -> int: ...
    @property
    def floors(self) -> dict[str, float]: ...


class Tolerance(NamedTuple):
    """A `LossGate` of its own for one score."""

    max_loss: float
    confidence: float


def not_numbers(scores: Mapping[str, Score]) -> Iterator[str]:
    for name, score in scores.items():
        if not all(map(math.isfinite, (*score.values, *numbers_of(score.estimate)))):
            yield f"{name} is not a number on every row; a version with such a score never passes."


def too_low(scores: Mapping[str, Score], compared: str, gate: Gate, words: Words, version: str) -> Iterator[str]:
    """`version` says what is judged, such as ``adapter``."""
    if compared not in scores:
        yield f"There is no {compared} of the {version}; without it none passes."
    elif len(scores[compared].rows) < gate.min_rows:
        yield (
            f"{len(scores[compared].rows)} {words.many} are too few to judge by; at least {gate.min_rows} are "
            "needed (min_rows)."
        )
    for name, floor in gate.floors.items():
        if name not in scores:
            yield f"{name} has a floor of {floor:.3f} and was not scored: name it among the scores."
        elif name in LOSSES and scores[name].estimate.mean > floor:
            yield f"{name} {scores[name].estimate.mean:.3f} is worse than its floor of {floor:.3f}; lower is better."
        elif name not in LOSSES and scores[name].estimate.mean < floor:
            yield f"{name} {scores[name].estimate.mean:.3f} is below its floor of {floor:.3f}."


def judge_champion(
    ours: Score, theirs: Score | None, champion: int | None, gate: LossGate, words: Words
) -> tuple[Decision, str]:
    if champion is None:
        return "promote", "There is no champion to compare with."
    if theirs is None:
        return "hold", f"The champion, version {champion}, could not be scored beside it."
    comparison = compare_scores(ours, theirs, gate.confidence)
    return judge_loss(comparison, f"champion (version {champion})", gate.max_loss, words)
