"""Whether questions come from another distribution, and whether measures of answers became worse."""

import json

import numpy as np
import pytest

from tasks.config.index import EmbedderConfig
from tasks.config.settings import Home
from tasks.evaluation.drift import Vectors, find_drift, level_of_run
from tasks.evaluation.series import Change, Kind, Series, Way, adjusted, compare_series
from tasks.index.embedding import load_embedder
from tests.realdata import SHARED, needs_real_data

LEVEL = level_of_run(0.05, 20)


def points(*values: float) -> Vectors:
    return np.array(values, dtype=np.float32)[:, None]


def test_the_distance_of_four_points_and_its_p_value_are_those_counted_by_hand() -> None:
    found = find_drift(points(0, 1), points(2, 3), 0.01)
    assert found.distance == pytest.approx(2 * 2 - 1 - 1)  # twice the mean across, less the means within
    assert found.p_value == pytest.approx(
        1 / 3, abs=0.05
    )  # of the six ways to choose two, 0 1 and 2 3 are as far apart
    assert found.separation == 1.0
    assert found.recent == pytest.approx([-1 + 1.5, -1 + 2.5])


def test_samples_that_are_alike_are_not_told_apart() -> None:
    random = np.random.default_rng(0)
    earlier, recent = (random.normal(size=(size, 5)).astype(np.float32) for size in (200, 100))
    found = find_drift(earlier, recent, LEVEL)
    assert found.p_value > 0.1
    assert found.separation == pytest.approx(0.5, abs=0.06)


def test_the_p_value_is_uniform_where_nothing_changes() -> None:
    random = np.random.default_rng(1)
    samples = random.normal(size=(200, 40, 3)).astype(np.float32)
    p_values = [find_drift(each[:25], each[25:], 0.1).p_value for each in samples]
    for level in (0.1, 0.3, 0.5):
        assert np.mean(np.array(p_values) <= level) == pytest.approx(level, abs=0.1)


@pytest.mark.realdata
@needs_real_data
def test_real_questions_are_quiet_and_a_fifth_from_elsewhere_is_found_within_200(home: Home) -> None:
    stored = json.loads((SHARED / "xquad" / "xquad.en.json").read_text("utf-8"))["data"]
    asked = [one["question"] for article in stored for paragraph in article["paragraphs"] for one in paragraph["qas"]]
    lines = (SHARED / "banking77" / "test.csv").read_text("utf-8").splitlines()[1:]
    elsewhere = [line.rpartition(",")[0] for line in lines[::77]]
    embedder = load_embedder(EmbedderConfig(), home)
    usual, unusual = (embedder.embed_queries(texts) for texts in (asked[:900], elsewhere))
    random = np.random.default_rng(2)
    random.shuffle(usual)
    reference, pool = usual[:500], usual[500:]
    windows = [random.permutation(pool)[:200] for _ in range(20)]
    assert sum(find_drift(reference, window, LEVEL).p_value <= LEVEL for window in windows) <= 1
    found = find_drift(reference, np.vstack([pool[:160], unusual[:40]]), LEVEL)
    assert found.p_value <= LEVEL
    assert found.separation > 0.55
    strangest = np.argsort(-found.recent)[:30]
    assert np.mean(strangest >= 160) > 0.9


def test_holm_raises_each_p_value_by_those_that_are_left() -> None:
    assert adjusted([0.01, 0.04, 0.03]) == pytest.approx([0.03, 0.06, 0.06])
    assert adjusted([0.6, 0.7]) == [1.0, 1.0]
    assert adjusted([]) == []


def share(of: int, count: int) -> np.ndarray:
    return np.array([1.0] * of + [0.0] * (count - of))


def change(kind: Kind, bad: Way, before: np.ndarray, now: np.ndarray) -> Change:
    (found,) = compare_series([Series("it", kind, bad, before, now)], LEVEL, 0.05, 0.1)
    return found


@pytest.mark.parametrize(
    ("bad", "before", "now", "worse"),
    [
        ("up", 50, 60, True),
        ("down", 50, 60, False),
        ("either", 50, 60, True),
        ("up", 50, 22, False),  # a tenth of both
        ("up", 10, 13, False),  # 2 % and 6.5 %: below 5 points
    ],
)
def test_a_share_is_worse_only_in_its_bad_direction_and_by_more_than_is_tolerated(
    bad: Way, before: int, now: int, worse: bool
) -> None:
    assert change("share", bad, share(before, 500), share(now, 200)).worse is worse


def test_a_few_slow_answers_show_in_the_tail_and_not_in_the_median() -> None:
    random = np.random.default_rng(3)
    before, now = random.gamma(2, size=500), random.gamma(2, size=200)
    now[:14] += 20
    tail = change("tail", "up", before, now)
    assert tail.worse
    assert tail.now > 20 > tail.before > 3
    assert not change("level", "up", before, now).worse
    assert change("level", "up", before, now * 1.6).worse


def test_what_nobody_said_enough_of_is_left_out_and_does_not_cost_the_others_any_power() -> None:
    few = Series("rated", "share", "up", share(1, 9), share(9, 9))
    enough = Series("refused", "share", "up", share(5, 100), share(20, 100))
    alone, beside = (compare_series(each, LEVEL, 0.05, 0.1) for each in ([enough], [few, enough]))
    assert alone == beside
    assert [each.name for each in alone] == ["refused"]


def test_what_was_nothing_and_is_something_has_no_finite_change_and_counts() -> None:
    found = change("level", "up", np.zeros(100), np.ones(100))
    assert (found.change, found.worse) == (np.inf, True)
    assert change("level", "up", np.zeros(100), np.zeros(100)).worse is False
