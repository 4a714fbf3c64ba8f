"""One score of one contender, by row and as a whole, and the comparison of two contenders by it."""

import re
from collections.abc import Mapping, Sequence
from dataclasses import dataclass

from tasks.evaluation.statistics import Comparison, Estimate, Statistic, compare_rows, estimate, macro_f1, weighted_mean

BASE = "base"
BASE_WITH_EXAMPLES = "base with examples"
CHAMPION = "champion"
CANDIDATE = "candidate"
CONTENDERS = (BASE, BASE_WITH_EXAMPLES, CHAMPION, CANDIDATE)

MACRO_F1 = "macro_f1"
HELD_OUT_LOSS = "held_out_loss"
"""Cross-entropy of the held-out answers, in nats a token."""
PREFERENCE_ACCURACY = "preference_accuracy"
"""Share of held-out pairs in which the chosen answer is the likelier."""
PREFERENCE_MARGIN = "preference_margin"
"""How much likelier it is, in nats."""
GENERAL_LOSS = "general_loss"
"""Cross-entropy of text that is not about the task, in nats a token."""
GENERAL_ACCURACY = "general_accuracy"
"""Share of right answers to multiple-choice questions that are not about the task."""

SUITE = "suite: "
"""What the names of scores of lm-evaluation-harness begin with."""

LOSSES = (HELD_OUT_LOSS, GENERAL_LOSS)
"""Scores of which lower is better."""

JUDGE = re.compile(r"(.+)@[0-9a-f]{8}")
"""The name of a judge's score: the judge's, and its version."""


@dataclass(frozen=True, slots=True)
class Score:
    """One score of one contender: a number for each row, and what they come to."""

    name: str
    rows: tuple[str, ...]
    """Ids of the rows, texts or questions, as reports show them."""
    values: tuple[float, ...]
    """By row; for macro F1 the number of the predicted label, -1 for one that no reference has."""
    beside: tuple[float, ...]
    """By row: its weight, such as its tokens; for macro F1 the number of the reference's label."""
    estimate: Estimate
    confidence: float
    """Of the estimate's interval."""


def make_score(
    name: str,
    rows: Sequence[str],
    values: Sequence[float],
    beside: Sequence[float] | None = None,
    confidence: float = 0.95,
) -> Score:
    """The score that values by row come to.

    A loss in nats a token takes the rows' tokens as `beside`, so that every token counts the same. Values that are
    NaN make the score NaN, which passes no gate.

    Raises:
        ValueError: the rows, values and weights are not equally many.
    """
    weights = [1.0] * len(rows) if beside is None else beside
    if not len(rows) == len(values) == len(weights):
        raise ValueError(f"{name}: {len(rows)} rows, {len(values)} values and {len(weights)} weights")
    found = estimate(values, confidence, weights, _statistic(name))
    return Score(name, tuple(rows), tuple(values), tuple(weights), found, confidence)


def compare_scores(candidate: Score, other: Score, confidence: float = 0.95) -> Comparison:
    """Pairs two contenders row by row.

    Raises:
        ValueError: they were scored on different rows.
    """
    if candidate.rows != other.rows or candidate.beside != other.beside:
        raise ValueError(f"{candidate.name}: the contenders were scored on different rows: score all on the same")
    return compare_rows(
        candidate.name,
        candidate.rows,
        candidate.values,
        other.values,
        confidence,
        candidate.beside,
        _statistic(candidate.name),
        lower_is_better=candidate.name in LOSSES,
    )


def is_called(score: str, name: str) -> bool:
    """Whether a configuration means this score by a name: its own, or that of the judge it is by."""
    return name in (score, judge_of(score))


def judge_of(name: str) -> str | None:
    """The judge whose score this is the name of, if it is a judge's."""
    found = JUDGE.fullmatch(name)
    return found[1] if found else None


def comparable(ours: Mapping[str, Score], theirs: Mapping[str, Score]) -> dict[str, tuple[Score, Score]]:
    """By name the scores of two contenders that can be compared, because they are of the same rows.

    A judge need not have a verdict on every row: its scores are on the rows where it has one on both. Scores of two
    judges, or of two versions of one, are never here, because they have different names.
    """
    found = {}
    for name, our in ours.items():
        their = theirs.get(name)
        if their and judge_of(name):
            our, their = _on(our, their.rows), _on(their, our.rows)
        if their and our.rows and our.rows == their.rows:
            found[name] = our, their
    return found


def _on(score: Score, rows: Sequence[str]) -> Score:
    wanted = set(rows)
    kept = {row: value for row, value in zip(score.rows, score.values, strict=True) if row in wanted}
    return make_score(score.name, list(kept), list(kept.values()), confidence=score.confidence)


def _statistic(name: str) -> Statistic:
    return macro_f1 if name == MACRO_F1 else weighted_mean
