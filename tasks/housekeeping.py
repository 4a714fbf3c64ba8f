"""Finds what is kept no longer, of every kind that Tandem leaves on the disk, each with what removes it."""

import shutil
from collections.abc import Callable, Collection, Iterable, Iterator
from contextlib import ExitStack, suppress
from dataclasses import dataclass
from functools import partial
from pathlib import Path

from filelock import FileLock

from tasks.config.maintenance import MaintainConfig
from tasks.config.settings import Home
from tasks.converted import open_converted
from tasks.doctor import tables_of
from tasks.errors import RefusedError, RegistryError, StoreError
from tasks.garbage import remove_versions
from tasks.index.cache import ContentCache
from tasks.index.store import IndexStore, drop_table, list_tables
from tasks.lock import model_lock
from tasks.records import Registered, Removal, kind_of, manifest_fields
from tasks.register import VERDICT_TAG
from tasks.registry.checkpoints import forget_checkpoint, old_checkpoints
from tasks.registry.connection import MlflowClient, connect
from tasks.registry.removal import read_registered, runs_without_version
from tasks.registry.runs import MODEL_TAG, read_tags
from tasks.registry.traces import delete_traces, old_traces
from tasks.registry.versions import list_names, load_manifest
from tasks.retention import DAY, to_remove, why_kept

Act = Callable[[], object]


@dataclass(frozen=True, slots=True)
class Due:
    """Something that is kept no longer, and what removes it; that may raise BusyError."""

    removal: Removal
    act: Act


@dataclass(frozen=True, slots=True)
class Stock:
    """What retention is decided on, read once: a dry run and a real one find the same in it."""

    config: MaintainConfig
    home: Home
    client: MlflowClient
    now: float
    old: tuple[Registered, ...]
    """Versions to remove, releases first."""
    names: frozenset[str]
    """Of everything that is registered."""
    copies: frozenset[str]
    """How the copies of the versions that stay are called."""
    tables: frozenset[str]
    """That this Tandem reads; others in the same place are left alone."""
    named: dict[str, set[int]]
    """By table: the Lance versions that registered versions name."""
    staying: dict[str, set[int]]
    """The same of those that stay, and the latest; tables that go are left out."""
    whole: bool
    """Whether all that the versions need that stay is known."""


def find_due(config: MaintainConfig, home: Home, now: float) -> list[Due]:
    """Everything that is kept no longer at a time, in seconds since the epoch, in the order in which it goes."""
    stock = take_stock(config, home, now)
    kinds = (_versions, _runs, _states, _tables, _checkpoints, _traces, _caches, _copies, _scratch, _locks, _logs)
    return [due for find in kinds for due in find(stock)]


def take_stock(config: MaintainConfig, home: Home, now: float) -> Stock:
    """Decide on every version, and read what those need that stay."""
    client = connect(home)
    versions = read_registered(client)
    kept = why_kept(versions, config.depth, config.days, now)
    named, _ = _states_of(client, versions)
    staying, whole = _states_of(client, [version for version in versions if version.pinned in kept])
    every = list_tables(home.lancedb)
    stores = {table: store for table in every if (store := _open(table, home)) is not None}
    for table, store in stores.items():
        if table in staying or now - store.changed < config.days * DAY:
            staying.setdefault(table, set()).add(store.version)
    return Stock(
        config=config,
        home=home,
        client=client,
        now=now,
        old=tuple(to_remove(versions, kept)),
        names=frozenset(list_names(client)),
        copies=frozenset(f"{version.name}-v{version.number}" for version in versions if version.pinned in kept),
        tables=frozenset(stores),
        named=named,
        staying={table: states for table, states in staying.items() if table in stores},
        whole=whole and len(stores) == len(every),
    )


def _open(table: str, home: Home) -> IndexStore | None:
    with suppress(StoreError):
        return IndexStore.open(home.lancedb, table)
    return None


def _states_of(client: MlflowClient, versions: Collection[Registered]) -> tuple[dict[str, set[int]], bool]:
    """By table, the Lance versions that these versions name; and whether all manifests could be read."""
    found: dict[str, set[int]] = {}
    readable = True
    for version in versions:
        try:
            manifest = load_manifest(client, version.name, version.number)
            if kind_of(manifest) == "index":
                known = manifest_fields(manifest)
                found.setdefault(known["table"], set()).add(known["lance_version"])
        except (RegistryError, StoreError):  # which the check of the registry reports
            readable = False
    return found, readable


