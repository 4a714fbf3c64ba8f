"""Writes what was prepared into the table, in one commit."""

from collections.abc import Iterator
from pathlib import Path

import pyarrow as pa
from prefect import task

from tasks.compare import Work
from tasks.config.settings import find_home
from tasks.documents.changes import source_of
from tasks.index.store import IndexStore
from tasks.records import Prepared


@task(name="write", task_run_name="write {work.table}")
def write(work: Work, prepared: Prepared) -> None:
    """Replace what changed, take out what is gone, and mark as stale what could not be read again."""
    store = IndexStore.open_or_create(find_home().lancedb, work.table, prepared.dimension)
    rewritten = [document for document in prepared.rewritten if document in work.states]
    gone = sorted({*work.changes.gone, *rewritten})
    if gone or prepared.rows:
        store.replace(gone, _staged(prepared.staged))
    for problem in prepared.stale:
        recipe = work.recipes[source_of(problem.document)].failed
        store.mark_stale(problem.document, problem.revision, recipe, problem.reason)
    Path(prepared.staged).unlink()


def _staged(path: str) -> Iterator[pa.RecordBatch]:
    with pa.memory_map(path) as file, pa.ipc.open_stream(file) as reader:
        yield from reader
