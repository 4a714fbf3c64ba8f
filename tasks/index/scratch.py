"""A small copy of an index with planted passages, to try attacks on: the live table is only read."""

import tempfile
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from typing import Any, Protocol

import pyarrow as pa

from tasks.index.search import Filters, IndexReader
from tasks.index.store import IndexStore, chunk_schema, quote


class Planted(Protocol):
    """What is planted; `tasks.evaluation.attacks.Planted` fits."""

    @property
    def document(self) -> str: ...
    @property
    def text(self) -> str: ...
    @property
    def tenant(self) -> str | None: ...


@contextmanager
def plant(
    reader: IndexReader, asked: Sequence[tuple[str, str | None]], planted: Sequence[Planted], depth: int
) -> Iterator[IndexReader]:
    """A reader of a temporary table with the planted passages, and the `depth` best for each (question, tenant)."""
    with tempfile.TemporaryDirectory(prefix="tandem-scratch-") as folder:
        store = IndexStore.open_or_create(folder, "scratch", reader.store.dimension)
        schema = store.table.schema
        copied = _rows_for(reader, asked, depth).select(schema.names).cast(schema)
        store.replace((), [*copied.to_batches(), _planted_rows(reader, planted)])
        store.maintain(reader.config)
        yield IndexReader(store, reader.embedder, reader.config)


def _rows_for(reader: IndexReader, asked: Sequence[tuple[str, str | None]], depth: int) -> pa.Table:
    found: dict[str, None] = {}
    for tenant in dict.fromkeys(tenant for _, tenant in asked):
        questions = list(dict.fromkeys(question for question, of in asked if of == tenant))
        for passages in reader.search(questions, k=depth, filters=Filters(tenant=tenant)):
            found |= dict.fromkeys(passage.id for passage in passages)
    return reader.store.rows(where=f"id IN ({', '.join(map(quote, found)) or quote('')})")


def _planted_rows(reader: IndexReader, planted: Sequence[Planted]) -> pa.RecordBatch:
    vectors: Any = reader.embedder.embed_passages([each.text for each in planted])
    rows: list[dict[str, Any]] = [
        {
            "id": f"{each.document}#0",
            "document": each.document,
            "ordinal": 0,
            "text": each.text,
            "heading": [],
            "start": 0,
            "end": len(each.text),
            "source": "guardrails",
            "path": each.document,
            "tenant": each.tenant,
            "tags": [],
            "revision": "",
            "recipe": "",
            "parsed_key": "",
            "embedding_key": "",
            "stale": False,
            "vector": vector,
        }
        for each, vector in zip(planted, vectors, strict=True)
    ]
    return pa.RecordBatch.from_pylist(rows, schema=chunk_schema(reader.store.dimension))
