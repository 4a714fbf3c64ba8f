"""Search over one version of an index: the three modes, filters, fusion, and following the live version."""

import dataclasses
import random
import sys
import threading
import time
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from datetime import date
from pathlib import Path
from types import SimpleNamespace

import numpy as np
import pyarrow as pa
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from tasks.config.index import SearchConfig
from tasks.errors import StoreError
from tasks.index.search import Filters, IndexReader, LiveIndex, Mode, open_version
from tasks.index.store import IndexStore, chunk_schema
from tasks.records import IndexManifest, Passage
from tests.fakes import FakeEmbedder, batch

MODES: tuple[Mode, ...] = ("vector", "text", "hybrid")
WORDS = ["fox", "whale", "owl", "river", "stone", "cloud", "amber", "violet", "harbour", "lantern"]


def reader(store: IndexStore, **search: object) -> IndexReader:
    config = SearchConfig.model_validate(search)
    store.maintain(config)
    return IndexReader(store.at(store.version), FakeEmbedder(store.dimension), config)


def ids(passages: list[Passage]) -> list[str]:
    return [passage.id for passage in passages]


@pytest.fixture
def store(tmp_path: Path) -> IndexStore:
    return IndexStore.open_or_create(tmp_path, "pages", 64)


# Modes and fusion


@pytest.mark.parametrize("mode", MODES)
def test_the_passage_that_answers_comes_first(store: IndexStore, mode: Mode) -> None:
    store.replace([], [batch({"a": ["the red fox jumps"], "b": ["blue whales swim"], "c": ["an owl hunts"]})])
    [found] = reader(store).search(["red fox"], mode=mode)
    assert found[0].id == "a#0"


def test_a_passage_comes_with_its_place(store: IndexStore) -> None:
    where = {"title": "Foxes", "heading": ["Animals", "Fox"], "tenant": "zoo", "language": "en", "tags": ["x", "y"]}
    store.replace([], [batch({"zoo/fox.md": ["a red fox"]}, date=date(2024, 2, 29), **where)])
    [[found]] = reader(store).search(["fox"])
    assert dataclasses.replace(found, score=0.0, similarity=None, match=0.0) == Passage(
        id="zoo/fox.md#0",
        document="zoo/fox.md",
        text="a red fox",
        score=0.0,
        title="Foxes",
        heading=("Animals", "Fox"),
        start=0,
        end=9,
        tenant="zoo",
        language="en",
        date="2024-02-29",
        tags=("x", "y"),
        stale=False,
        parsed_key="parsed-zoo/fox.md",
    )


def test_fusion_adds_both_scores_each_over_its_range(store: IndexStore) -> None:
    vectors = np.zeros((3, 64), dtype=np.float32)
    vectors[0, 0] = 1
    vectors[1, :2] = 0.6, 0.8
    vectors[2, 1] = 1
    store.replace([], [batch({"a": ["whale"], "b": ["fox fox"], "c": ["fox owl"]}, vectors=vectors)])
    index = reader(store, vector_weight=0.75)
    [by_text] = index.search(["fox"], mode="text")
    bm25 = {passage.id: passage.score for passage in by_text}
    [fused] = index.search(["fox"], vectors=vectors[:1])
    expected = {
        "a#0": 0.75 * (1 + 1) / 2,
        "b#0": 0.75 * (1 + 0.6) / 2 + 0.25 * bm25["b#0"] / max(bm25.values()),
        "c#0": 0.75 * (1 + 0) / 2 + 0.25 * bm25["c#0"] / max(bm25.values()),
    }
    assert {passage.id: passage.score for passage in fused} == pytest.approx(expected, abs=1e-6)
    assert ids(fused) == ["b#0", "a#0", "c#0"]


