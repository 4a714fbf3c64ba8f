"""Checks every live pointer and what it stands on; names the command that mends what it finds."""

from collections.abc import Iterator, Sequence
from dataclasses import dataclass

from tasks.config.settings import Home
from tasks.errors import TandemError
from tasks.index.store import IndexStore
from tasks.proof import prove
from tasks.records import IndexManifest, kind_of
from tasks.registry.connection import MlflowClient, connect
from tasks.registry.ledger import Entry, Pointers, made
from tasks.registry.pointers import ALIASES, pointers
from tasks.registry.runs import running
from tasks.registry.versions import list_names, list_versions, load_manifest

BUILD = "tandem reindex, sft, dpo or release CONF, whichever made it, to build a new version"


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
    moves = made(client, name)
    others = _once_live(client, name, moves, now.champion)
    if moves:
        yield from _compare_with_ledger(name, now, moves[0].after, others)
    for pointer in ALIASES:
        number = getattr(now, pointer)
        if number is not None:
            yield from _examine_version(client, name, pointer, number, others)
    if left := running(client, name):
        yield Finding(
            f"{name}: {len(left)} MLflow runs are RUNNING; unless work is under way their processes are gone",
            f"tandem mend {name}",
        )


def _compare_with_ledger(name: str, now: Pointers, known: Pointers, others: list[int]) -> Iterator[Finding]:
    """What somebody moved or removed in MLflow itself."""
    for pointer in ALIASES:
        actual, written = getattr(now, pointer), getattr(known, pointer)
        word = "live" if pointer == "champion" else pointer
        remedy = f"tandem mend {name}"
        if actual is None and written is not None:
            remedy = _go_live(name, others) if pointer == "champion" else remedy
            gone = "it or its alias was removed in MLflow"
            yield Finding(f"{name}: nothing is {word}; version {written} was, and {gone}", remedy)
        elif actual != written:
            says = f"the ledger says {written or 'none'}: the alias was moved by hand"
            yield Finding(f"{name}: version {actual} is {word}, but {says}", remedy)


def _examine_version(
    client: MlflowClient, name: str, pointer: str, number: int, others: list[int]
) -> Iterator[Finding]:
    try:
        manifest = load_manifest(client, name, number)
        prove(manifest)
        if kind_of(manifest) == "index" and not is_protected(IndexManifest.from_json(manifest)):
            yield Finding(
                f"{name}: the tag {manifest['tag']} that protects version {number} ({pointer}) is gone from the table",
                f"tandem mend {name}",
            )
    except TandemError as error:
        remedies = {
            "champion": _go_live(name, others),
            "previous": _go_back(name, [other for other in others if other != number]),
            "candidate": BUILD,
        }
        yield Finding(f"{name}: version {number} ({pointer}): {error}", remedies[pointer])


def is_protected(manifest: IndexManifest) -> bool:
    """The table still has the version's tag, where it belongs."""
    return IndexStore.open(manifest.uri, manifest.table).tags().get(manifest.tag) == manifest.lance_version


def _once_live(client: MlflowClient, name: str, moves: Sequence[Entry], champion: int | None) -> list[int]:
    """Versions that were live before and still exist, the latest first: each passed the gate in its day."""
    lived = (entry.move.after for entry in moves if entry.move.what == "champion")
    known = {version.number for version in list_versions(client, name)} - {champion}
    return [number for number in dict.fromkeys(lived) if number in known]


def _go_live(name: str, others: list[int]) -> str:
    return f"tandem promote {name} {others[0]}" if others else BUILD


def _go_back(name: str, others: list[int]) -> str:
    if not others:
        return "nothing can be rolled back to until the next version goes live"
    return f"tandem rollback {name} --to {others[0]}, if a rollback is needed"
