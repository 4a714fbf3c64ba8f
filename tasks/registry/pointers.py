"""Champion, candidate and previous: how they are moved, protected, and put right after a crash or a hand.

Whoever moves a pointer holds the model's lock. Every move is written to the ledger before it is made and
closed after it, so `settle` can tell at any time what was begun, what was done, and what was done by hand.
"""

from collections.abc import Callable, Iterator
from dataclasses import replace
from itertools import chain
from typing import Any

from mlflow import MlflowClient
from mlflow.entities.model_registry import ModelVersion

from tasks.errors import RefusedError, RegistryError, TandemError
from tasks.records import Move
from tasks.registry import ledger
from tasks.registry.connection import explained, registry
from tasks.registry.ledger import Entry, Pointers, What
from tasks.registry.marks import find_model
from tasks.registry.versions import (
    get,
    list_names,
    list_versions,
    load_manifest,
    own_versions,
    parts_of,
    search_versions,
)

HOLD_TAG = "tandem.hold"
KEEP_TAG = "tandem.keep"
LONGEST_HOLD = 1000
BY_HAND = "MLflow UI (found later)"
ALIASES: tuple[What, ...] = ("champion", "candidate", "previous")
POINTERS: tuple[What, ...] = (*ALIASES, "hold")
Prove = Callable[[dict[str, Any]], object]


@explained
def pointers(client: MlflowClient, name: str) -> Pointers:
    """Where the model's pointers stand in MLflow; all None for a model that does not exist."""
    model = find_model(client, name)
    if model is None:
        return Pointers()
    at = {alias: int(number) for alias, number in model.aliases.items()}
    return Pointers(at.get("champion"), at.get("candidate"), at.get("previous"), model.tags.get(HOLD_TAG))


@explained
def promote(
    client: MlflowClient,
    name: str,
    number: int,
    *,
    by: str,
    reason: str,
    prove: Prove,
    force: bool = False,
) -> Move:
    """Put a version live. Where it is live already, returns the move that made it so.

    ``prove`` gets the manifest and raises if the version does not load; no pointer is touched then. Raises
    RefusedError while the model is held, unless a person insists (``force``), which leaves the hold in place.
    """
    now, last, _ = _settle(client, name)
    if now.champion == number:
        return next(entry.move for entry in ledger.entries(client, name) if entry.move.what == "champion")
    if now.hold is not None and not force:
        raise RefusedError(
            f"{name} is held ({now.hold}): version {number} was not promoted. Lift the hold first: tandem unhold {name}"
        )
    _prove(client, name, number, prove)
    return _move(client, name, "champion", now, _with_champion(now, number), last, by, reason).move


@explained
def rollback(
    client: MlflowClient,
    name: str,
    to: int | None = None,
    *,
    by: str,
    reason: str,
    prove: Prove,
    dry_run: bool = False,
) -> Move:
    """Put an earlier version live, by default the one before, and hold the model until somebody lifts it.

    With ``dry_run`` everything is checked, the target proven to load, and the move returned and not made.
    A second rollback in a row needs ``to``: by default it would go back to what was rolled back from.
    """
    now, last, _ = (pointers(client, name), None, []) if dry_run else _settle(client, name)
    target = _rollback_target(client, name, now) if to is None else to
    if target == now.champion:
        raise RefusedError(f"version {target} of {name} is live already")
    _prove(client, name, target, prove)
    after = replace(_with_champion(now, target), hold=_hold_text(ledger.ROLLED_BACK, by, reason))
    if dry_run:
        return _describe(name, "champion", now, after, ledger.time_of_next(None), by, reason)
    return _move(client, name, "champion", now, after, last, by, reason).move


@explained
def propose(client: MlflowClient, name: str, number: int | None, *, by: str, reason: str) -> Move | None:
    """Let a version wait for approval as ``candidate``; None withdraws the one that waits."""
    now, last, _ = _settle(client, name)
    if now.candidate == number:
        return None
    if number is not None:
        get(client, name, number)
    return _move(client, name, "candidate", now, replace(now, candidate=number), last, by, reason).move


@explained
def hold(client: MlflowClient, name: str, *, by: str, reason: str) -> Move:
    """Let nothing be promoted until the hold is lifted."""
    registry(client).get_registered_model(name)  # raises where it does not exist, before anything is written
    now, last, _ = _settle(client, name)
    return _move(client, name, "hold", now, replace(now, hold=_hold_text("held", by, reason)), last, by, reason).move