def _versions(stock: Stock) -> Iterator[Due]:
    why = f"beyond {stock.config.depth} versions and {stock.config.days:g} days"
    for name in dict.fromkeys(version.name for version in stock.old):
        numbers = [version.number for version in stock.old if version.name == name]
        what = f"{name} {', '.join(map(str, numbers))}"
        yield Due(Removal("versions", what, len(numbers), why), _removing(stock, name, numbers))


def _runs(stock: Stock) -> Iterator[Due]:
    for name in sorted(stock.names):
        if runs := runs_without_version(stock.client, name, VERDICT_TAG):
            removal = Removal("files of runs", name, len(runs), "their version was removed, or never registered")
            yield Due(removal, _removing(stock, name, []))


def _states(stock: Stock) -> Iterator[Due]:
    for name in sorted(stock.names):
        for table in stock.tables.intersection(tables_of(name, stock.home)):
            store = IndexStore.open(stock.home.lancedb, table)
            if states := store.superseded(stock.named.get(table, set())):
                removal = Removal("states of tables", table, len(states), "no version names them")
                yield Due(removal, _removing(stock, name, []))


def _removing(stock: Stock, name: str, numbers: Collection[int]) -> Act:
    return partial(remove_versions, name, numbers, stock.home)


def _tables(stock: Stock) -> Iterator[Due]:
    for table in sorted(stock.tables):
        if stock.whole and table not in stock.staying:
            why = f"no version names it, and nobody wrote to it for {stock.config.days:g} days"
            name, before = table.rpartition("-")[0], stock.now - stock.config.days * DAY
            drop = partial(_drop_unless_written, table, before, stock.home)
            yield Due(Removal("tables", table, 1, why), _locked(stock.home, [name], drop))


def _drop_unless_written(table: str, before: float, home: Home) -> None:
    """A run may have written to it since the stock was taken."""
    if (store := _open(table, home)) is not None and store.changed >= before:
        raise RefusedError(f"the table {table} was written to meanwhile, so it was not removed")
    drop_table(home.lancedb, table)


def _checkpoints(stock: Stock) -> Iterator[Due]:
    why = f"the training ended {stock.config.checkpoint_days:g} days ago, without an adapter"
    for run_id, name in old_checkpoints(stock.client, stock.now - stock.config.checkpoint_days * DAY).items():
        act = _locked(stock.home, [name] if name else [], partial(forget_checkpoint, stock.client, run_id))
        yield Due(Removal("checkpoints", f"{name}, run {run_id}", 1, why), act)


def _traces(stock: Stock) -> Iterator[Due]:
    for experiment, ids in old_traces(stock.client, stock.now - stock.config.trace_days * DAY).items():
        removal = Removal("traces", experiment, len(ids), f"older than {stock.config.trace_days:g} days")
        yield Due(removal, partial(delete_traces, stock.client, experiment, ids))


def _caches(stock: Stock) -> Iterator[Due]:
    if not stock.whole:
        return
    before = stock.now - stock.config.cache_days * DAY
    vectors, texts = _used_keys(stock)
    users = sorted({table.rpartition("-")[0] for table in stock.staying})
    kept = {file: vectors.get(file.stem, set()) for file in sorted((stock.home.cache / "vectors").glob("*.sqlite"))}
    with open_converted(stock.home) as converted:
        kept[converted.path] = texts
    for file, used in kept.items():
        with ContentCache(file) as cache:
            unused = cache.count_unused(used, before)
        if unused:
            kind = "converted texts" if used is texts else "vectors"
            why = f"no version uses them, and they came more than {stock.config.cache_days:g} days ago"
            yield Due(
                Removal(kind, file.name, unused, why), _locked(stock.home, users, partial(_forget, file, used, before))
            )


def _forget(file: Path, used: Collection[str], before: float) -> None:
    with ContentCache(file) as cache:
        cache.forget_unused(used, before)


def _used_keys(stock: Stock) -> tuple[dict[str, set[str]], set[str]]:
    """What the versions that stay, and the latest states of tables, are made of: vectors by embedder, and texts."""
    vectors: dict[str, set[str]] = {}
    texts: set[str] = set()
    for table, states in stock.staying.items():
        store = IndexStore.open(stock.home.lancedb, table)
        of_embedder = vectors.setdefault(table.rpartition("-")[2], set())
        for state in states:
            if store.exists(state):
                rows = store.at(state).rows(["embedding_key", "parsed_key"])
                of_embedder.update(rows["embedding_key"].drop_null().to_pylist())
                texts.update(rows["parsed_key"].drop_null().to_pylist())
    return vectors, texts


