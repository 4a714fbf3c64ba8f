"""Whether two samples of vectors, such as embedded questions, come from the same distribution.

The energy distance (Székely and Rizzo, "Testing for Equal Distributions in High Dimension", InterStat 2004) between
the samples, with the p-value of a permutation test. It has no bandwidth to choose, and is zero only for equal
distributions; it is the MMD of Gretton et al., "A Kernel Two-Sample Test", JMLR 2012, with a kernel of distances
(Sejdinovic et al., Annals of Statistics 2013).

The p-value is exact for every sample size, if the vectors of both samples are exchangeable: users ask independently of
one another. A watch tests again and again, against the same reference and on windows that may overlap, so its tests
depend on one another. Its level is therefore divided by the number of runs it is to hold for (`level_of_run`): the
union bound holds however they depend.
"""

import math
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from tasks.evaluation.statistics import SEED

Vectors = NDArray[np.float32]
Numbers = NDArray[np.float64]
EXCEEDING = 10
"""Permutations expected beyond the level: fewer would leave it to chance whether a p-value close to it is below."""
ENOUGH = 100
"""Permutations in which the samples lie as far apart, after which no more are drawn."""
BATCH = 250


@dataclass(frozen=True, slots=True)
class Drift:
    """How recent vectors differ from earlier ones."""

    distance: float
    """Energy distance; about 0, and perhaps below, where nothing has changed."""
    p_value: float
    separation: float
    """Chance that one of the recent looks newer than one of the reference: 0.5 where they are alike, 1 if always."""
    reference: Numbers
    """How new each vector of the reference looks: greater where it lies closer to the other recent ones."""
    recent: Numbers
    """The same of the recent ones, in their order."""


def level_of_run(false_alarms: float, horizon: int) -> float:
    """The level of one test, so that the chance of any false alarm in `horizon` tests is at most `false_alarms`."""
    return false_alarms / horizon


def find_drift(reference: Vectors, recent: Vectors, level: float) -> Drift:
    """Compare two samples of vectors of the same dimension, at least two each; `level` sets the permutations drawn."""
    earlier, count = len(reference), len(reference) + len(recent)
    closeness = _closeness(np.vstack([reference, recent]))
    of_each = closeness.sum(axis=1)
    is_recent = np.zeros(count, dtype=np.float32)
    is_recent[earlier:] = 1
    newness = _newness(closeness @ is_recent, of_each, is_recent)
    return Drift(
        distance=float(_distances(closeness, of_each, is_recent[None])[0]),
        p_value=_p_value(closeness, of_each, is_recent, math.ceil(EXCEEDING / level)),
        separation=_separation(newness[:earlier], newness[earlier:]),
        reference=newness[:earlier],
        recent=newness[earlier:],
    )


def _closeness(vectors: Vectors) -> Vectors:
    """Euclidean distances with their sign turned, and zeros in the diagonal."""
    squares = np.einsum("ij,ij->i", vectors, vectors)
    between = squares[:, None] + squares[None] - 2 * vectors @ vectors.T
    np.fill_diagonal(between, 0)
    return -np.sqrt(np.maximum(between, 0), dtype=np.float32)


def _distances(closeness: Vectors, of_each: Vectors, chosen: Vectors) -> Numbers:
    """The unbiased energy distance (U-statistic) between chosen vectors and the others, for each row of 0 and 1."""
    of_chosen = chosen @ of_each.astype(np.float64)
    inside = np.einsum("ij,ij->i", chosen @ closeness, chosen, dtype=np.float64)
    across = of_chosen - inside
    outside = of_each.sum(dtype=np.float64) - inside - 2 * across
    ours = int(chosen[0].sum())
    others = len(of_each) - ours
    return inside / (ours * (ours - 1)) + outside / (others * (others - 1)) - 2 * across / (ours * others)


def _p_value(closeness: Vectors, of_each: Vectors, is_recent: Vectors, permutations: int) -> float:
    """Share of the permutations, this order among them, in which the samples lie as far apart.

    No more are drawn once so many do that the p-value is beyond any level that was asked for: its value is then that of
    Besag and Clifford, "Sequential Monte Carlo p-values", Biometrika 1991, which is exact as well.
    """
    random = np.random.default_rng(SEED)
    found = _distances(closeness, of_each, is_recent[None])[0] - 1e-9  # so that the same order in float32 counts
    as_far = 0
    for start in range(0, permutations, BATCH):
        chosen = np.tile(is_recent, (min(BATCH, permutations - start), 1))
        hits = np.flatnonzero(_distances(closeness, of_each, random.permuted(chosen, axis=1)) >= found)
        if as_far + len(hits) >= ENOUGH:
            return float(ENOUGH / (start + hits[ENOUGH - as_far - 1] + 1))
        as_far += len(hits)
    return (as_far + 1) / (permutations + 1)


def _newness(to_recent: Vectors, of_each: Vectors, is_recent: Vectors) -> Numbers:
    """Mean closeness to the recent vectors minus that to the reference, each vector itself left out."""
    recent = is_recent.sum()
    earlier = len(is_recent) - recent
    return (to_recent / (recent - is_recent) - (of_each - to_recent) / (earlier - (1 - is_recent))).astype(np.float64)


def _separation(earlier: Numbers, recent: Numbers) -> float:
    from scipy.stats import mannwhitneyu

    return float(mannwhitneyu(recent, earlier).statistic) / (len(earlier) * len(recent))