@pytest.mark.parametrize("mode", MODES)
def test_a_passage_says_what_each_retriever_made_of_it(store: IndexStore, mode: Mode) -> None:
    vectors = np.array([[0.6, 0.8], [1, 0]], dtype=np.float32) @ np.eye(2, 64, dtype=np.float32)
    store.replace([], [batch({"a": ["fox"], "b": ["owl"]}, vectors=vectors)])
    index = reader(store)
    [found] = index.search(["fox"], mode=mode, vectors=vectors[1:])
    [[by_text]] = index.search(["fox"], mode="text")
    says = {passage.id: (passage.similarity, passage.match) for passage in found}
    no_text = mode == "vector"
    assert says["a#0"] == pytest.approx((None if mode == "text" else 0.6, 0.0 if no_text else by_text.score))
    assert mode == "text" or says["b#0"] == pytest.approx((1.0, 0.0))


def test_the_vector_score_of_a_passage_that_only_full_text_found_is_exact(store: IndexStore) -> None:
    near, far = np.zeros((2, 64), dtype=np.float32)
    near[:2], far[:2] = (0.8, 0.6), (0.5, np.sqrt(0.75))
    texts = {f"{number:02}": ["fox"] for number in range(40)} | {"zz": ["quartz lamp"]}
    store.replace([], [batch(texts, vectors=np.array([near] * 40 + [far]))])
    query = np.eye(1, 64, dtype=np.float32)
    [found] = reader(store, candidates=10, vector_weight=0.75).search(["quartz"], vectors=query)
    assert ids(found)[:2] == ["zz#0", "00#0"]
    assert found[0].score == pytest.approx(0.75 * (1 + 0.5) / (1 + 0.8) + 0.25, abs=1e-6)


NO_WORDS = ["", "   ", "the of", "((", '"', "\x00", "狐"]
LIKE_WORDS = {
    "fox AND (owl OR": "fox and owl or",
    "text:fox": "text fox",
    "fox -owl": "fox owl",
    "fox~2 +owl^3": "fox 2 owl 3",
}


@pytest.mark.parametrize("query", [*NO_WORDS, *LIKE_WORDS])
@pytest.mark.parametrize("mode", MODES)
def test_no_query_is_parsed_or_fails(store: IndexStore, query: str, mode: Mode) -> None:
    store.replace([], [batch({"a": ["fox"], "b": ["owl and or text"]})])
    index = reader(store)
    [found] = index.search([query], mode=mode)
    if mode == "text":
        assert set(ids(found)) == (set() if query in NO_WORDS else {"a#0", "b#0"})
        assert [found] == index.search([LIKE_WORDS.get(query, "")], mode=mode)
    else:
        assert set(ids(found)) == {"a#0", "b#0"}


@pytest.mark.parametrize("mode", MODES)
def test_placeholders_are_never_found(store: IndexStore, mode: Mode) -> None:
    row = {"id": "empty#-1", "document": "empty", "ordinal": -1, "stale": False}
    store.replace([], [pa.RecordBatch.from_pylist([row], schema=chunk_schema(64)), batch({"a": ["fox"]})])
    assert ids(reader(store).search(["fox empty"], mode=mode)[0]) == ["a#0"]


@pytest.mark.parametrize("mode", MODES)
def test_an_empty_index_finds_nothing(store: IndexStore, mode: Mode) -> None:
    assert reader(store).search(["fox", "owl"], mode=mode) == [[], []]
    assert reader(store).search([], mode=mode) == []


@pytest.mark.parametrize("mode", MODES)
def test_equal_scores_are_ordered_by_id_wherever_the_rows_lie(tmp_path: Path, mode: Mode) -> None:
    names = [f"{number:03}" for number in range(300)]
    for order in (names, names[::-1]):
        store = IndexStore.open_or_create(tmp_path / order[0], "pages", 64)
        store.replace([], [batch({name: ["the same fox"]}) for name in order])
        assert ids(reader(store, candidates=10).search(["fox"], k=5, mode=mode)[0]) == [f"{n}#0" for n in names[:5]]


def test_many_queries_are_answered_in_their_order(store: IndexStore) -> None:
    store.replace([], [batch({word: [f"{word} {word} here"] for word in WORDS})])
    found = reader(store).search(WORDS, k=1)
    assert [passage.document for [passage] in found] == WORDS


