"""Checks every live pointer and what it stands on; names the command that mends what it finds."""

from collections.abc import Iterator
from dataclasses import dataclass

from tasks.config.settings import Home
from tasks.errors import TandemError
from tasks.index.store import IndexStore
from tasks.records import IndexManifest
from tasks.registry import ledger
from tasks.registry.connection import MlflowClient, connect
from tasks.registry.pointers import pointers
from tasks.registry.runs import running
from tasks.registry.versions import list_names, list_versions, load_manifest
from tasks.serving import prove


@dataclass(frozen=True, slots=True)
class Finding:
    """Something that is wrong, and what mends it."""

    what: str
    remedy: str


def examine(home: Home) -> list[Finding]:
    """Every registered model of this installation; nothing is changed."""
    client = connect(home)
    return [finding for name in list_names(client) for finding in _examine(client, name)]


def _examine(client: MlflowClient, name: str) -> Iterator[Finding]:
    now = pointers(client, name)
    numbers = [version.number for version in list_versions(client, name)]
    last = next((move for move in reversed(ledger.history(client, name)) if move.what == "champion"), None)
    if now.champion is None and last and last.after is not None:
        yield Finding(
            f"{name}: nothing is live; version {last.after} was, and it or its alias was removed in MLflow",
            _promote_another(name, numbers, last.after),
        )
    elif last and last.after != now.champion:
        yield Finding(
            f"{name}: version {now.champion} is live, but the ledger says {last.after}: the alias was moved by hand",
            f"tandem mend {name}",
        )
    for pointer, number in (("champion", now.champion), ("previous", now.previous)):
        if number is not None:
            yield from _examine_version(client, name, pointer, number, numbers)
    if left := running(client, name):
        yield Finding(
            f"{name}: {len(left)} MLflow runs are RUNNING; unless a night is under way their processes are gone",
            f"tandem mend {name}",
        )


def _examine_version(
    client: MlflowClient, name: str, pointer: str, number: int, numbers: list[int]
) -> Iterator[Finding]:
    try:
        manifest = load_manifest(client, name, number)
        prove(manifest)
        if not is_protected(IndexManifest(**manifest)):
            yield Finding(
                f"{name}: the tag {manifest['tag']} that protects version {number} ({pointer}) is gone from the table",
                f"tandem mend {name}",
            )
    except TandemError as error:
        yield Finding(f"{name}: version {number} ({pointer}): {error}", _promote_another(name, numbers, number))


def is_protected(manifest: IndexManifest) -> bool:
    """The table still has the version's tag, where it belongs."""
    return IndexStore.open(manifest.uri, manifest.table).tags().get(manifest.tag) == manifest.lance_version


def _promote_another(name: str, numbers: list[int], broken: int) -> str:
    others = [number for number in numbers if number != broken]
    return f"tandem promote {name} {others[-1]}" if others else "tandem reindex CONF, to build a new version"
