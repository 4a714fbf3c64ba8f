"""Brings the indices of the table up to date and looks for anything that speaks against the result."""

from dataclasses import dataclass

from prefect import task

from tasks.config.index import ReindexConfig
from tasks.config.settings import find_home
from tasks.documents.changes import corpus_hash
from tasks.index.store import IndexHealth, IndexStore
from tasks.records import Problem


@dataclass(frozen=True, slots=True)
class Maintained:
    """The state of the table that becomes the version."""

    health: IndexHealth
    problems: tuple[str, ...]
    """What speaks against the index itself, as sentences."""
    documents: frozenset[str]
    quarantined: tuple[Problem, ...]
    """Every file that gives no passages, or stale ones, tonight's and earlier."""
    stale: int
    corpus: str


@task(name="maintain", task_run_name="maintain {table}")
def maintain(config: ReindexConfig, table: str) -> Maintained:
    """Full-text, scalar and vector indices; what the table holds now; and what is wrong with it."""
    store = IndexStore.open(find_home().lancedb, table)
    health = store.maintain(config.search)
    states = store.documents()
    return Maintained(
        health=health,
        problems=tuple(store.check()),
        documents=frozenset(states),
        quarantined=tuple(
            Problem(state.document, state.reason, state.revision) for state in states.values() if state.reason
        ),
        stale=sum(state.stale for state in states.values()),
        corpus=corpus_hash(states.values()),
    )
