"""Whether what is measured of answers has become worse since a reference window.

Shares are compared by Fisher's exact test, levels by that of Mann and Whitney, and the slow or long end by counting
how many values of either side lie beyond the 95 % quantile of both, which is a share again. The p-values of one run
are corrected for their number as Holm does ("A Simple Sequentially Rejective Multiple Test Procedure", 1979), which
needs no independence: latency and tokens rise together.
"""

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Literal

import numpy as np
from numpy.typing import NDArray

Numbers = NDArray[np.float64]
Way = Literal["up", "down", "either"]
Kind = Literal["share", "level", "tail"]
"""Of values that are 0 or 1 their mean, of numbers their median, or of numbers their 95 % quantile."""
ALTERNATIVES = {"up": "greater", "down": "less", "either": "two-sided"}
TAIL = 0.95
FEWEST = 10
"""Values on either side below which nothing is compared."""


@dataclass(frozen=True, slots=True)
class Series:
    """Something measured of many answers, before and now."""

    name: str
    kind: Kind
    bad: Way
    """The direction in which it gets worse."""
    reference: Numbers
    recent: Numbers

    @property
    def comparable(self) -> bool:
        return min(len(self.reference), len(self.recent)) >= FEWEST


@dataclass(frozen=True, slots=True)
class Change:
    """What a series came to."""

    name: str
    kind: Kind
    before: float
    now: float
    change: float
    """Of a share the difference, of other values that as a share of what it was."""
    p_value: float
    """Corrected for the number of series."""
    worse: bool
    """It changed in the bad direction, by more than is tolerated and more than chance explains."""
    counts: tuple[int, int]
    """Values before and now."""


def compare_series(series: Sequence[Series], level: float, min_points: float, min_change: float) -> list[Change]:
    """What each series came to, in their order; those with too few values are left out.

    Args:
        series: what was measured.
        level: chance that any of them is called worse without a change.
        min_points: least change of a share that counts.
        min_change: least change of another value that counts, as a share of what it was.
    """
    compared = [each for each in series if each.comparable]
    p_values = adjusted([_p_value(each) for each in compared])
    return [_change(one, p, level, min_points, min_change) for one, p in zip(compared, p_values, strict=True)]


def adjusted(p_values: Sequence[float]) -> list[float]:
    """Holm's p-values, each comparable with the level of all of them together."""
    order = np.argsort(p_values, kind="stable")
    factors = np.arange(len(p_values), 0, -1)
    raised = np.minimum(np.maximum.accumulate(factors * np.asarray(p_values, dtype=np.float64)[order]), 1)
    result = np.empty(len(p_values))
    result[order] = raised
    return [float(value) for value in result]


def _change(series: Series, p_value: float, level: float, min_points: float, min_change: float) -> Change:
    before, now = _value(series, series.reference), _value(series, series.recent)
    change = now - before
    if series.kind != "share" and change:
        change = change / abs(before) if before else float("inf") * np.sign(change)
    least = min_points if series.kind == "share" else min_change
    ways = {"up": change >= least, "down": change <= -least, "either": abs(change) >= least}
    worse = bool(p_value <= level and change and ways[series.bad])
    counts = (len(series.reference), len(series.recent))
    return Change(series.name, series.kind, before, now, float(change), p_value, worse, counts)


def _value(series: Series, values: Numbers) -> float:
    quantiles = {"level": 0.5, "tail": TAIL}
    if series.kind == "share":
        return float(values.mean())
    return float(np.quantile(values, quantiles[series.kind]))


def _p_value(series: Series) -> float:
    from scipy.stats import fisher_exact, mannwhitneyu

    recent, reference = series.recent, series.reference
    if series.kind == "level":
        return float(mannwhitneyu(recent, reference, alternative=ALTERNATIVES[series.bad]).pvalue)
    if series.kind == "tail":
        limit = np.quantile(np.concatenate([reference, recent]), TAIL)
        recent, reference = recent > limit, reference > limit
    table = [[int(np.sum(side)), int(len(side) - np.sum(side))] for side in (recent, reference)]
    return float(fisher_exact(table, alternative=ALTERNATIVES[series.bad]).pvalue)
