"""Opens registered index versions for whoever asks: the command, the pyfunc in MLflow, the gate's proof.

Knows nothing of Prefect, so that a model loaded from MLflow starts quickly.
"""

import functools
from collections.abc import Callable, Mapping
from contextlib import suppress
from dataclasses import asdict, replace
from typing import Any

from tasks.config import stored
from tasks.config.settings import Home, find_home
from tasks.errors import ConfigError, RegistryError, StoreError, TandemError
from tasks.index.embedding import Embedder, load_embedder
from tasks.index.search import Filters, IndexReader, LiveIndex, open_version
from tasks.records import IndexManifest, Passage, kind_of

ENTRY_POINT = "tasks.serving:answering"


def live_index(name: str, home: Home) -> LiveIndex:
    """The index as it is live at each query: a moved alias is followed at the next one.

    The version that was live before is opened as well, so that a rollback costs no more than a query.
    """
    from tasks.registry.connection import connect
    from tasks.registry.pointers import pointers
    from tasks.registry.versions import load_manifest, resolve_champion

    client = connect(home)

    @functools.lru_cache(maxsize=64)
    def manifest_of(number: int) -> IndexManifest:
        return IndexManifest.from_json(load_manifest(client, name, number))

    def resolve() -> IndexManifest:
        version = resolve_champion(client, name)
        if version is None:
            raise RegistryError(f"no version of {name} is live: run `tandem reindex`, or `tandem promote {name} N`")
        return manifest_of(version.number)

    live = LiveIndex(resolve, embedder_of)
    if previous := pointers(client, name).previous:
        with suppress(TandemError):  # what no longer opens cannot be rolled back to; the champion can still answer
            live.reader(manifest_of(previous))
    return live


def reader_of(name: str, which: int | str, home: Home) -> IndexReader:
    """One registered version, by number or alias."""
    from tasks.registry.connection import connect
    from tasks.registry.versions import load_manifest

    manifest = load_manifest(connect(home), name, which)
    if (kind := kind_of(manifest)) != "index":
        raise RegistryError(f"{name} is no index: it is registered as {kind}")
    return open_manifest(manifest)


def open_manifest(manifest: Mapping[str, Any]) -> IndexReader:
    opened = IndexManifest.from_json(manifest)
    return open_version(opened, embedder_of(opened))


def embedder_of(manifest: IndexManifest) -> Embedder:
    """The embedder a version was made with. Raises `StoreError` where it now makes other vectors."""
    embedder = _embedder(stored.embedder_of(manifest), find_home())
    if embedder.fingerprint != manifest.embedder_fingerprint:
        raise StoreError(
            f"{manifest.index} {manifest.tag} was embedded with {manifest.embedder_fingerprint}, and "
            f"{embedder.label} here is {embedder.fingerprint}: their vectors do not fit; install the versions that "
            "made it, or build a new version"
        )
    return embedder


_embedder = functools.lru_cache(maxsize=4)(load_embedder)


def prove(manifest: Mapping[str, Any]) -> None:
    """Show that a version loads, is whole and answers. Raises `StoreError` if not."""
    reader = open_manifest(manifest)
    problems = reader.store.check()
    if problems:
        raise StoreError(f"{manifest['index']} {manifest['tag']} is not fit to go live: {'; '.join(problems)}")
    if not reader.search([manifest["index"]], k=1, mode="vector")[0]:
        raise StoreError(f"{manifest['index']} {manifest['tag']} answers nothing")


def answering(manifest: Mapping[str, Any]) -> Callable[..., list[list[dict[str, Any]]]]:
    """The entry point of the MLflow model: strings in, for each a list of passages out."""
    reader = open_manifest(manifest)

    def answer(
        queries: list[str], k: int = 10, mode: str | None = None, tenant: str | None = None
    ) -> list[list[dict[str, Any]]]:
        if mode not in (None, "vector", "text", "hybrid"):
            raise ConfigError(f"mode is {mode}; it must be vector, text or hybrid")
        found = reader.search(queries, k=k, mode=mode, filters=Filters(tenant=tenant))  # type: ignore[arg-type]
        return [[passage_as_json(passage) for passage in passages] for passages in found]

    return answer


def passage_as_json(passage: Passage) -> dict[str, Any]:
    return asdict(replace(passage, heading=list(passage.heading), tags=list(passage.tags)))  # type: ignore[arg-type]
