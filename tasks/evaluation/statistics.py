"""What numbers by row come to: a value with its confidence interval, and the paired comparison of two systems."""

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
from numpy.typing import NDArray

Numbers = NDArray[np.float64]
Statistic = Callable[[Numbers, Numbers], Numbers]
"""Of values by row, and of what lies beside them (weights, or labels), over the last axis."""

RESAMPLES = 2000
SEED = 20
SHOWN = 10
"""Rows that lost most, kept of each comparison."""


@dataclass(frozen=True, slots=True)
class Estimate:
    """A value over rows, mostly their mean, with its confidence interval."""

    mean: float
    low: float
    high: float
    count: int
    """Rows it was computed from."""


@dataclass(frozen=True, slots=True)
class Comparison:
    """Candidate minus another system, on the rows that both answered."""

    metric: str
    candidate: float
    other: float
    difference: Estimate
    confidence: float
    """Of the interval of the difference."""
    p_value: float
    """How often a difference this great, either way, would arise if neither system were better."""
    without_worst: float
    """The difference without the row that lost most: tells a general loss from one row's."""
    worst: tuple[tuple[str, float, float], ...]
    """Up to ten rows that lost most: id, the other's value, the candidate's value."""
    lower_is_better: bool = False

    @property
    def worse_by(self) -> float:
        """How much worse the candidate is; negative where it is better."""
        return self.difference.mean if self.lower_is_better else -self.difference.mean

    @property
    def worse_without_worst(self) -> float:
        """The same without the row that lost most."""
        return self.without_worst if self.lower_is_better else -self.without_worst

    @property
    def proven(self) -> bool:
        """The difference, whichever way it goes, is shown at the confidence to be no chance."""
        return self.difference.mean != 0 and self.p_value <= 1 - self.confidence


def weighted_mean(values: Numbers, weights: Numbers) -> Numbers:
    """Mean over the last axis."""
    return np.sum(values * weights, axis=-1) / np.sum(weights, axis=-1)


def macro_f1(predicted: Numbers, references: Numbers) -> Numbers:
    """Mean over the labels of their F1 scores, over the last axis.

    Labels are numbered from 0; -1 stands for a prediction that is no label. It costs recall, but is no label of its
    own, or a model would lose more the more differently it errs. A label that occurs on neither side, as in a
    resample, does not count.
    """
    told, true = (np.atleast_2d(codes).astype(np.int64) for codes in (predicted, references))
    told, true = np.broadcast_arrays(told, true)
    labels = int(max(true.max(), told.max())) + 1
    first = np.arange(len(true))[:, None] * labels

    def count(codes: NDArray[np.int64], chosen: NDArray[np.bool_]) -> NDArray[np.int64]:
        return np.bincount((codes + first)[chosen], minlength=len(true) * labels).reshape(len(true), labels)

    hits = count(true, told == true)
    occurring = count(true, true >= 0) + count(told, told >= 0)
    scores = 2 * hits / np.maximum(occurring, 1)
    means = scores.sum(axis=-1) / np.count_nonzero(occurring, axis=-1)
    return means.reshape(np.shape(predicted)[:-1])


def estimate(
    values: Sequence[float] | Numbers,
    confidence: float = 0.95,
    beside: Sequence[float] | Numbers | None = None,
    statistic: Statistic = weighted_mean,
) -> Estimate:
    """The statistic and its percentile bootstrap interval over rows.

    A single value, or values that are all equal, give an interval of no width (BCa would give NaN): read it with
    `count`. No values, or one that is not finite, give NaN.

    Args:
        values: one for each row.
        confidence: of the interval.
        beside: what the statistic reads beside each value: its weight (1 by default), or the reference's label.
        statistic: of values and `beside`, over the last axis.
    """
    numbers = np.asarray(values, dtype=np.float64)
    weights = np.ones(len(numbers)) if beside is None else np.asarray(beside, dtype=np.float64)
    return _bootstrap((numbers, weights), statistic, confidence)


