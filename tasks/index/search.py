"""Answering queries from one version of an index: by vectors, by full text, or by both.

Hybrid search adds the two scores of a passage, each divided by its range among the candidates (theoretical
min-max: the lowest possible cosine is -1, the lowest BM25 score 0): Bruch, Gai and Ingber, "An Analysis of
Fusion Functions for Hybrid Retrieval", 2022, arXiv 2210.11934. Unlike ranks, scores say how much better one
passage is than the next.

Results do not depend on the order of the rows in the table: equal scores are ordered by id.
"""

import asyncio
import os
from collections import OrderedDict
from collections.abc import Callable, Coroutine, Sequence
from dataclasses import dataclass, replace
from datetime import date
from functools import cache
from itertools import repeat
from threading import Lock, Thread
from typing import TYPE_CHECKING, Any, Literal, TypeVar

import lancedb
import numpy as np
import numpy.typing as npt
import pyarrow as pa

from tasks.config.index import SearchConfig
from tasks.errors import StoreError
from tasks.index.store import IndexStore, explained, match_words, quote
from tasks.records import IndexManifest, Passage

if TYPE_CHECKING:
    from tasks.index.embedding import Embedder

T = TypeVar("T")
Mode = Literal["vector", "text", "hybrid"]
Vectors = npt.NDArray[np.float32]

_PASSAGE_COLUMNS = [
    "id",
    "document",
    "text",
    "title",
    "heading",
    "start",
    "end",
    "tenant",
    "language",
    "date",
    "tags",
    "stale",
    "parsed_key",
]
_PROBES = 20
_REFINE = 2
_OPEN_VERSIONS = 4
_TIE_MARGIN = 4


@dataclass(frozen=True, slots=True)
class Filters:
    """Which passages may be found; applied before the search, so that k come back where k exist."""

    tenant: str | None = None
    language: str | None = None
    source: str | None = None
    tags: tuple[str, ...] = ()
    """Any of them."""
    date_from: date | None = None
    date_to: date | None = None
    """Inclusive. A passage without a date is outside every range of dates."""
    document_prefix: str = ""

    def predicate(self) -> str | None:
        """The condition in SQL; None where nothing is filtered."""
        wanted = [
            f"{column} = {quote(value)}"
            for column, value in (
                ("tenant", self.tenant),
                ("language", self.language),
                ("source", self.source),
            )
            if value is not None
        ]
        if self.tags:
            wanted.append(f"array_has_any(tags, make_array({', '.join(map(quote, self.tags))}))")
        if self.date_from:
            wanted.append(f"date >= date '{self.date_from.isoformat()}'")
        if self.date_to:
            wanted.append(f"date <= date '{self.date_to.isoformat()}'")
        if self.document_prefix:
            wanted.append(f"starts_with(document, {quote(self.document_prefix)})")
        return " AND ".join(wanted) or None


@dataclass(frozen=True, slots=True)
class _Hit:
    """A candidate: its row in the table, and a cosine similarity, a BM25 score, or both fused."""

    row: int
    score: float
    vector: Any = None
    """The stored vector, of shape (dimension,), where fusion may need it."""


@dataclass(frozen=True, slots=True)
class _Plan:
    """What is asked of every query of one search."""

    mode: Mode
    depth: int
    """Passages that are to come back."""
    limit: int
    """Candidates of each retriever."""
    where: str | None


@dataclass(frozen=True, slots=True)
class _ExactSearch:
    """All vectors of a version that is small enough to be searched exactly; Lance would read them at every query."""

    rows: npt.NDArray[np.uint64]
    vectors: Vectors
    """Of shape (rows, dimension)."""

    def nearest(self, vector: Vectors, limit: int, among: npt.NDArray[np.uint64] | None) -> list[_Hit]:
        """The `limit` best, best first, and all that equal the last of them; only `among` these rows, if given."""
        rows, vectors = self.rows, self.vectors
        if among is not None:
            chosen = np.isin(rows, among)
            rows, vectors = rows[chosen], vectors[chosen]
        # Not BLAS, whose rounding may depend on the other rows.
        cosines = np.einsum("ij,j->i", vectors, vector)
        if len(cosines) > limit:
            best = cosines >= np.partition(cosines, -limit)[-limit]
            rows, cosines = rows[best], cosines[best]
        order = np.argsort(-cosines, kind="stable")
        return list(map(_Hit, rows[order].tolist(), cosines[order].tolist()))


