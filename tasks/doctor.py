"""Checks pointers, versions, tables, runs and the ledger against one another; names the command that mends."""

from collections.abc import Iterator, Mapping, Sequence
from dataclasses import asdict
from typing import Any

from tasks.adapters import ADAPTER_FILE
from tasks.config.settings import Home
from tasks.errors import RegistryError, StoreError, TandemError
from tasks.index.store import IndexStore, list_foreign_tables, list_tables
from tasks.neglected import examine_copies, examine_deleted, examine_ledger, is_nothing_live
from tasks.proof import prove
from tasks.records import Trouble, kind_of, manifest_fields, number_of
from tasks.registry import ledger
from tasks.registry.connection import MlflowClient, connect
from tasks.registry.ledger import Entry, Pointers, made
from tasks.registry.marks import after_renaming, renamed, was_renamed
from tasks.registry.pointers import ALIASES, pointers, releases_with
from tasks.registry.runs import MODEL_TAG, abandoned, running_with
from tasks.registry.versions import has_file, list_names, list_versions, load_manifest, search_versions, tags_in

BUILD = "tandem reindex, sft, dpo or release CONF, whichever made it, to build a new version"


def examine(home: Home) -> list[Trouble]:
    """Every model that is registered, or of which anything was left; nothing is changed."""
    client = connect(home)
    registered, elsewhere = list_names(client), renamed(client)
    of_tables = (table.rpartition("-")[0] for table in list_tables(home.lancedb))
    left = {*ledger.names(client), *running_with(client, MODEL_TAG).values(), *of_tables} - {*registered, *elsewhere}
    found = {name: _examine(client, name, home) for name in registered}
    found |= {name: _examine_rest(client, name, home) for name in left}
    told = [Trouble(was_renamed(name, now), after_renaming(now)) for name, now in sorted(elsewhere.items())]
    told += [*examine_ledger(client, registered), *examine_copies(client)]
    return [*told, *(trouble for name in sorted(found) for trouble in found[name])]


def left_alone(home: Home) -> list[str]:
    """What lies beside Tandem's own and is neither checked nor removed, as sentences."""
    return [
        f"the table {table} in {home.lancedb} was not written by Tandem: it is left alone"
        for table in list_foreign_tables(home.lancedb)
    ]


def _examine(client: MlflowClient, name: str, home: Home) -> Iterator[Trouble]:
    now = pointers(client, name)
    moves = made(client, name)
    others = _once_live(client, name, moves, now.champion)
    if moves:
        yield from _compare_with_ledger(name, now, moves[0].after, others)
    if now.champion is None and not (moves and moves[0].after.champion) and is_nothing_live(client, name):
        yield _nothing_live(client, name)
    numbers = [version.number for version in list_versions(client, name)]
    every = {int(version.version) for version in search_versions(client, name)}
    for pointer in ALIASES:
        number = getattr(now, pointer)
        if number in numbers:
            yield from _examine_version(client, name, pointer, number, others)
        elif number in every:
            back = _go_live(name, others) if pointer == "champion" else f"move or delete the alias {pointer} in MLflow"
            yield Trouble(f"{name}: version {number} ({pointer}) was not made by Tandem", back)
        elif number is not None:
            then = f"; {_go_live(name, others)}" if pointer == "champion" and others else ""
            yield Trouble(f"{name}: {pointer} points at version {number}, which is gone", f"tandem mend {name}{then}")
    for number in numbers:
        if number not in now.aliases:
            yield from _examine_unpointed(client, name, number)
    yield from _examine_traces_of_work(client, name, home)
    yield from examine_deleted(client, name)


def _examine_rest(client: MlflowClient, name: str, home: Home) -> Iterator[Trouble]:
    """What is left of a model that is not registered."""
    moves = made(client, name)
    if moves and moves[0].after != Pointers():
        known = {what: value for what, value in asdict(moves[0].after).items() if value is not None}
        says = ", ".join(f"{what} {value}" for what, value in known.items())
        yield Trouble(f"{name}: the ledger says {says}, and MLflow has no such model", f"tandem mend {name}")
    yield from _examine_traces_of_work(client, name, home)


def _examine_traces_of_work(client: MlflowClient, name: str, home: Home) -> Iterator[Trouble]:
    """What a process leaves that is killed."""
    if left := abandoned(client, name):
        yield Trouble(
            f"{name}: {len(left)} MLflow runs are RUNNING, and no process on this machine works on them",
            f"tandem mend {name}",
        )
    try:
        for table, tags in stray_tags(client, name, home).items():
            yield Trouble(
                f"{name}: no version goes by {', '.join(tags)}, and the table {table} keeps a state for each",
                f"tandem mend {name}",
            )
    except StoreError as error:
        yield Trouble(f"{name}: {error}", f"move that table out of {home.lancedb}, if it is not for an upgrade to read")


def _examine_unpointed(client: MlflowClient, name: str, number: int) -> Iterator[Trouble]:
    """A version that nothing points at need not answer now, but what it consists of has to be there."""
    try:
        manifest = load_manifest(client, name, number)
        find_parts(client, name, manifest)
        if kind_of(manifest) == "index" and not is_protected(manifest):
            yield Trouble(
                f"{name}: the tag {manifest['tag']} that protects version {number} is gone from the table",
                f"tandem mend {name}",
            )
    except TandemError as error:
        releases = releases_with(client, name, number)
        if any(which in pointers(client, of).aliases for of, which in releases):
            return  # said of that release, with what mends it
        # of no use without it; and as long as they exist, it cannot be removed
        removals = [f"tandem remove {of} {which}" for of, which in [*releases, (name, number)]]
        yield Trouble(f"{name}: version {number} can no longer be used: {error}", "; ".join(removals))


