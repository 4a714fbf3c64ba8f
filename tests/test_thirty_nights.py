"""Thirty real nights: after each the index is what a build from nothing would have made it.

A quarter of the handbook has all that can happen to a page: 51 renames with an edit and 115 without, 54 edits, 4 new
pages and one deletion. `TANDEM_TEST_WHOLE_HANDBOOK=1` takes all of it, and four times as long.
"""

import os
from pathlib import Path

import pyarrow as pa
import pytest

from tasks.config.index import ReindexConfig
from tasks.config.settings import Home
from tasks.index.embedding import Embedder, load_embedder
from tasks.index.search import IndexReader, Mode
from tasks.index.store import IndexStore
from tests.benchmarks.thirty_nights import clone_history, history_nights, settings_of
from tests.nights import quick_night, rows_of
from tests.realdata import needs_real_data

NIGHTS = 30
QUERIES = 30
PAGES = "**/*.md" if os.environ.get("TANDEM_TEST_WHOLE_HANDBOOK") else "**/[bcdgp]*.md"
MODES: tuple[Mode, ...] = ("vector", "text", "hybrid")


@pytest.mark.realdata
@needs_real_data
@pytest.mark.long
@pytest.mark.timeout(1800)
def test_after_each_of_thirty_real_nights_the_index_equals_one_built_from_nothing(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """The nights are those of `tests.benchmarks.thirty_nights`.

    Builds from nothing share the vectors, which do not depend on what is embedded together (test_embedding.py);
    the last one shares nothing.
    """
    grown = Home(tmp_path / "grown")
    with clone_history(tmp_path / "history.git") as repo:
        nights = history_nights(repo, NIGHTS)
    embedder = load_embedder(ReindexConfig.model_validate(settings_of(nights[0], "", pages=PAGES)).embedder, grown)
    monkeypatch.setattr("tasks.prepare.load_embedder", lambda *_: embedder)
    queries: list[str] = []
    seen: set[str] = set()
    for night in nights:
        config = ReindexConfig.model_validate(settings_of(night, str(tmp_path / "history.git"), pages=PAGES))
        fresh = Home(tmp_path / night.day)
        if night != nights[-1]:
            fresh.cache.mkdir(parents=True)
            (fresh.cache / "vectors").symlink_to(grown.cache / "vectors")

        table, embedded = build(config, grown, monkeypatch)
        rows = rows_of(table, grown)
        keys = set(rows["embedding_key"].drop_null().to_pylist())
        assert embedded == len(keys - seen), night
        seen |= keys
        build(config, fresh, monkeypatch)

        assert_same(rows, rows_of(table, fresh), night.day)
        queries = queries or sorted(set(rows["title"].to_pylist()))[:: rows.num_rows // 1000 + 1][:QUERIES]
        assert answers(table, grown, config, embedder, queries) == answers(table, fresh, config, embedder, queries)


def build(config: ReindexConfig, home: Home, monkeypatch: pytest.MonkeyPatch) -> tuple[str, int]:
    """A night in this home; the table, and the number of passages embedded."""
    monkeypatch.setenv("TANDEM_HOME", str(home.root))
    work, prepared = quick_night(config, home, allow_deletions=True)
    return work.table, prepared.embedded


def assert_same(one: pa.Table, other: pa.Table, day: str) -> None:
    assert one["id"].to_pylist() == other["id"].to_pylist(), day
    for column in one.column_names:
        assert one[column].equals(other[column]), (day, column)


def answers(table: str, home: Home, config: ReindexConfig, embedder: Embedder, queries: list[str]) -> list[object]:
    """Everything that is found, scores included, in every mode."""
    reader = IndexReader(IndexStore.open(home.lancedb, table), embedder, config.search)
    vectors = embedder.embed_queries(queries)
    return [reader.search(queries, mode=mode, vectors=vectors) for mode in MODES]