@explained
def unhold(client: MlflowClient, name: str, *, by: str, reason: str) -> Move | None:
    """Lift the hold; None where there was none."""
    now, last, _ = _settle(client, name)
    if now.hold is None:
        return None
    return _move(client, name, "hold", now, replace(now, hold=None), last, by, reason).move


def held(client: MlflowClient, name: str) -> str | None:
    """Why and by whom the model is held, or None."""
    return pointers(client, name).hold


@explained
def protected(client: MlflowClient, name: str) -> dict[int, str]:
    """The versions that nothing of ours may delete, with the reason why."""
    now = pointers(client, name)
    kept = {
        int(version.version): f"is kept: {version.tags[KEEP_TAG]}"
        for version in search_versions(client, name)
        if KEEP_TAG in version.tags
    }
    by_alias = {
        now.candidate: "waits for approval",
        now.previous: "was live before the champion",
        now.champion: "is live",
    }
    return _pinned(client, name) | kept | {number: why for number, why in by_alias.items() if number is not None}


def _pinned(client: MlflowClient, name: str) -> dict[int, str]:
    """The versions that stand in a release, as long as that exists."""
    return {
        int(part.partition("@")[2]): f"is part of {release.name} version {release.version}"
        for part, release in _parts(client)
        if part.partition("@")[0] == name
    }


def _parts(client: MlflowClient) -> Iterator[tuple[str, ModelVersion]]:
    """Every part of every release, as ``name@number``, and the release."""
    for name in list_names(client):
        for release in own_versions(client, name):
            for part in parts_of(release):
                yield part, release


@explained
def releases_with(client: MlflowClient, name: str, number: int) -> list[tuple[str, int]]:
    """The releases, by name and number, that have this version as a part."""
    return [(release.name, int(release.version)) for part, release in _parts(client) if part == f"{name}@{number}"]


@explained
def is_part_of_live(client: MlflowClient, name: str) -> bool:
    """Whether a release that is live has a version of this model as a part."""
    releases = (release for part, release in _parts(client) if part.partition("@")[0] == name)
    return any(pointers(client, release.name).champion == int(release.version) for release in releases)


@explained
def keep(client: MlflowClient, name: str, number: int, *, by: str, reason: str) -> None:
    """Protect a version from deletion until its tag ``tandem.keep`` is removed."""
    get(client, name, number)
    registry(client).set_model_version_tag(name, str(number), KEEP_TAG, f"{reason} ({by})")


@explained
def delete_version(client: MlflowClient, name: str, number: int) -> None:
    """Delete a version for good. Raises RefusedError for one that is protected."""
    get(client, name, number)
    if why := protected(client, name).get(number):
        raise RefusedError(f"version {number} of {name} {why}, so it was not deleted")
    registry(client).delete_model_version(name, str(number))


@explained
def drop_dangling(client: MlflowClient, name: str) -> list[What]:
    """Take away the pointers to versions that do not exist, as a damaged database has them; which they were."""
    now = pointers(client, name)
    known = {int(version.version) for version in search_versions(client, name)}
    gone = [what for what in ALIASES if getattr(now, what) in now.aliases - known]
    for what in gone:
        registry(client).delete_registered_model_alias(name, what)
    return gone


@explained
def settle(client: MlflowClient, name: str) -> list[Move]:
    """Make pointers and ledger agree after a crash or a move by hand; returns the moves added or completed.

    A move that was begun is completed where its pointer had already moved, and void otherwise. What the
    ledger does not explain was done by hand: it is written with the time it was found, and a champion that
    went back to an older version is treated as the rollback by a person that it is.
    """
    return _settle(client, name)[2]


def _settle(client: MlflowClient, name: str) -> tuple[Pointers, Entry | None, list[Move]]:
    """Settle; returns the pointers, the last entry of the ledger, which now explains them, and the moves."""
    actual = pointers(client, name)
    begun, last = _newest_entries(client, name)
    moves = []
    for entry in begun:
        if getattr(actual, entry.move.what) == getattr(entry.after, entry.move.what):
            _apply(client, name, actual, entry.before, entry.after)
            ledger.complete(client, entry.run_id)
            last = entry
            moves.append(entry.move)
            actual = pointers(client, name)
        else:
            ledger.void(client, entry.run_id, "the process was gone before the pointer was moved")
    for what in POINTERS:
        known = last.after if last else Pointers()
        if getattr(actual, what) != getattr(known, what):
            after = _after_hand(client, name, what, known, actual)
            reason = f"{what} was changed in MLflow itself"
            last = _move(client, name, what, known, after, last, BY_HAND, reason, actual)
            moves.append(last.move)
            actual = pointers(client, name)
    return actual, last, moves