def find_parts(client: MlflowClient, name: str, manifest: Mapping[str, Any]) -> None:
    """Show that what a version consists of is there, without loading it. Raises a TandemError if it is not."""
    kind, known = kind_of(manifest), manifest_fields(manifest)
    if kind == "index":
        IndexStore.open(known["uri"], known["table"]).at(known["lance_version"])
    elif kind == "adapter":
        number = number_of(known["tag"])
        if not has_file(client, name, number, ADAPTER_FILE):
            raise RegistryError(f"the files of {name} version {number} are gone")
    elif kind == "release":
        for part in filter(None, (known[of] for of in ("index", "adapter", "prompt"))):
            of, _, which = part.partition("@")
            find_parts(client, of, load_manifest(client, of, int(which)))


def stray_tags(client: MlflowClient, name: str, home: Home) -> dict[str, list[str]]:
    """By table of this index: the tags that no registered version goes by."""
    stores = {table: IndexStore.open(home.lancedb, table) for table in tables_of(name, home)}
    stray = {table: sorted(store.tags().keys() - tags_in(client, table)) for table, store in stores.items()}
    return {table: tags for table, tags in stray.items() if tags}


def tables_of(name: str, home: Home) -> list[str]:
    """The tables that the nights of this index write to: one for each embedder."""
    return list_tables(home.lancedb, name)


def _compare_with_ledger(name: str, now: Pointers, known: Pointers, others: list[int]) -> Iterator[Trouble]:
    """What somebody moved or removed in MLflow itself."""
    for pointer in ALIASES:
        actual, written = getattr(now, pointer), getattr(known, pointer)
        word = "live" if pointer == "champion" else pointer
        remedy = f"tandem mend {name}"
        if actual is None and written is not None:
            remedy = _go_live(name, others) if pointer == "champion" else remedy
            gone = "it or its alias was removed in MLflow"
            yield Trouble(f"{name}: nothing is {word}; version {written} was, and {gone}", remedy)
        elif actual != written:
            says = f"the ledger says {written or 'none'}: the alias was moved by hand"
            yield Trouble(f"{name}: version {actual} is {word}, but {says}", remedy)
    if now.hold != known.hold:
        yield Trouble(
            f"{name}: MLflow says {now.hold or 'not held'}, the ledger {known.hold or 'not held'}: changed by hand",
            f"tandem mend {name}",
        )


def examine_live(home: Home) -> list[Trouble]:
    """Whether what should be live is there: every model with a live version whose parts open, in little time.

    `examine` proves besides that they answer.
    """
    client = connect(home)
    return [trouble for name in list_names(client) for trouble in _examine_live(client, name)]


def _examine_live(client: MlflowClient, name: str) -> Iterator[Trouble]:
    number = pointers(client, name).champion
    if is_nothing_live(client, name):
        yield _nothing_live(client, name)
    elif number is not None:
        try:
            find_parts(client, name, load_manifest(client, name, number))
        except TandemError as error:
            others = _once_live(client, name, made(client, name), number)
            yield Trouble(_not_fit(name, number, "champion", error), _go_live(name, others))


def _nothing_live(client: MlflowClient, name: str) -> Trouble:
    return Trouble(f"{name}: nothing is live", what_to_promote(client, name))


def what_to_promote(client: MlflowClient, name: str) -> str:
    """The command that puts a version live again where nothing is live; empty where all is well."""
    if not is_nothing_live(client, name):
        return ""
    waits = pointers(client, name).candidate
    return _go_live(name, [waits] if waits else _once_live(client, name, made(client, name), None))


def _examine_version(
    client: MlflowClient, name: str, pointer: str, number: int, others: list[int]
) -> Iterator[Trouble]:
    try:
        manifest = load_manifest(client, name, number)
        prove(manifest)
        if kind_of(manifest) == "index" and not is_protected(manifest):
            yield Trouble(
                f"{name}: the tag {manifest['tag']} that protects version {number} ({pointer}) is gone from the table",
                f"tandem mend {name}",
            )
    except TandemError as error:
        remedies = {
            "champion": _go_live(name, others),
            "previous": _go_back(name, [other for other in others if other != number]),
            "candidate": BUILD,
        }
        yield Trouble(_not_fit(name, number, pointer, error), remedies[pointer])


def _not_fit(name: str, number: int, pointer: str, error: TandemError) -> str:
    return f"{name}: version {number} ({pointer}): {error}"


def is_protected(manifest: Mapping[str, Any]) -> bool:
    """The table still has the tag of this index version, where it belongs."""
    known = manifest_fields(manifest)
    return IndexStore.open(known["uri"], known["table"]).tags().get(known["tag"]) == known["lance_version"]


def _once_live(client: MlflowClient, name: str, moves: Sequence[Entry], champion: int | None) -> list[int]:
    """Versions that were live before and are there whole, the latest first: each passed the gate in its day."""
    lived = (entry.move.after for entry in moves if entry.move.what == "champion")
    known = {version.number for version in list_versions(client, name)} - {champion}
    return [number for number in dict.fromkeys(lived) if number in known and _is_whole(client, name, number)]


def _is_whole(client: MlflowClient, name: str, number: int) -> bool:
    try:
        find_parts(client, name, load_manifest(client, name, number))
    except TandemError:
        return False
    return True


def _go_live(name: str, others: list[int]) -> str:
    return f"tandem promote {name} {others[0]}" if others else BUILD


def _go_back(name: str, others: list[int]) -> str:
    if not others:
        return "nothing can be rolled back to until the next version goes live"
    return f"tandem rollback {name} --to {others[0]}, if a rollback is needed"
