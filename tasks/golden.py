"""Drafts golden queries from what an index holds."""

from pathlib import Path
from typing import NamedTuple

from tasks.config.settings import Home
from tasks.errors import ConfigError
from tasks.evaluation.golden import draft_golden, write_golden
from tasks.index.search import open_store
from tasks.records import IndexManifest
from tasks.registry.connection import connect
from tasks.registry.versions import list_versions, load_manifest


class Drafted(NamedTuple):
    """What drafting reads of a passage."""

    document: str
    title: str
    heading: tuple[str, ...]
    text: str
    tenant: str | None
    start: int


def draft_for_index(name: str, out: Path, count: int, home: Home) -> int:
    """Write known-item queries for the newest version, live or not; returns how many."""
    client = connect(home)
    versions = list_versions(client, name)
    if not versions:
        raise ConfigError(f"there is no version of {name} yet: run `tandem reindex` first, then draft from it")
    manifest = IndexManifest.from_json(load_manifest(client, name, versions[-1].number))
    rows = open_store(manifest).rows(Drafted._fields, where="ordinal >= 0")
    rows = rows.sort_by([("document", "ascending"), ("start", "ascending")])
    queries = draft_golden([Drafted(**row) for row in rows.to_pylist()], count)
    write_golden(out, queries)
    return len(queries)
