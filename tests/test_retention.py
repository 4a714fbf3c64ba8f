"""Which versions stay is decided from records alone; nothing protected ever goes."""

from hypothesis import given
from hypothesis import strategies as st

from tasks.records import Registered
from tasks.retention import DAY, to_remove, why_kept

NOW = 1_000 * DAY


def version(name: str, number: int, age: float, **more: object) -> Registered:
    return Registered(name, number, NOW - age * DAY, **{"lived": False} | more)  # type: ignore[arg-type]


def removed(versions: list[Registered], depth: int, days: float) -> list[str]:
    return [gone.pinned for gone in to_remove(versions, why_kept(versions, depth, days, NOW))]


def test_the_newest_the_last_live_and_the_young_stay() -> None:
    versions = [version("docs", number, age=10 - number, lived=number in (1, 2, 3)) for number in range(1, 11)]
    kept = why_kept(versions, 2, 2.5, NOW)
    assert kept == {
        "docs@10": "among the newest 2",
        "docs@9": "among the newest 2",
        "docs@8": "younger than 2.5 days",
        "docs@3": "among the last 2 that were live",
        "docs@2": "among the last 2 that were live",
    }
    assert removed(versions, 2, 2.5) == ["docs@1", "docs@4", "docs@5", "docs@6", "docs@7"]


def test_a_release_keeps_its_parts_as_long_as_it_stays_and_goes_before_them() -> None:
    releases = [version("desk", number, 40 - number, parts=(f"docs@{number}",)) for number in (1, 2)]
    indices = [version("docs", number, 40 - number) for number in (1, 2, 3)]
    assert removed(releases + indices, 1, 0) == ["desk@1", "docs@1"]
    assert removed(releases + indices, 2, 0) == []
    assert why_kept(releases + indices, 1, 0, NOW)["docs@2"] == "is part of desk@2"


REASONS = ("is live", "was live before", "waits for approval", "docs is held", "the auditors need it (ann)")


@st.composite
def registries(draw: st.DrawFn) -> list[Registered]:
    ages, lived = st.floats(0, 100), st.booleans()
    reasons = st.sampled_from(("", "", "", *REASONS))
    indices = [
        version("docs", number, draw(ages), lived=draw(lived), protected=draw(reasons))
        for number in draw(st.sets(st.integers(1, 40), max_size=25))
    ]
    parts = st.sampled_from([index.pinned for index in indices] or ["docs@41"])
    releases = [
        version("desk", number, draw(ages), lived=draw(lived), protected=draw(reasons), parts=(draw(parts),))
        for number in draw(st.sets(st.integers(1, 40), max_size=10))
    ]
    return draw(st.permutations(indices + releases))


@given(registries(), st.integers(1, 12), st.floats(0, 60))
def test_nothing_protected_ever_goes_and_a_second_run_finds_nothing(
    versions: list[Registered], depth: int, days: float
) -> None:
    gone = to_remove(versions, why_kept(versions, depth, days, NOW))
    left = [each for each in versions if each not in gone]
    for each in gone:
        newer = [other for other in left if other.name == each.name and other.number > each.number]
        assert not each.protected
        assert NOW - each.created >= days * DAY
        assert len(newer) >= depth
        assert not each.lived or sum(other.lived for other in newer) >= depth
        assert not any(each.pinned in release.parts for release in left)
    assert to_remove(left, why_kept(left, depth, days, NOW)) == []
    assert [bool(each.parts) for each in gone] == sorted((bool(each.parts) for each in gone), reverse=True)
