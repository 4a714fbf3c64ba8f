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
from collections.abc import Callable, Collection, Coroutine, Iterable, Sequence
from dataclasses import dataclass, replace
from datetime import date
from functools import cache
from itertools import repeat
from threading import Lock, Thread
from typing import TYPE_CHECKING, Any, Literal, TypeVar

import numpy as np
import numpy.typing as npt
import pyarrow as pa

from tasks.config import stored
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
_OPEN_VERSIONS = 4
_TIE_MARGIN = 20


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
class _Hits:
    """Candidates, best first: their rows in the table, and cosine similarities, BM25 scores, or both fused."""

    rows: npt.NDArray[np.uint64]
    scores: npt.NDArray[np.float64]
    vectors: Vectors | None = None
    """The stored vectors, of shape (candidates, dimension), where fusion may need them."""
    cosines: npt.NDArray[np.float64] | None = None
    """None where only full text was searched."""
    matches: npt.NDArray[np.float64] | None = None
    """BM25 scores; None where only vectors were searched."""

    def best(self, count: int) -> "_Hits":
        """The first `count`, and all that equal the last of them."""
        end = int(np.sum(self.scores >= self.scores[:count].min(initial=np.inf)))
        return _Hits(
            self.rows[:end],
            self.scores[:end],
            None if self.vectors is None else self.vectors[:end],
            None if self.cosines is None else self.cosines[:end],
            None if self.matches is None else self.matches[:end],
        )


@dataclass(frozen=True, slots=True)
class _Plan:
    """What is asked of every query of one search."""

    mode: Mode
    depth: int
    """Passages that are to come back."""
    limit: int
    """Candidates of each retriever."""
    where: str | None


class _PassageReader:
    """Reads passages by row: by its offset through Lance, which takes half the time of LanceDB's read by row id."""

    def __init__(self, table: Any) -> None:
        self._dataset = table.to_lance()
        rows = self._dataset.scanner(columns=[], with_row_id=True).to_table()["_rowid"].to_numpy()
        self._order = np.argsort(rows)
        self._rows = rows[self._order]

    def read(self, rows: npt.NDArray[np.uint64]) -> list[dict[str, Any]]:
        """The columns of a passage for each row."""
        offsets = self._order[np.searchsorted(self._rows, rows)]
        return list(self._dataset.take(offsets, columns=_PASSAGE_COLUMNS).to_pylist())


@dataclass(frozen=True, slots=True)
class _ExactSearch:
    """All vectors of a version that is small enough to be searched exactly; Lance would read them at every query."""

    rows: npt.NDArray[np.uint64]
    vectors: Vectors
    """Of shape (rows, dimension)."""

    def nearest(self, vector: Vectors, limit: int, among: npt.NDArray[np.uint64] | None) -> _Hits:
        """The `limit` best, best first, and all that equal the last of them; only `among` these rows, if given."""
        rows, vectors = self.rows, self.vectors
        if among is not None:
            chosen = np.isin(rows, among)
            rows, vectors = rows[chosen], vectors[chosen]
        cosines = _cosines(vectors, vector)
        if len(cosines) > limit:
            best = cosines >= np.partition(cosines, -limit)[-limit]
            rows, cosines = rows[best], cosines[best]
        order = np.argsort(-cosines, kind="stable")
        return _Hits(rows[order], cosines[order].astype(float))