class IndexReader:
    """One open version of an index. Safe to use from several threads."""

    def __init__(self, store: IndexStore, embedder: "Embedder", search: SearchConfig) -> None:
        self.store = store
        self.embedder = embedder
        self.config = search
        self._table: Any = _run(_open(store), f"open {store.name}")
        self._exact = None if store.has_vector_index else _run(_read_vectors(self._table), f"read {store.name}")

    def warm(self) -> None:
        """Read the indices into memory, so that the first query is as fast as the next."""
        _run(_warm(self._table), f"read the indices of {self.store.name}")

    def search(
        self,
        queries: Sequence[str],
        k: int = 10,
        mode: Mode | None = None,
        filters: Filters | None = None,
        vectors: Vectors | None = None,
    ) -> list[list[Passage]]:
        """At most k passages for each query, best first.

        `vectors`, of shape (queries, dimension), normalised, saves embedding the queries. `mode` is by
        default the one the version was scored with.
        """
        if not queries:
            return []
        mode = mode or self.config.mode
        if mode == "text":
            vectors = None
        elif vectors is None:
            vectors = self.embedder.embed_queries(list(queries))
        where = filters.predicate() if filters else None
        depth = max(k, self.config.rerank_depth) if self.config.reranker else k
        plan = _Plan(mode, depth, max(depth, self.config.candidates), where)
        results = _run(self._answer_all(queries, vectors, plan), f"search {self.store.name}")
        if self.config.reranker:
            model = self.config.reranker
            results = [_rerank(query, found, model) for query, found in zip(queries, results, strict=True)]
        return [found[:k] for found in results]

    async def _answer_all(self, queries: Sequence[str], vectors: Vectors | None, plan: _Plan) -> list[list[Passage]]:
        turns = asyncio.Semaphore(2 * (os.cpu_count() or 1))  # so that many queries do not all hold their rows

        async def answer(query: str, vector: Vectors | None) -> list[Passage]:
            async with turns:
                return await self._passages(await self._retrieve(query, vector, plan), plan.depth)

        each = repeat(None) if vectors is None else vectors
        return await asyncio.gather(*map(answer, queries, each))

    async def _retrieve(self, query: str, vector: Vectors | None, plan: _Plan) -> list[_Hit]:
        """The candidates, best first."""
        if vector is None:
            return await self._by_text(query, plan)
        if plan.mode == "vector":
            return await self._by_vector(vector, plan)
        close, text = await asyncio.gather(self._by_vector(vector, plan), self._by_text(query, plan))
        return self._fuse(vector, close, text)

    async def _by_text(self, query: str, plan: _Plan) -> list[_Hit]:
        # Fast search leaves rows out that are in no index; `IndexStore.check` has seen that there are none.
        search = self._table.query().nearest_to_text(match_words(query)).fast_search()
        return await _best(search, "_score", plan, with_vectors=plan.mode == "hybrid")

    async def _by_vector(self, vector: Vectors, plan: _Plan) -> list[_Hit]:
        if self._exact:
            among = await _rows(self._table.query().where(plan.where)) if plan.where else None
            return await asyncio.to_thread(self._exact.nearest, vector, plan.limit, among)
        search = self._table.query().nearest_to(vector).distance_type("cosine")
        # Where a filter leaves too few in the nearest partitions, all others are searched too.
        search = search.minimum_nprobes(_PROBES).maximum_nprobes(0).refine_factor(_REFINE).fast_search()
        return await _best(search, "_distance", plan)

    def _fuse(self, vector: Vectors, close: list[_Hit], text: list[_Hit]) -> list[_Hit]:
        cosines = {hit.row: hit.score for hit in close}
        # Passages that only full text found get their exact similarity.
        cosines |= {hit.row: _cosine(hit.vector, vector) for hit in text if hit.row not in cosines}
        matches = {hit.row: hit.score for hit in text}
        near = self.config.vector_weight / (1 + max(cosines.values(), default=0.0))
        match = (1 - self.config.vector_weight) / max(matches.values(), default=1.0)
        fused = (_Hit(row, near * (1 + cosine) + match * matches.get(row, 0.0)) for row, cosine in cosines.items())
        return sorted(fused, key=_score, reverse=True)

    async def _passages(self, hits: list[_Hit], depth: int) -> list[Passage]:
        """The `depth` best, equal scores ordered by id."""
        best = {hit.row: hit.score for hit in hits if hit.score >= hits[:depth][-1].score}
        if not best:
            return []
        table = await self._table.take_row_ids(list(best)).select([*_PASSAGE_COLUMNS, "_rowid"]).to_arrow()
        found = [_passage(row, best[row.pop("_rowid")]) for row in table.to_pylist()]
        return sorted(found, key=_rank)[:depth]


def open_version(manifest: IndexManifest, embedder: "Embedder") -> IndexReader:
    """Open a registered version to answer as it was scored; StoreError if it is gone."""
    if embedder.fingerprint != manifest.embedder_fingerprint:
        raise StoreError(
            f"version {manifest.tag} of {manifest.index} was embedded by another embedder "
            f"({manifest.embedder_fingerprint}) than the one given ({embedder.fingerprint})"
        )
    return IndexReader(open_store(manifest), embedder, SearchConfig.model_validate(manifest.search))


def open_store(manifest: IndexManifest) -> IndexStore:
    """The rows of a registered version, read-only; StoreError if it is gone."""
    return IndexStore.open(manifest.uri, manifest.table).at(manifest.lance_version)


