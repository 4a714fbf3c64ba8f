"""Finds out what the night has to do, from the listings and from the table itself."""

import hashlib
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

from tasks.config.index import ReindexConfig
from tasks.config.settings import Home, find_path
from tasks.documents.changes import Changes, Recipe, find_changes, recipe_of, short_hash, source_of
from tasks.errors import ConfigError, SourceError
from tasks.evaluation.golden import check_known, load_golden
from tasks.index.embedding import embedder_fingerprint
from tasks.index.store import IndexStore, has_table
from tasks.records import DocumentState, Listing
from tasks.registry.marks import STATE_TAG

NOT_OF_THE_CONTENT: Any = {
    "promote": True,
    "lock_minutes": True,
    "parsing": {"workers"},
    "sources": {"__all__": {"token_env"}},
}
"""Settings that change nothing of what is indexed."""
GOLDEN_TAG = "tandem.golden"


@dataclass(frozen=True, slots=True)
class Work:
    """What there is to do, and what was there before."""

    table: str
    embedder: str
    """Fingerprint of the embedder."""
    states: dict[str, DocumentState]
    changes: Changes
    recipes: dict[str, Recipe]
    """By source."""
    fingerprint: str
    """Hash over all that decides what a version holds and how it is judged; the documents aside."""
    golden: str
    """Hash over the golden file; empty where there is none."""
    registered: bool
    """The newest registered version is exactly the table as it stands, judged by the same rules."""
    notes: tuple[str, ...] = ()
    """What people should know of the sources."""

    @property
    def nothing_to_do(self) -> bool:
        return self.registered and self.changes.nothing


def compare(
    config: ReindexConfig,
    listings: Sequence[Listing],
    failures: Mapping[str, str],
    allow_deletions: bool,
    newest: Mapping[str, str],
    home: Home,
) -> Work:
    """Compare sources, table and the newest registered version, whose tags are `newest`.

    Raises:
        SourceError: a source failed that was never indexed, so there is nothing to keep of it.
        ConfigError: the golden file is not there or malformed, or it was edited and names an unknown document.
    """
    embedder = embedder_fingerprint(config.embedder, home)
    table = f"{config.name}-{embedder}"
    states, version = _read(table, home)
    known = {source_of(document) for document in states}
    if unknown := [reason for name, reason in failures.items() if name not in known]:
        raise SourceError("\n".join(unknown))
    recipes = {source.name: recipe_of(source, config.chunking, config.parsing) for source in config.sources}
    golden = _golden_hash(config)
    if config.golden and newest.get(GOLDEN_TAG) != golden:
        listed = {file.document for listing in listings for file in listing.files}
        check_known(load_golden(config.golden), listed | states.keys(), config.golden)
    fingerprint = short_hash(
        [
            config.model_dump(mode="json", exclude=NOT_OF_THE_CONTENT),
            {name: recipe.good for name, recipe in recipes.items()},
            embedder,
            golden,
        ]
    )
    return Work(
        table=table,
        embedder=embedder,
        states=states,
        changes=find_changes(listings, failures, states, recipes, config.max_deleted_share, allow_deletions),
        recipes=recipes,
        fingerprint=fingerprint,
        golden=golden,
        registered=newest.get(STATE_TAG) == state_of(table, version, fingerprint),
        notes=tuple(note for listing in listings for note in listing.notes),
    )


def state_of(table: str, lance_version: int, fingerprint: str) -> str:
    """Equal for two nights exactly when nothing that matters lies between them."""
    return f"{table}@{lance_version}:{fingerprint}"


def _read(table: str, home: Home) -> tuple[dict[str, DocumentState], int]:
    if not has_table(home.lancedb, table):
        return {}, 0
    store = IndexStore.open(home.lancedb, table)
    return store.documents(), store.version


def _golden_hash(config: ReindexConfig) -> str:
    if not config.golden:
        return ""
    try:
        return hashlib.sha256(find_path(config.golden).read_bytes()).hexdigest()[:16]
    except OSError as error:
        raise ConfigError(
            f"the golden file {find_path(config.golden).absolute()} cannot be read ({error.strerror}): correct "
            "`golden` in the configuration, or draft one with `tandem golden draft`"
        ) from None