def test_given_vectors_save_embedding_the_queries(store: IndexStore) -> None:
    store.replace([], [batch({"a": ["fox"]})])
    index = reader(store)
    vectors = FakeEmbedder().embed_queries(["fox"])
    assert index.search(["fox"], vectors=vectors) == index.search(["fox"])
    assert index.embedder.calls == 1  # type: ignore[attr-defined]


def test_a_reranker_reorders_the_best_candidates(store: IndexStore, monkeypatch: pytest.MonkeyPatch) -> None:
    store.replace([], [batch({"a": ["fox fox fox"], "b": ["fox stone river"], "c": ["owl"]})])

    def longest_first(query: str, texts: list[str], model: str) -> list[float]:
        return [float(len(text)) for text in texts]

    monkeypatch.setitem(sys.modules, "tasks.index.reranking", SimpleNamespace(rerank=longest_first))
    found = reader(store, reranker="any", rerank_depth=2).search(["fox"], k=2)[0]
    assert [(passage.id, passage.score) for passage in found] == [("b#0", 15.0), ("a#0", 11.0)]


# Filters


@pytest.mark.parametrize(
    ("filters", "expected"),
    [
        (Filters(tenant="t1"), {"a", "b"}),
        (Filters(tenant="t1", language="de"), {"b"}),
        (Filters(source="other"), {"c"}),
        (Filters(tags=("red", "it's")), {"a", "c"}),
        (Filters(date_from=date(2024, 1, 2)), {"b", "c"}),
        (Filters(date_to=date(2024, 1, 2)), {"a", "b"}),
        (Filters(date_from=date(2024, 1, 2), date_to=date(2024, 1, 2)), {"b"}),
        (Filters(document_prefix="a"), {"a"}),
        (Filters(document_prefix="%"), set()),
        (Filters(document_prefix="_"), set()),
        (Filters(tenant="' OR 1=1 --"), set()),
        (Filters(tenant=""), set()),
        (Filters(), {"a", "b", "c", "d"}),
    ],
)
@pytest.mark.parametrize("mode", MODES)
def test_filters_decide_what_may_be_found(store: IndexStore, mode: Mode, filters: Filters, expected: set[str]) -> None:
    one = {"tenant": "t1", "language": "en", "tags": ["red", "blue"], "date": date(2024, 1, 1)}
    two = {"tenant": "t1", "language": "de", "tags": [], "date": date(2024, 1, 2)}
    three = {"tenant": "t2", "source": "other", "tags": ["it's"], "date": date(2024, 1, 3)}
    pages = [batch({"a": ["fox"]}, **one), batch({"b": ["fox"]}, **two), batch({"c": ["fox"]}, **three)]
    store.replace([], [*pages, batch({"d": ["fox"]})])
    [found] = reader(store).search(["fox"], mode=mode, filters=filters)
    assert {passage.document for passage in found} == expected


@settings(max_examples=10, deadline=None)
@given(tenant=st.text(st.characters(exclude_categories=["Cs"]), min_size=1))
def test_a_tenant_is_matched_by_its_exact_name_only(tenant: str, tmp_path_factory: pytest.TempPathFactory) -> None:
    store = IndexStore.open_or_create(tmp_path_factory.mktemp("tenants"), "pages", 64)
    store.replace([], [batch({"a": ["fox"]}, tenant=tenant), batch({"b": ["fox"]}, tenant=tenant + "'")])
    index = reader(store)
    assert ids(index.search(["fox"], filters=Filters(tenant=tenant))[0]) == ["a#0"]
    assert not index.search(["fox"], filters=Filters(tenant=tenant + "' OR '1'='1"))[0]