def _copies(stock: Stock) -> Iterator[Due]:
    """Of adapters, which endpoints read; and what a killed copying left."""
    for folder in _folders(stock.home.cache / "adapters"):
        if "-v" in folder.name and folder.name not in stock.copies:
            removal = Removal("copies of adapters", folder.name, 1, "the version is not registered, or goes now")
            yield Due(removal, partial(_remove_copy, folder))
        elif "-v" not in folder.name and _is_old(folder, stock):
            yield _left_over(folder, stock, "")


def _remove_copy(folder: Path) -> None:
    with FileLock(lock := folder.with_suffix(".lock"), timeout=60):
        shutil.rmtree(folder)
        lock.unlink()


def _scratch(stock: Stock) -> Iterator[Due]:
    for folder in _folders(stock.home.data / "training"):
        if _is_old(folder, stock):
            yield _left_over(folder, stock, _model_of(folder.name, stock))
    for file in sorted((stock.home.data / "staging").glob("*.arrow")):
        if _is_old(file, stock):
            yield _left_over(file, stock, file.stem.rpartition("-")[0])


def _model_of(run_id: str, stock: Stock) -> str:
    try:
        return read_tags(stock.client, run_id).get(MODEL_TAG, "")
    except RegistryError:
        return ""  # the run was deleted


def _left_over(path: Path, stock: Stock, model: str) -> Due:
    why = f"left by a run that was killed, {stock.config.scratch_days:g} days ago or more"
    where = str(path.relative_to(stock.home.root))
    act: Act = partial(shutil.rmtree, path) if path.is_dir() else path.unlink
    return Due(Removal("scratch", where, 1, why), _locked(stock.home, [model] if model else [], act))


def _locks(stock: Stock) -> Iterator[Due]:
    for holder in sorted(stock.home.locks.glob("*.holder")):
        if holder.name.partition(".")[0] not in stock.names and _is_old(holder, stock):
            removal = Removal("locks", holder.stem, 1, "nothing of that name is registered")
            yield Due(removal, partial(_remove_lock, holder))


def _remove_lock(holder: Path) -> None:
    with FileLock(lock := holder.with_suffix(".lock"), timeout=60):  # who waits for it sees that the file is gone
        holder.unlink()
        lock.unlink()


def _logs(stock: Stock) -> Iterator[Due]:
    most = int(stock.config.log_mb * 1_000_000)
    for log in sorted((stock.home.data / "logs").glob("*.log")):
        if (size := log.stat().st_size) > most:
            removal = Removal("bytes of logs", log.name, size - most // 2, f"larger than {stock.config.log_mb:g} MB")
            yield Due(removal, partial(_shorten, log, most // 2))


def _shorten(log: Path, keep: int) -> None:
    """In place: its process appends to the file that it has open."""
    with log.open("r+b") as file:
        file.seek(-keep, 2)
        end = file.read()
        file.seek(0)
        file.write(end)
        file.truncate()


def _locked(home: Home, names: Iterable[str], act: Act) -> Act:
    """While no run works on any of these models."""

    def call() -> None:
        with ExitStack() as stack:
            for name in names:
                stack.enter_context(model_lock(home.locks, name, 0))
            act()

    return call


def _folders(folder: Path) -> list[Path]:
    return sorted(each for each in folder.iterdir() if each.is_dir()) if folder.is_dir() else []


def _is_old(path: Path, stock: Stock) -> bool:
    newest = max(file.stat().st_mtime for file in (path, *path.rglob("*")))
    return stock.now - newest > stock.config.scratch_days * DAY


def space(home: Home) -> dict[str, int]:
    """Bytes on the disk, by what takes them."""
    places = {
        "tables of indices": home.lancedb,
        "files of runs and versions": home.mlruns / "artifacts",
        "vectors": home.cache / "vectors",
        "copies of adapters": home.cache / "adapters",
        "training": home.data / "training",
        "logs": home.data / "logs",
        "Prefect database": home.data / "prefect",
    }
    files = {"MLflow database": (home.mlruns, "mlflow.db*"), "converted texts": (home.cache, "documents.sqlite*")}
    sizes = {kind: _size(folder.rglob("*")) for kind, folder in places.items()}
    return sizes | {kind: _size(folder.glob(pattern)) for kind, (folder, pattern) in files.items()}


def _size(files: Iterator[Path]) -> int:
    found = 0
    for file in files:
        with suppress(FileNotFoundError):  # others write and delete meanwhile
            found += file.stat().st_size if file.is_file() else 0
    return found