class IndexReader:
    """One open version of an index. Safe to use from several threads."""

    def __init__(self, store: IndexStore, embedder: "Embedder", search: SearchConfig) -> None:
        self.store = store
        self.embedder = embedder
        self.config = search
        with explained(f"open {store.name}"):
            self._table: Any = _run(_open(store))
            self._stored = _PassageReader(store.table)
            self._exact = None if store.has_vector_index else _run(_read_vectors(self._table))

    def warm(self) -> None:
        """Read the indices into memory, so that the first query is as fast as the next."""
        with explained(f"read the indices of {self.store.name}"):
            _run(_warm(self._table))

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
        with explained(f"search {self.store.name}"):
            results = self._passages(_run(self._find_all(queries, vectors, plan)), depth)
        if self.config.reranker:
            model = self.config.reranker
            results = [_rerank(query, found, model) for query, found in zip(queries, results, strict=True)]
        return [found[:k] for found in results]

    def read(self, ids: Collection[str], filters: Filters | None = None) -> list[Passage]:
        """The passages of these ids that are there and pass the filters, in any order and without scores."""
        wanted = [f"id IN ({', '.join(map(quote, sorted(ids)))})", filters.predicate() if filters else None]
        rows = self.store.rows(_PASSAGE_COLUMNS, " AND ".join(filter(None, wanted))) if ids else None
        return [_passage(row, 0.0, None, 0.0) for row in rows.to_pylist()] if rows else []

    def every(self) -> list[Passage]:
        """Every passage of the version, those of a document one after the other, without scores."""
        rows = self.store.rows([*_PASSAGE_COLUMNS, "ordinal"], "ordinal >= 0")
        rows = rows.sort_by([("document", "ascending"), ("ordinal", "ascending")]).drop_columns(["ordinal"])
        return [_passage(row, 0.0, None, 0.0) for row in rows.to_pylist()]

    async def _find_all(self, queries: Sequence[str], vectors: Vectors | None, plan: _Plan) -> list[_Hits]:
        turns = asyncio.Semaphore(2 * (os.cpu_count() or 1))  # so that many queries do not all hold their vectors

        async def find(query: str, vector: Vectors | None) -> _Hits:
            async with turns:
                return (await self._retrieve(query, vector, plan)).best(plan.depth)

        each = repeat(None) if vectors is None else vectors
        return await asyncio.gather(*map(find, queries, each))

    async def _retrieve(self, query: str, vector: Vectors | None, plan: _Plan) -> _Hits:
        """The candidates, best first."""
        if vector is None:
            text = await self._by_text(query, plan)
            return replace(text, matches=text.scores)
        if plan.mode == "vector":
            close = await self._by_vector(vector, plan)
            return replace(close, cosines=close.scores)
        close, text = await asyncio.gather(self._by_vector(vector, plan), self._by_text(query, plan))
        return self._fuse(vector, close, text)

    async def _by_text(self, query: str, plan: _Plan) -> _Hits:
        # Fast search leaves rows out that are in no index; `IndexStore.check` has seen that there are none.
        search = self._table.query().nearest_to_text(match_words(query)).fast_search()
        return await _best(search, "_score", plan, with_vectors=plan.mode == "hybrid")

    async def _by_vector(self, vector: Vectors, plan: _Plan) -> _Hits:
        if self._exact:
            among = await _rows(self._table.query().where(plan.where)) if plan.where else None
            return await asyncio.to_thread(self._exact.nearest, vector, plan.limit, among)
        search = self._table.query().nearest_to(vector).distance_type("cosine")
        # Where a filter leaves too few in the nearest partitions, all others are searched too.
        # Refining by 1 compares the candidates by their full vectors, and no more than those.
        search = search.maximum_nprobes(0).minimum_nprobes(_PROBES).refine_factor(1).fast_search()
        return await _best(search, "_distance", plan)

    def _fuse(self, vector: Vectors, close: _Hits, text: _Hits) -> _Hits:
        # Passages that only full text found get their exact similarity.
        assert text.vectors is not None
        missing = ~np.isin(text.rows, close.rows)
        rows = np.concatenate([close.rows, text.rows[missing]])
        cosines = np.concatenate([close.scores, _cosines(text.vectors[missing], vector)])
        matches = np.zeros(len(rows))
        _, places, found = np.intersect1d(rows, text.rows, assume_unique=True, return_indices=True)
        matches[places] = text.scores[found]
        weight = self.config.vector_weight
        scores = weight * _share(1 + cosines) + (1 - weight) * _share(matches)
        order = np.argsort(-scores, kind="stable")
        return _Hits(rows[order], scores[order], cosines=cosines[order], matches=matches[order])

    def _passages(self, found: list[_Hits], depth: int) -> list[list[Passage]]:
        """The `depth` best of each query, equal scores ordered by id."""
        rows = np.unique(np.concatenate([hits.rows for hits in found]))
        stored = dict(zip(rows.tolist(), self._stored.read(rows), strict=True))
        return [
            sorted(map(_passage, map(stored.__getitem__, hits.rows.tolist()), *_numbers(hits)), key=_rank)[:depth]
            for hits in found
        ]


def open_version(manifest: IndexManifest, embedder: "Embedder") -> IndexReader:
    """Open a registered version to answer as it was scored; StoreError if it is gone."""
    if embedder.fingerprint != manifest.embedder_fingerprint:
        raise StoreError(
            f"version {manifest.tag} of {manifest.index} was embedded by another embedder "
            f"({manifest.embedder_fingerprint}) than the one given ({embedder.fingerprint})"
        )
    return IndexReader(open_store(manifest), embedder, stored.search_of(manifest))


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


def _run(work: Coroutine[Any, Any, T]) -> T:
    return asyncio.run_coroutine_threadsafe(work, _loop()).result()


async def _open(store: IndexStore) -> Any:
    import lancedb

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


async def _best(query: Any, column: str, plan: _Plan, with_vectors: bool = False) -> _Hits:
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
    vectors = _matrix(found["vector"]) if with_vectors else None
    return _Hits(found["_rowid"].to_numpy(), scores.astype(float), vectors).best(limit)


def _matrix(column: pa.ChunkedArray) -> Vectors:
    flat = column.combine_chunks().flatten().to_numpy()
    return np.asarray(flat).reshape(-1, column.type.list_size)


def _cosines(stored: Vectors, vector: Vectors) -> Vectors:
    # Not BLAS, whose rounding may depend on the other rows.
    return np.asarray(np.einsum("ij,j->i", stored, vector))


def _share(scores: npt.NDArray[np.float64]) -> npt.NDArray[np.float64]:
    """Of the highest score."""
    return scores / (scores.max(initial=0.0) or 1.0)


def _numbers(hits: _Hits) -> tuple[Iterable[float], Iterable[float | None], Iterable[float]]:
    """Score, cosine and BM25 score of each."""
    return (
        hits.scores.tolist(),
        repeat(None) if hits.cosines is None else hits.cosines.tolist(),
        repeat(0.0) if hits.matches is None else hits.matches.tolist(),
    )


def _passage(row: dict[str, Any], score: float, similarity: float | None, match: float) -> Passage:
    day = row["date"]
    return Passage(
        **row
        | {
            "heading": tuple(row["heading"] or ()),
            "tags": tuple(row["tags"] or ()),
            "date": day.isoformat() if day else None,
        },
        score=score,
        similarity=similarity,
        match=match,
    )