@pytest.fixture(scope="module")
def crowd(tmp_path_factory: pytest.TempPathFactory) -> IndexReader:
    """100,000 passages of ten tenants, and three of an eleventh that are far from every query."""
    rng = np.random.default_rng(0)
    vectors = rng.standard_normal((100_003, 32), dtype=np.float32)
    vectors[-3:] = -np.ones(32) + 0.01 * vectors[-3:]
    vectors /= np.linalg.norm(vectors, axis=1, keepdims=True)
    total = len(vectors)
    tenants = [f"t{number % 10}" for number in range(total - 3)] + ["small"] * 3
    texts = [f"fox fox {WORDS[number % 10]}" for number in range(total - 3)] + ["a fox in a long and winding tale"] * 3
    columns = {
        "id": [f"{number}#0" for number in range(total)],
        "document": [str(number) for number in range(total)],
        "ordinal": np.zeros(total, dtype=np.int32),
        "text": texts,
        "tenant": tenants,
        "tags": [[]] * total,
        "heading": [[]] * total,
        "stale": np.zeros(total, dtype=bool),
        "start": np.zeros(total, dtype=np.int32),
        "end": np.zeros(total, dtype=np.int32),
        "vector": pa.FixedSizeListArray.from_arrays(vectors.reshape(-1), 32),
    }
    schema = chunk_schema(32)
    missing = {field.name: pa.nulls(total, field.type) for field in schema if field.name not in columns}
    table = pa.table(columns | missing).select(schema.names).cast(schema)
    store = IndexStore.open_or_create(tmp_path_factory.mktemp("crowd"), "pages", 32)
    store.replace([], table.to_batches(10_000))
    return reader(store)


@pytest.mark.parametrize("mode", MODES)
def test_a_tenant_among_many_gets_its_passages_and_nothing_else(crowd: IndexReader, mode: Mode) -> None:
    assert crowd.store.has_vector_index
    query = np.ones((1, 32), dtype=np.float32) / np.sqrt(np.float32(32))
    [found] = crowd.search(["fox fox"], k=10, mode=mode, vectors=query, filters=Filters(tenant="small"))
    assert sorted(ids(found)) == ["100000#0", "100001#0", "100002#0"]
    [others] = crowd.search(["fox fox"], k=10, mode=mode, vectors=query, filters=Filters(tenant="t3"))
    assert [passage.tenant for passage in others] == ["t3"] * 10
    [nobody] = crowd.search(["fox fox"], k=10, mode=mode, vectors=query, filters=Filters(tenant="t"))
    assert nobody == []


def test_a_vector_index_finds_what_exact_search_finds(store: IndexStore) -> None:
    rng = np.random.default_rng(1)
    centres = rng.standard_normal((50, 64))
    vectors = centres[np.arange(6_000) % 50] + 0.8 * rng.standard_normal((6_000, 64))
    vectors = (vectors / np.linalg.norm(vectors, axis=1, keepdims=True)).astype(np.float32)
    store.replace([], [batch({f"{number:04}": ["fox"] for number in range(6_000)}, vectors=vectors)])
    index = reader(store, exact_below=1_000)
    assert index.store.has_vector_index
    queries = vectors[::60] + 0.05 * rng.standard_normal((100, 64)).astype(np.float32)
    queries /= np.linalg.norm(queries, axis=1, keepdims=True)
    found = index.search([""] * 100, mode="vector", vectors=queries)
    exact = np.argsort(-(queries @ vectors.T), axis=1)[:, :10]
    shared = [len({f"{n:04}#0" for n in best} & set(ids(got))) for best, got in zip(exact, found, strict=True)]
    assert np.mean(shared) / 10 >= 0.98


# An index that grew answers like one built from nothing


def night(rng: random.Random) -> dict[str, list[str]]:
    names = rng.sample("abcdefghijkl", rng.randint(0, 8))
    return {
        name: [" ".join(rng.choices(WORDS, k=rng.randint(1, 6))) for _ in range(rng.randint(1, 4))] for name in names
    }