def compare_rows(
    metric: str,
    rows: Sequence[str],
    candidate: Sequence[float] | Numbers,
    other: Sequence[float] | Numbers,
    confidence: float = 0.95,
    beside: Sequence[float] | Numbers | None = None,
    statistic: Statistic = weighted_mean,
    lower_is_better: bool = False,
) -> Comparison:
    """Pairs two systems row by row.

    The interval is a bootstrap over rows. `p_value` is from the paired randomisation test, which exchanges the two
    systems' values of each row at random (Smucker, Allan, Carterette: A comparison of statistical significance tests
    for information retrieval evaluation, CIKM 2007).

    Args:
        metric: its name.
        rows: ids of the rows, at least one.
        candidate: one value for each row.
        other: the same of the other system.
        confidence: of the interval, and of what counts as proven.
        beside: see `estimate`; the same for both systems.
        statistic: see `estimate`.
        lower_is_better: as for a loss.
    """
    ours, theirs = (np.asarray(values, dtype=np.float64) for values in (candidate, other))
    fixed = np.ones(len(ours)) if beside is None else np.asarray(beside, dtype=np.float64)
    if statistic is macro_f1:
        shown = (ours == fixed).astype(float), (theirs == fixed).astype(float)
        gains = shown[0] - shown[1]
    else:
        shown = ours, theirs
        gains = (ours - theirs) * fixed * (-1 if lower_is_better else 1)
    order = np.argsort(gains, kind="stable")
    rest = order[1:]
    return Comparison(
        metric=metric,
        candidate=float(statistic(ours, fixed)),
        other=float(statistic(theirs, fixed)),
        difference=_bootstrap((ours, theirs, fixed), lambda a, b, c: statistic(a, c) - statistic(b, c), confidence),
        confidence=confidence,
        p_value=_p_value(ours, theirs, fixed, statistic),
        without_worst=float(statistic(ours[rest], fixed[rest]) - statistic(theirs[rest], fixed[rest]))
        if len(rest)
        else 0.0,
        worst=tuple((rows[n], float(shown[1][n]), float(shown[0][n])) for n in order[:SHOWN] if gains[n] < 0),
        lower_is_better=lower_is_better,
    )


def say_interval(value: Estimate, sign: str = "") -> str:
    """The interval in words; `sign` is ``+`` for a difference."""
    return f"{value.low:{sign}.3f} to {value.high:{sign}.3f}"


def _bootstrap(columns: tuple[Numbers, ...], statistic: Callable[..., Any], confidence: float) -> Estimate:
    from scipy.stats import bootstrap

    count = len(columns[0])
    if count == 0 or not all(np.isfinite(column).all() for column in columns):
        return Estimate(np.nan, np.nan, np.nan, count)
    value = float(statistic(*columns))
    if count == 1:
        return Estimate(value, value, value, count)
    interval = bootstrap(
        columns,
        lambda *resampled, axis: statistic(*resampled),
        n_resamples=RESAMPLES,
        confidence_level=confidence,
        method="percentile",
        vectorized=True,
        paired=True,
        batch=_batch(count),
        rng=np.random.default_rng(SEED),
    ).confidence_interval
    return Estimate(value, float(interval.low), float(interval.high), count)


def _p_value(ours: Numbers, theirs: Numbers, fixed: Numbers, statistic: Statistic) -> float:
    from scipy.stats import permutation_test

    if not np.isfinite([ours, theirs]).all():
        return float("nan")
    # Rows without a difference stay as they are, so that few changes are enumerated exactly.
    changed = np.flatnonzero(ours != theirs)

    def fill(whole: Numbers, part: Numbers) -> Numbers:
        filled = np.broadcast_to(whole, (*part.shape[:-1], len(whole))).copy()
        filled[..., changed] = part[..., : len(changed)]
        return filled

    def difference(a: Numbers, b: Numbers, axis: int) -> Numbers:
        # Rounded, so that exchanges that come to the same but for the last bit count as the same.
        return np.round(statistic(fill(ours, a), fixed) - statistic(fill(theirs, b), fixed), 12)

    # The test wants two observations; zeros are harmless.
    return float(
        permutation_test(
            (np.append(ours[changed], [0.0, 0.0]), np.append(theirs[changed], [0.0, 0.0])),
            difference,
            permutation_type="samples",
            vectorized=True,
            n_resamples=2 * RESAMPLES,
            batch=_batch(len(ours)),
            rng=np.random.default_rng(SEED),
        ).pvalue
    )


def _batch(rows: int) -> int:
    """Resamples computed together: some ten megabytes a column."""
    return max(1, min(1000, 2_000_000 // rows))
