"""Tests that may be looked at after every observation and stop by themselves, at no cost to their error rate.

An interval that is made for a fixed number of observations fails if one looks at it again and again until it shows
what one hopes for. The intervals here hold at every time at once: the chance that one ever misses the true mean is at
most 1 − `confidence`, however often one looks and whenever one stops.

Method: Waudby-Smith, Ramdas: Estimating means of bounded random variables by betting, Journal of the Royal Statistical
Society B 86 (2024) 1, https://doi.org/10.1093/jrsssb/qkad009. Somebody who bets on every observation against "the mean
is m" cannot be expected to win if it is, so, by Ville's inequality (1939), the chance that the stake ever multiplies by
1 / alpha is at most alpha; means against which somebody has won as much are left out of the interval. A stake is spread
over many sizes of a bet (the paper's grid Kelly), so that nothing needs to be known of the variance, and the order of
the observations does not matter.

It rests on this: whatever came before, the next observation is expected to have the mean. Twice the same question is
one observation.
"""

import math
from collections import Counter
from collections.abc import Callable
from dataclasses import dataclass, field

import numpy as np

from tasks.evaluation.statistics import Estimate
from tasks.records import Outcome

BETS = np.geomspace(0.005, 0.995, 24)
"""Shares of what may be lost at most that are staked."""
HALVINGS = 40


@dataclass(slots=True)
class ConfidenceSequence:
    """The mean of observations between `least` and `most`, with an interval that holds at all times at once."""

    least: float
    most: float
    confidence: float
    """That both ends hold, always."""
    _seen: Counter[float] = field(default_factory=Counter)

    @property
    def count(self) -> int:
        return self._seen.total()

    def add(self, value: float) -> None:
        """Raises ValueError for a value outside the bounds, or none."""
        if not self.least <= value <= self.most:
            raise ValueError(f"{value} is not between {self.least} and {self.most}")
        self._seen[value] += 1

    def is_above(self, mean: float) -> bool:
        """Whether the true mean is certainly greater: the lower end of the interval is."""
        return self._won(self._log_wealth(mean, upwards=True))

    def is_below(self, mean: float) -> bool:
        """Whether the true mean is certainly less: the upper end of the interval is."""
        return self._won(self._log_wealth(mean, upwards=False))

    def interval(self) -> Estimate:
        """The mean so far, NaN before the first observation, and between what the true one lies."""
        if not self._seen:
            return Estimate(math.nan, self.least, self.most, 0)
        mean = sum(value * times for value, times in self._seen.items()) / self.count
        low = _boundary(self.least, mean, self.is_above)
        high = _boundary(self.most, mean, self.is_below)
        return Estimate(mean, low, high, self.count)

    def _won(self, log_wealth: float) -> bool:
        return log_wealth >= math.log(2 / (1 - self.confidence))  # half of the error for either end

    def _log_wealth(self, mean: float, upwards: bool) -> float:
        """What a stake of 1 has become that bet on a greater mean, or a smaller one.

        A bet of share b turns into (1 − b) + b · (x − least) / (mean − least), which is expected to be 1 if the mean
        is right, is never negative, and falls as the mean rises: so the interval has one lower end. Downwards alike.
        """
        values = np.array(list(self._seen), dtype=np.float64)
        times = np.array(list(self._seen.values()), dtype=np.float64)
        bound = self.least if upwards else self.most
        if mean == bound:  # nothing lies beyond it
            return math.inf if np.any(values != bound) else 0.0
        factors = (1 - BETS)[:, None] + BETS[:, None] * ((values - bound) / (mean - bound))
        logs = np.log(factors) @ times
        largest = float(logs.max())
        return largest + math.log(float(np.exp(logs - largest).mean()))


class PairedTest:
    """Whether a candidate loses more than is tolerated against a champion, on pairs of values; stops by itself."""

    def __init__(self, max_loss: float, confidence: float, max_pairs: int) -> None:
        """`max_loss` is the mean loss that is tolerated, in [0, 1); after `max_pairs` it stops undecided."""
        self.differences = ConfidenceSequence(-1, 1, confidence)
        self.outcome: Outcome = "undecided"
        self._max_loss, self._max_pairs = max_loss, max_pairs

    @property
    def stopped(self) -> bool:
        """Nothing more is to be added."""
        return self.outcome != "undecided" or self.differences.count >= self._max_pairs

    def add(self, difference: float) -> None:
        """Candidate minus champion, of one pair, between -1 and 1."""
        self.differences.add(difference)
        if self.differences.is_below(-self._max_loss):
            self.outcome = "worse"
        elif self.differences.is_above(-self._max_loss):
            self.outcome = "no worse"


class UnpairedTest:
    """The same on two groups of values in [0, 1] that belong to different questions; needs many more of them.

    The difference is not less than the candidate's lower end minus the champion's upper end, nor more than the other
    way round; either group has half of the error.
    """

    def __init__(self, max_loss: float, confidence: float) -> None:
        self.champion, self.candidate = (ConfidenceSequence(0, 1, (1 + confidence) / 2) for _ in range(2))
        self._max_loss = max_loss

    @property
    def difference(self) -> Estimate:
        """Candidate minus champion; the count is that of the candidate."""
        ours, theirs = self.candidate.interval(), self.champion.interval()
        return Estimate(ours.mean - theirs.mean, ours.low - theirs.high, ours.high - theirs.low, ours.count)

    @property
    def outcome(self) -> Outcome:
        """As it stands: the first one that is not undecided holds."""
        difference = self.difference
        if difference.high < -self._max_loss:
            return "worse"
        return "no worse" if difference.low > -self._max_loss else "undecided"


def _boundary(outside: float, inside: float, is_outside: Callable[[float], bool]) -> float:
    """Where the interval ends between a point that may lie outside and the mean; errs to the outside."""
    if not is_outside(outside):
        return outside
    for _ in range(HALVINGS):
        middle = (outside + inside) / 2
        if is_outside(middle):
            outside = middle
        else:
            inside = middle
    return outside
