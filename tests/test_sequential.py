"""A test that is looked at after every pair: how often it errs, and how soon it decides."""

import functools
import math

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from tasks.evaluation.sequential import ConfidenceSequence, PairedTest, UnpairedTest
from tasks.evaluation.statistics import Estimate

CONFIDENCE = 0.9
RUNS, PAIRS = 150, 200


@functools.cache
def runs(worse: float, better: float, max_loss: float, count: int, pairs: int = PAIRS) -> list[PairedTest]:
    """Tests of a candidate that loses and wins pairs with these chances, each stopped by itself."""
    generator = np.random.default_rng(7)
    tests = []
    for _ in range(count):
        test = PairedTest(max_loss, CONFIDENCE, pairs)
        for difference in generator.choice([-1.0, 0.0, 1.0], pairs, p=[worse, 1 - worse - better, better]):
            test.add(difference)
            if test.stopped:
                break
        tests.append(test)
    return tests


def share_of(outcome: str, tests: list[PairedTest]) -> float:
    return sum(test.outcome == outcome for test in tests) / len(tests)


@pytest.mark.parametrize("wrong", ["worse", "no worse"])
def test_looking_after_every_pair_raises_no_more_false_alarms_than_stated(wrong: str) -> None:
    """The loss is exactly what is tolerated: the hardest case for both wrong answers, where noise alone decides."""
    tests = runs(worse=0.25, better=0.15, max_loss=0.1, count=RUNS)
    assert share_of(wrong, tests) <= 1 - CONFIDENCE


def test_an_interval_for_a_fixed_number_of_pairs_would_fail_the_same() -> None:
    """So that the check above is known to be able to fail."""
    generator = np.random.default_rng(7)
    alarms = 0
    for _ in range(RUNS):
        seen = generator.choice([-1.0, 0.0, 1.0], PAIRS, p=[0.25, 0.6, 0.15])
        counts = np.arange(1, PAIRS + 1)
        means = np.cumsum(seen) / counts
        errors = np.sqrt((np.cumsum(seen**2) / counts - means**2) / counts)
        alarms += bool(np.any((means + 1.645 * errors < -0.1)[10:]))
    assert alarms / RUNS > 1 - CONFIDENCE


def test_the_interval_holds_the_mean_at_all_times_at_once() -> None:
    generator = np.random.default_rng(3)
    missed = 0
    for _ in range(100):
        sequence = ConfidenceSequence(0, 1, CONFIDENCE)
        for value in generator.random(100) ** 3:  # of mean 1/4, and skewed
            sequence.add(value)
            if sequence.is_above(0.25) or sequence.is_below(0.25):
                missed += 1
                break
    assert missed <= 10


def test_a_clear_difference_is_seen_early_and_an_equal_candidate_passes() -> None:
    losing = runs(worse=0.5, better=0.0, max_loss=0.05, count=20)
    assert share_of("worse", losing) == 1
    assert max(test.differences.count for test in losing) < 60
    equal = runs(worse=0.02, better=0.02, max_loss=0.1, count=20)
    assert share_of("no worse", equal) > 0.9


def test_without_a_decision_it_stops_at_the_most_pairs() -> None:
    test = PairedTest(0.05, 0.95, 4)
    for difference in (1, -1, 1, -1):
        assert not test.stopped
        test.add(difference)
    assert (test.stopped, test.outcome) == (True, "undecided")


@settings(max_examples=30, deadline=None)
@given(st.lists(st.floats(-1, 1), min_size=1, max_size=30))
def test_the_order_does_not_matter_and_the_interval_is_the_decision(values: list[float]) -> None:
    one, two = (ConfidenceSequence(-1, 1, CONFIDENCE) for _ in range(2))
    for value in values:
        one.add(value)
    for value in reversed(values):
        two.add(value)
    found = one.interval()
    assert -1 <= found.low <= found.mean + 1e-9
    assert found.mean - 1e-9 <= found.high <= 1
    assert found.low == pytest.approx(two.interval().low)
    for mean in (-0.5, 0.0, 0.3):
        if abs(mean - found.low) > 1e-6:
            assert one.is_above(mean) == (mean < found.low)
        if abs(mean - found.high) > 1e-6:
            assert one.is_below(mean) == (mean > found.high)


def test_the_interval_narrows_around_the_mean() -> None:
    sequence = ConfidenceSequence(0, 1, 0.95)
    assert str(sequence.interval()) == str(Estimate(math.nan, 0, 1, 0))
    widths = []
    for _ in range(3):
        for value in (0.2, 0.4) * 100:
            sequence.add(value)
        widths.append(sequence.interval().high - sequence.interval().low)
    assert widths == sorted(widths, reverse=True)
    assert sequence.interval().mean == pytest.approx(0.3)
    assert widths[-1] < 0.06


@pytest.mark.parametrize("value", [1.1, -1.1, math.nan, math.inf])
def test_what_lies_outside_the_bounds_is_refused(value: float) -> None:
    with pytest.raises(ValueError, match="is not between -1 and 1"):
        PairedTest(0.05, 0.95, 10).add(value)


@pytest.mark.parametrize(("chances", "expected"), [((0.9, 0.3), "worse"), ((0.9, 0.9), "no worse")])
def test_groups_without_pairs_are_compared_too(chances: tuple[float, float], expected: str) -> None:
    generator = np.random.default_rng(5)
    test = UnpairedTest(0.3, CONFIDENCE)
    assert test.outcome == "undecided"
    for _ in range(300):
        test.champion.add(float(generator.random() < chances[0]))
        test.candidate.add(float(generator.random() < chances[1]))
    assert test.outcome == expected
    difference = test.difference
    assert difference.low < chances[1] - chances[0] < difference.high


def test_groups_without_pairs_raise_no_more_false_alarms_than_stated() -> None:
    """The loss is exactly what is tolerated."""
    generator = np.random.default_rng(11)
    alarms = 0
    for _ in range(40):
        test = UnpairedTest(0.2, CONFIDENCE)
        for place in range(200):
            test.champion.add(float(generator.random() < 0.8))
            test.candidate.add(float(generator.random() < 0.6))
            if place % 10 == 0 and test.outcome != "undecided":
                alarms += 1
                break
    assert alarms <= 4