class LiveIndex:
    """The version that is live right now: resolved at every query, so that a moved alias is followed at once.

    Opened versions are kept, so that going back to one costs no more than the query. Each query is answered
    by one version from beginning to end. Safe to use from several threads.
    """

    def __init__(
        self,
        resolve: Callable[[], IndexManifest],
        load_embedder: Callable[[IndexManifest], "Embedder"],
    ) -> None:
        self._resolve = resolve
        self._load_embedder = load_embedder
        self._embedders: dict[str, Embedder] = {}
        self._readers: OrderedDict[tuple[str, str, str, int], IndexReader] = OrderedDict()
        self._lock = Lock()

    def search(
        self,
        queries: Sequence[str],
        k: int = 10,
        mode: Mode | None = None,
        filters: Filters | None = None,
        vectors: Vectors | None = None,
    ) -> tuple[IndexManifest, list[list[Passage]]]:
        """The version that answered, and what `IndexReader.search` gives."""
        manifest = self._resolve()
        return manifest, self.reader(manifest).search(queries, k, mode, filters, vectors)

    def reader(self, manifest: IndexManifest) -> IndexReader:
        """The open reader of a version, opened and warmed if it is not."""
        # Two versions may share the rows and differ in how they are searched; hence the tag.
        key = (manifest.uri, manifest.table, manifest.tag, manifest.lance_version)
        with self._lock:
            if key not in self._readers:
                self._readers[key] = open_version(manifest, self._embedder(manifest))
                self._readers[key].warm()
            self._readers.move_to_end(key)
            while len(self._readers) > _OPEN_VERSIONS:
                self._readers.popitem(last=False)
            return self._readers[key]

    def _embedder(self, manifest: IndexManifest) -> "Embedder":
        fingerprint = manifest.embedder_fingerprint
        if fingerprint not in self._embedders:
            self._embedders[fingerprint] = self._load_embedder(manifest)
        return self._embedders[fingerprint]


def _rank(passage: Passage) -> tuple[float, str]:
    return -passage.score, passage.id


def _score(hit: _Hit) -> float:
    return hit.score


def _rerank(query: str, found: list[Passage], model: str) -> list[Passage]:
    from tasks.index.reranking import rerank  # loads a model

    scores = rerank(query, [passage.text for passage in found], model)
    scored = [replace(passage, score=float(score)) for passage, score in zip(found, scores, strict=True)]
    return sorted(scored, key=_rank)


@cache
def _loop() -> asyncio.AbstractEventLoop:
    """One event loop for all searches: a query then crosses between threads once and not at every step."""
    loop = asyncio.new_event_loop()
    Thread(target=loop.run_forever, name="search", daemon=True).start()
    return loop


def _run(work: Coroutine[Any, Any, T], doing: str) -> T:
    with explained(doing):
        return asyncio.run_coroutine_threadsafe(work, _loop()).result()


async def _open(store: IndexStore) -> Any:
    table = await (await lancedb.connect_async(store.uri)).open_table(store.name)
    await table.checkout(store.version)
    return table


async def _warm(table: Any) -> None:
    await asyncio.gather(*(table.prewarm_index(index.name) for index in await table.list_indices()))


async def _read_vectors(table: Any) -> _ExactSearch:
    found = await table.query().where("vector IS NOT NULL").select(["vector"]).with_row_id().to_arrow()
    return _ExactSearch(found["_rowid"].to_numpy(), _matrix(found["vector"]))


async def _rows(query: Any) -> npt.NDArray[np.uint64]:
    found = await query.select(["ordinal"]).with_row_id().to_arrow()
    return found["_rowid"].to_numpy()


async def _best(query: Any, column: str, plan: _Plan, with_vectors: bool = False) -> list[_Hit]:
    """The `plan.limit` best hits, best first, and all that equal the last of them.

    Lance cuts equal scores off in the order of the rows, so more are read until the cut falls between two.
    """
    query = query.select([column, *(["vector"] if with_vectors else [])]).with_row_id()
    if plan.where:
        query = query.where(plan.where)
    limit = plan.limit
    ask = limit + _TIE_MARGIN
    while True:
        found = await query.limit(ask).to_arrow()
        scores = found[column].to_numpy()
        if len(scores) < ask or scores[limit - 1] != scores[-1]:
            break
        ask *= 4
    if column == "_distance":
        scores = 1 - scores
    found = found.slice(0, int(np.sum(scores >= scores[:limit][-1])) if len(scores) else 0)
    vectors = _matrix(found["vector"]) if with_vectors else repeat(None)
    return list(map(_Hit, found["_rowid"].to_pylist(), scores.tolist(), vectors))


def _matrix(column: pa.ChunkedArray) -> Vectors:
    flat = column.combine_chunks().flatten().to_numpy()
    return np.asarray(flat).reshape(-1, column.type.list_size)


def _cosine(stored: Vectors, vector: Vectors) -> float:
    # Not BLAS, whose rounding may depend on the other rows.
    return float(np.sum(stored * vector))


def _passage(row: dict[str, Any], score: float) -> Passage:
    day = row["date"]
    return Passage(
        **row
        | {
            "heading": tuple(row["heading"] or ()),
            "tags": tuple(row["tags"] or ()),
            "date": day.isoformat() if day else None,
        },
        score=score,
    )
