"""Deletes old versions: in the registry those that nothing protects, in the table what no version needs."""

from collections.abc import Sequence
from typing import Any

from tasks.config.settings import Home
from tasks.index.store import IndexStore
from tasks.lock import model_lock
from tasks.promote import moving
from tasks.records import kind_of
from tasks.registry.connection import MlflowClient
from tasks.registry.pointers import delete_version, protected
from tasks.registry.versions import list_versions, load_manifest


def collect_versions(name: str, keep: int, dry_run: bool, home: Home) -> dict[str, Any]:
    """Delete all but the newest `keep` versions and the protected ones; says which, and the bytes freed.

    Raises:
        BusyError: a night is under way.
    """
    with model_lock(home.locks, name, 0):  # to the end: nobody may write to a table while it is pruned
        with moving(name, home) as client:
            safe = protected(client, name)
            old = [version.number for version in list_versions(client, name)[:-keep] if version.number not in safe]
            if dry_run:
                return {"deleted": old, "freed_bytes": 0}
            pruned = _tables(client, name, old)
            for number in old:
                delete_version(client, name, number)
            kept = _tables(client, name, [version.number for version in list_versions(client, name)])
        # tables that keep all their versions too: an earlier call may have been killed before it pruned them
        freed = sum(IndexStore.open(home.lancedb, table).collect(kept.get(table, set())) for table in pruned | kept)
    return {"deleted": old, "freed_bytes": freed}


def _tables(client: MlflowClient, name: str, numbers: Sequence[int]) -> dict[str, set[str]]:
    """Table → the tags that these versions have there; none for what MLflow holds whole."""
    tags: dict[str, set[str]] = {}
    for number in numbers:
        manifest = load_manifest(client, name, number)
        if kind_of(manifest) == "index":
            tags.setdefault(manifest["table"], set()).add(manifest["tag"])
    return tags