@pytest.mark.parametrize("seed", range(8))
def test_after_any_nights_results_equal_those_of_an_index_built_from_nothing(tmp_path: Path, seed: int) -> None:
    rng = random.Random(seed)
    grown, pages = IndexStore.open_or_create(tmp_path, "grown", 64), {}
    for _ in range(4):
        new = night(rng)
        gone = rng.sample(sorted(pages), len(pages) // 4)
        pages = {name: texts for name, texts in pages.items() if name not in gone} | new
        grown.replace([*gone, *new], [batch({name: texts}) for name, texts in new.items()])
        grown.maintain(SearchConfig())
    fresh = IndexStore.open_or_create(tmp_path, "fresh", 64)
    fresh.replace([], [batch({name: pages[name]}) for name in sorted(pages)])
    for mode in MODES:
        queries = [*WORDS, "fox owl", "stone river fox amber"]
        assert reader(grown).search(queries, mode=mode) == reader(fresh).search(queries, mode=mode)


# The live version


class World:
    """An index of two versions that answer differently, and the alias that says which is live."""

    def __init__(self, folder: Path) -> None:
        self.store = IndexStore.open_or_create(folder, "pages", 64)
        self.versions = [self._version(1), self._version(2)]
        self.live = self.versions[0]
        self.loaded: list[str] = []

    def _version(self, number: int) -> IndexManifest:
        texts = {name: [f"fox number {number}"] for name in "abc"}
        self.store.replace(list("abc"), [batch(texts, revision=str(number))])
        self.store.maintain(SearchConfig())
        self.store.tag(f"v{number}", self.store.version)
        return IndexManifest(
            index="pages",
            tag=f"v{number}",
            uri=self.store.uri,
            table="pages",
            lance_version=self.store.version,
            embedder={},
            embedder_fingerprint="fake-64",
            dimension=64,
            search=SearchConfig().model_dump(mode="json"),
            chunking={},
            fingerprint=str(number),
            corpus=str(number),
            documents=3,
            passages=3,
        )

    def load(self, manifest: IndexManifest) -> FakeEmbedder:
        self.loaded.append(manifest.tag)
        return FakeEmbedder()

    def index(self, resolve: Callable[[], IndexManifest] | None = None) -> LiveIndex:
        return LiveIndex(resolve or (lambda: self.live), self.load)


@pytest.fixture
def world(tmp_path: Path) -> World:
    return World(tmp_path)


def test_a_moved_alias_is_followed_at_the_next_query(world: World) -> None:
    index = world.index()
    for live in (0, 1, 0):
        world.live = world.versions[live]
        manifest, [found] = index.search(["fox"])
        assert manifest == world.versions[live]
        assert {passage.text for passage in found} == {f"fox number {live + 1}"}


def test_two_versions_of_the_same_rows_answer_each_in_its_own_way(world: World) -> None:
    text_only = SearchConfig(mode="text").model_dump(mode="json")
    other = dataclasses.replace(world.versions[0], tag="v3", search=text_only)
    index = world.index()
    assert index.reader(world.versions[0]).config.mode == "hybrid"
    assert index.reader(other).config.mode == "text"


def test_opened_versions_and_their_embedder_are_kept(world: World) -> None:
    index = world.index()
    one, other = map(index.reader, world.versions)
    assert one is not other
    assert index.reader(world.versions[0]) is one
    assert world.loaded == ["v1"]


def test_no_answer_mixes_two_versions_while_the_alias_moves(world: World) -> None:
    index, done = world.index(), threading.Event()
    seen: set[frozenset[str]] = set()

    def ask() -> None:
        while not done.is_set():
            _, [found] = index.search(["fox"])
            seen.add(frozenset(passage.text for passage in found))

    with ThreadPoolExecutor(4) as threads:
        asking = [threads.submit(ask) for _ in range(4)]
        for turn in range(6_000):
            world.live = world.versions[turn % 2]
            time.sleep(0.01)
            if any(one.done() for one in asking) or (turn > 60 and len(seen) > 1):
                break
        done.set()
        for one in asking:
            one.result()
    assert seen == {frozenset({"fox number 1"}), frozenset({"fox number 2"})}


def test_a_version_of_another_embedder_is_refused(world: World) -> None:
    with pytest.raises(StoreError, match="embedded by another embedder"):
        open_version(world.versions[0], FakeEmbedder(32))


def test_a_version_that_is_gone_is_named(world: World) -> None:
    gone = dataclasses.replace(world.versions[0], lance_version=999)
    with pytest.raises(StoreError, match="version 999 of pages"):
        open_version(gone, FakeEmbedder())