def _newest_entries(client: MlflowClient, name: str) -> tuple[list[Entry], Entry | None]:
    """The moves that were begun and not finished, oldest first, and the last one that was finished."""
    begun: list[Entry] = []
    for entry in ledger.entries(client, name, page_size=5):
        if entry.finished:
            return begun[::-1], entry
        begun.append(entry)
    return begun[::-1], None


def _after_hand(client: MlflowClient, name: str, what: What, known: Pointers, actual: Pointers) -> Pointers:
    """What all pointers should be after somebody changed one in MLflow itself."""
    if what != "champion" or actual.champion is None:
        return replace(known, **{what: getattr(actual, what)})
    if known.champion not in {version.number for version in list_versions(client, name)}:
        return _with_champion(replace(known, champion=None), actual.champion)
    after = _with_champion(known, actual.champion)
    return replace(after, hold="rolled back in MLflow itself") if actual.champion < known.champion else after


def _with_champion(now: Pointers, number: int) -> Pointers:
    """All pointers after a version goes live: what was live is ``previous``, and no older version waits."""
    previous = now.previous if now.champion is None else now.champion
    waits = now.candidate is not None and now.candidate > number
    return Pointers(
        champion=number,
        candidate=now.candidate if waits else None,
        previous=None if previous == number else previous,
        hold=now.hold,
    )


def _rollback_target(client: MlflowClient, name: str, now: Pointers) -> int:
    lived = (entry.move.before for entry in ledger.entries(client, name) if entry.move.what == "champion")
    left = next(lived, None)
    known = {version.number for version in list_versions(client, name)} - {now.champion}
    if now.champion is not None and left is not None and left > now.champion:
        there = left if left in known else max(known, default=None)
        remedy = (
            f"name the version to go to, as in tandem rollback {name} --to {there}" if there else "there is no other"
        )
        raise RefusedError(f"{name} was moved back from version {left} already: {remedy}")
    for number in chain([now.previous, left], lived):
        if number in known:
            return number
    raise RefusedError(f"{name} has nothing to roll back to: no other version that exists was ever live")


def _prove(client: MlflowClient, name: str, number: int, prove: Prove) -> None:
    manifest = load_manifest(client, name, number)
    try:
        prove(manifest)
    except TandemError:
        raise
    except Exception as error:
        raise RegistryError(f"version {number} of {name} does not load, so no pointer moved: {error}") from error


def _move(
    client: MlflowClient,
    name: str,
    what: What,
    before: Pointers,
    after: Pointers,
    last: Entry | None,
    by: str,
    reason: str,
    actual: Pointers | None = None,
) -> Entry:
    """Write the move, make it, close it. ``actual`` is where the pointers stand where not at ``before``."""
    move = _describe(name, what, before, after, ledger.time_of_next(last), by, reason)
    run_id = ledger.begin(client, move, before, after)
    _apply(client, name, actual or before, before, after)
    ledger.complete(client, run_id)
    return Entry(run_id, True, move, before, after)


def _hold_text(what: str, by: str, reason: str) -> str:
    return f"{what} by {by}: {reason}"[:LONGEST_HOLD]


def _describe(name: str, what: What, before: Pointers, after: Pointers, at: float, by: str, reason: str) -> Move:
    if what == "hold":
        return Move(name, what, int(before.hold is not None), int(after.hold is not None), at, by, reason)
    return Move(name, what, getattr(before, what), getattr(after, what), at, by, reason)


def _apply(client: MlflowClient, name: str, actual: Pointers, before: Pointers, after: Pointers) -> None:
    """Set what a move changes, the champion first, and leave alone what somebody else has changed since."""
    for what in POINTERS:
        old, new = getattr(before, what), getattr(after, what)
        if new == old or getattr(actual, what) != old:
            continue
        if what == "hold":
            if new is None:
                registry(client).delete_registered_model_tag(name, HOLD_TAG)
            else:
                registry(client).set_registered_model_tag(name, HOLD_TAG, new)
        elif new is None:
            registry(client).delete_registered_model_alias(name, what)
        else:
            registry(client).set_registered_model_alias(name, what, str(new))
