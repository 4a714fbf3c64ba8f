"""Which rows are held out: by date, by group, or balanced; never one group on both sides."""

from collections import Counter
from datetime import date, timedelta

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from tasks.training.formats import Example
from tasks.training.splitting import keep_groups_apart, split
from tests.examples import example

FIRST = date(2026, 1, 1)


def names(examples: list[Example]) -> list[str]:
    return [one.id for one in examples]


def test_rows_of_the_cut_off_and_later_are_held_out() -> None:
    rows = [example(str(n), day=FIRST + timedelta(n)) for n in (2, 0, 3, 1)]
    (train, held_out), how = split(rows, share=0.1, seed=0, cut_off=FIRST + timedelta(2))
    assert (names(train), names(held_out)) == (["0", "1"], ["2", "3"])
    assert how == "Held out are the rows of 2026-01-03 and later."


@pytest.mark.parametrize(
    ("days", "share", "expected"),
    [
        ([0, 1, 2, 3, 4], 0.2, [4]),
        ([0, 1, 2, 3, 4], 0.5, [3, 4]),  # two of five rows; three would be more than half
        ([0, 1, 1, 1, 1], 0.2, [1, 1, 1, 1]),  # one day cannot be parted
        ([0, 0, 0, 0, 1], 0.8, [1]),
    ],
)
def test_without_a_cut_off_the_newest_days_are_held_out(days: list[int], share: float, expected: list[int]) -> None:
    rows = [example(f"{n}", day=FIRST + timedelta(day)) for n, day in enumerate(days)]
    (_, held_out), _ = split(rows, share=share, seed=0)
    assert [(one.day or FIRST) - FIRST for one in held_out] == [timedelta(day) for day in expected]


def test_whole_groups_are_held_out_as_far_as_there_is_room() -> None:
    rows = [example(f"{group}{n}", group=group) for group, size in (("a", 7), ("b", 2), ("c", 1)) for n in range(size)]
    for seed in range(5):
        (_, held_out), how = split(rows, share=0.3, seed=seed)
        assert sorted(names(held_out)) == ["b0", "b1", "c0"]
        assert how == "Held out are 2 groups at random."


def test_the_smallest_group_is_held_out_where_all_are_large_and_none_where_there_is_only_one() -> None:
    rows = [example(f"{group}{n}", group=group) for group, size in (("a", 6), ("b", 4)) for n in range(size)]
    assert {one.group for one in split(rows, share=0.1, seed=0)[0][1]} == {"b"}
    assert split(rows[:6], share=0.1, seed=0)[0][1] == []


def test_every_label_has_its_share_to_within_one_row() -> None:
    sizes = {"common": 95, "rare": 25, "rarest": 3}
    rows = [example(f"{label}{n}", label=label) for label, size in sizes.items() for n in range(size)]
    (_, held_out), how = split(rows, share=0.1, seed=0)
    counts = Counter(one.label for one in held_out)
    assert len(held_out) == 12
    assert all(abs(counts[label] - size * 0.1) <= 1 for label, size in sizes.items())
    assert how == "Rows are held out at random, balanced by label."


def test_another_seed_holds_other_rows_out() -> None:
    rows = [example(str(n)) for n in range(100)]
    chosen = {frozenset(names(split(rows, share=0.1, seed=seed)[0][1])) for seed in range(3)}
    assert len(chosen) == 3
    assert all(len(held_out) == 10 for held_out in chosen)


def test_rows_to_train_on_lose_the_groups_that_are_held_out_and_those_without_a_group_stay() -> None:
    train = [example("1", group="a"), example("2", group="b"), example("3")]
    kept, dropped = keep_groups_apart(train, [example("4", group="b"), example("5")])
    assert (names(kept), names(dropped)) == (["1", "3"], ["2"])


@st.composite
def data_sets(draw: st.DrawFn) -> list[Example]:
    size = draw(st.integers(0, 30))
    grouped, labelled, dated = draw(st.tuples(st.booleans(), st.booleans(), st.booleans()))
    return [
        example(
            str(n),
            group=draw(st.sampled_from("abcde")) if grouped else None,
            label=draw(st.sampled_from("xyz")) if labelled else None,
            day=FIRST + timedelta(draw(st.integers(0, 9))) if dated else None,
        )
        for n in range(size)
    ]


@settings(deadline=None)
@given(data_sets(), st.floats(0.01, 0.99), st.integers(0, 5), st.randoms())
def test_a_split_loses_nothing_parts_no_group_and_does_not_hang_on_the_order(
    rows: list[Example], share: float, seed: int, random: object
) -> None:
    (train, held_out), _ = split(rows, share=share, seed=seed)
    assert sorted(names(train + held_out)) == sorted(names(rows))
    kept, dropped = keep_groups_apart(train, held_out)
    assert sorted(names(kept + dropped)) == sorted(names(train))
    assert not {one.group for one in kept if one.group} & {one.group for one in held_out}
    assert all(old.day < new.day for old in kept for new in held_out if old.day and new.day)
    shuffled = list(rows)
    random.shuffle(shuffled)  # type: ignore[attr-defined]
    (_, again), _ = split(shuffled, share=share, seed=seed)
    assert sorted(names(again)) == sorted(names(held_out))
