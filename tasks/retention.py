"""Which versions stay: a decision over records alone, the same for a dry run and for a real one."""

from collections.abc import Iterable, Mapping
from itertools import groupby

from tasks.records import Registered

DAY = 86_400


def why_kept(versions: Iterable[Registered], depth: int, days: float, now: float) -> dict[str, str]:
    """The versions that stay, as ``name@number``, each with the first reason for it; what is not named may go.

    Of each model that is what is protected, the `depth` newest, the `depth` newest of those that were ever live (the
    ones that a rollback can go to), and what is younger than `days`. A release that stays keeps its parts.
    """
    every = sorted(versions, key=lambda version: (version.name, -version.number))
    kept: dict[str, str] = {}
    for _, model in groupby(every, key=lambda version: version.name):
        of_model = list(model)
        kept |= {
            version.pinned: why
            for version in of_model
            if (why := version.protected or _within(version, of_model, depth, days, now))
        }
    for release in every:
        if release.pinned in kept:
            kept = dict.fromkeys(release.parts, f"is part of {release.pinned}") | kept
    return kept


def _within(version: Registered, newest_first: list[Registered], depth: int, days: float, now: float) -> str:
    if version in newest_first[:depth]:
        return f"among the newest {depth}"
    if version in [other for other in newest_first if other.lived][:depth]:
        return f"among the last {depth} that were live"
    return f"younger than {days:g} days" if now - version.created < days * DAY else ""


def to_remove(versions: Iterable[Registered], kept: Mapping[str, str]) -> list[Registered]:
    """The others, releases first: as long as a release exists, nothing may remove its parts."""
    return sorted(
        (version for version in versions if version.pinned not in kept),
        key=lambda version: (not version.parts, version.name, version.number),
    )
