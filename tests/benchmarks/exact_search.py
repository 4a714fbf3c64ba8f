"""Where exact vector search stops being fast enough: a filled index of growing size, with and without a vector index.

    python -m tests.benchmarks.exact_search

`SearchConfig.exact_below` rests on this.
"""

import tempfile
from dataclasses import replace
from pathlib import Path

from tasks.config.index import SearchConfig
from tasks.index.search import IndexReader
from tasks.index.store import IndexStore
from tests.benchmarks.reporting import save, table
from tests.benchmarks.search_100k import Corpus, make_corpus, milliseconds, percentiles
from tests.fakes import FakeEmbedder

SIZES = (5_000, 10_000, 20_000, 50_000, 100_000)
QUERIES = 100


def main() -> None:
    corpus = make_corpus(max(SIZES))
    rows = []
    with tempfile.TemporaryDirectory() as folder:
        for size in SIZES:
            part = replace(corpus, texts=corpus.texts[:size], vectors=corpus.vectors[:size])
            exact = measure(Path(folder, f"exact-{size}"), part, size + 1)
            indexed = measure(Path(folder, f"indexed-{size}"), part, 0)
            rows.append([size, *exact.values(), *indexed.values()])
            print(rows[-1], flush=True)
    columns = ["passages", "exact: p50 ms", "p95 ms", "with IVF_RQ: p50 ms", "p95 ms"]
    note = f"Hybrid queries, {QUERIES} at each size, as a reader answers them; embedding the query is not counted."
    save(
        "exact_search", "Exact vector search by size", {"columns": columns, "rows": rows}, [note, table(columns, rows)]
    )


def measure(folder: Path, corpus: Corpus, exact_below: int) -> dict[str, float]:
    search = SearchConfig(exact_below=exact_below)
    store = IndexStore.open_or_create(folder, "table", corpus.vectors.shape[1])
    store.replace([], corpus.batches())
    store.maintain(search)
    reader = IndexReader(store, FakeEmbedder(corpus.vectors.shape[1]), search)
    reader.warm()
    asked = list(zip(corpus.queries, corpus.query_vectors, strict=True))[:QUERIES]
    return percentiles([milliseconds(lambda q=q, v=v: reader.search([q], vectors=v[None])) for q, v in asked])


if __name__ == "__main__":
    main()
