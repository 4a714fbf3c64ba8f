"""Deletes old versions: in the registry those that nothing protects, in the table what no version needs."""

from typing import Any

from tasks.config.settings import Home
from tasks.index.store import IndexStore
from tasks.lock import model_lock
from tasks.promote import moving
from tasks.registry.pointers import delete_version, protected
from tasks.registry.versions import list_versions, load_manifest


def collect_versions(name: str, keep: int, dry_run: bool, home: Home) -> dict[str, Any]:
    """Delete all but the newest `keep` versions and the protected ones; says which, and the bytes freed.

    Raises:
        BusyError: a night is under way.
    """
    with model_lock(home.locks, name, 0), moving(name, home) as client:
        safe = protected(client, name)
        old = [version for version in list_versions(client, name)[:-keep] if version.number not in safe]
        tables = {load_manifest(client, name, version.number)["table"] for version in old}
        if dry_run:
            return {"deleted": [version.number for version in old], "freed_bytes": 0}
        for version in old:
            delete_version(client, name, version.number)
        kept = [load_manifest(client, name, version.number) for version in list_versions(client, name)]
    freed = 0
    for table in tables:
        tags = {manifest["tag"] for manifest in kept if manifest["table"] == table}
        freed += IndexStore.open(home.lancedb, table).collect(tags)
    return {"deleted": [version.number for version in old], "freed_bytes": freed}
