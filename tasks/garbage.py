"""Removes versions: from the registry first, so that nothing can point at them, and then their files.

A removal that is killed half way leaves files that no version names; the next one finds and removes them. A file in a
table that lost its last reference by that has to be seven days old first.
"""

from collections.abc import Collection
from datetime import UTC, datetime
from typing import Any

from tasks.config.settings import Home
from tasks.doctor import tables_of
from tasks.errors import RefusedError
from tasks.index.store import IndexStore
from tasks.lock import model_lock
from tasks.mend import protect_versions
from tasks.promote import moving
from tasks.register import REPORT_FILE, VERDICT_TAG
from tasks.registry.connection import MlflowClient, connect
from tasks.registry.pointers import delete_version, held, protected
from tasks.registry.removal import empty_run, runs_without_version
from tasks.registry.versions import get, list_versions, tags_in


def collect_versions(name: str, keep: int, dry_run: bool, home: Home) -> dict[str, Any]:
    """Delete all but the newest `keep` versions and the protected ones; says which, and the bytes freed in tables.

    Raises:
        BusyError: a night is under way.
    """
    with model_lock(home.locks, name, 0):  # to the end: nobody may write to a table while it is pruned
        with moving(name, home) as client:
            safe = protected(client, name)
            old = [version.number for version in list_versions(client, name)[:-keep] if version.number not in safe]
        freed = 0 if dry_run else _remove(name, old, home)
    return {"deleted": old, "freed_bytes": freed}


def remove_version(name: str, number: int, home: Home) -> int:
    """Delete one version with its files; the bytes freed in tables.

    Raises:
        RefusedError: it is live, previous, waiting, kept or part of a release.
        BusyError: a night is under way.
    """
    with model_lock(home.locks, name, 0):
        client = connect(home)
        get(client, name, number)
        if why := protected(client, name).get(number):
            raise RefusedError(f"version {number} of {name} {why}, so it was not removed")
        return _remove(name, [number], home)


def remove_versions(name: str, numbers: Collection[int], home: Home) -> None:
    """Delete versions, and the files that no version needs, those that an earlier call left behind among them.

    Raises:
        RefusedError: one of them was put live, or into a release, or the model was held, meanwhile.
        BusyError: a night is under way.
    """
    with model_lock(home.locks, name, 0):
        _remove(name, numbers, home, unless_held=True)


def _remove(name: str, numbers: Collection[int], home: Home, unless_held: bool = False) -> int:
    """The caller holds the model's lock."""
    with moving(name, home) as client:
        if unless_held and numbers and (why := held(client, name)):
            raise RefusedError(f"{name} is held, so no version of it was removed: {why}")
        for number in numbers:
            delete_version(client, name, number)
        list(protect_versions(client, name))
    today = datetime.now(UTC).date().isoformat()
    for run_id in runs_without_version(client, name, VERDICT_TAG):
        empty_run(client, run_id, REPORT_FILE, f"its version was removed on {today}")
    return sum(_prune(client, table, home) for table in tables_of(name, home))


def _prune(client: MlflowClient, table: str, home: Home) -> int:
    store = IndexStore.open(home.lancedb, table)
    return store.collect(store.tags().keys() & tags_in(client, table))
