"""The LanceDB table of an index: what it holds, how it is written, and its versions."""

import os
import signal
import subprocess
import sys
import time
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import lance
import lancedb
import pyarrow as pa
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from tasks.config.index import SearchConfig
from tasks.errors import StoreError
from tasks.index.store import FORMAT, IndexStore, chunk_schema, explained, match_words, quote
from tasks.records import DocumentState
from tests.fakes import batch

PAGES = {"docs/fox.md": ["the red fox jumps", "a fox sleeps"], "docs/whale.md": ["blue whales swim far"]}
IDS = ["docs/fox.md#0", "docs/fox.md#1", "docs/whale.md#0"]


@pytest.fixture
def store(tmp_path: Path) -> IndexStore:
    store = IndexStore.open_or_create(tmp_path, "pages", 64)
    store.replace([], [batch(PAGES)])
    return store


def placeholder(document: str, reason: str | None) -> pa.RecordBatch:
    row = {"id": f"{document}#-1", "document": document, "ordinal": -1, "revision": "r1", "recipe": "c1"}
    return pa.RecordBatch.from_pylist([row | {"stale": False, "reason": reason}], schema=chunk_schema(64))


def bytes_on_disk(folder: Path) -> int:
    return sum(file.stat().st_size for file in folder.rglob("*") if file.is_file())


# What it holds


def test_a_new_table_is_empty_and_knows_its_dimension(tmp_path: Path) -> None:
    store = IndexStore.open_or_create(tmp_path / "not" / "there" / "yet", "pages", 64)
    assert (len(store), store.documents(), store.dimension) == (0, {}, 64)


def test_the_state_of_every_document_is_read_from_the_table(store: IndexStore) -> None:
    store.replace([], [placeholder("docs/broken.pdf", "the file is cut short")])
    assert store.documents() == {
        "docs/fox.md": DocumentState("docs/fox.md", "r1", "c1", 2),
        "docs/whale.md": DocumentState("docs/whale.md", "r1", "c1", 1),
        "docs/broken.pdf": DocumentState("docs/broken.pdf", "r1", "c1", 0, reason="the file is cut short"),
    }


def test_a_placeholder_is_no_passage(store: IndexStore) -> None:
    store.replace([], [placeholder("docs/empty.md", None)])
    assert len(store) == 3


# Writing


def test_a_replaced_document_keeps_no_old_passage(store: IndexStore) -> None:
    written = store.replace(["docs/fox.md"], [batch({"docs/fox.md": ["one passage now"]}, revision="r2")])
    assert written == 1
    assert store.rows(["text"], "document = 'docs/fox.md'")["text"].to_pylist() == ["one passage now"]
    assert store.documents()["docs/fox.md"] == DocumentState("docs/fox.md", "r2", "c1", 1)
    assert store.documents()["docs/whale.md"].revision == "r1"


def test_deleting_writing_and_changing_make_one_version(store: IndexStore) -> None:
    before = store.version
    store.replace(["docs/fox.md", "docs/whale.md"], [batch({"docs/fox.md": ["new"], "docs/owl.md": ["an owl"]})])
    assert store.version == before + 1
    assert set(store.documents()) == {"docs/fox.md", "docs/owl.md"}


def test_documents_can_be_deleted_without_writing_any(store: IndexStore) -> None:
    assert store.replace(["docs/fox.md"], []) == 0
    assert set(store.documents()) == {"docs/whale.md"}


def test_everything_can_be_deleted(store: IndexStore) -> None:
    store.replace(list(PAGES), [])
    assert store.documents() == {}
    store.maintain(SearchConfig())
    assert store.check() == [f"version {store.version} of pages holds no passage"]


def test_tens_of_thousands_of_documents_are_replaced_at_once(store: IndexStore) -> None:
    names = [f"docs/{number}.md" for number in range(20_000)]
    store.replace(names, [batch({"docs/7.md": ["seven"]})])
    assert set(store.documents()) == {*PAGES, "docs/7.md"}


def test_an_error_while_passages_are_made_passes_through_and_leaves_the_table_as_it_was(
    store: IndexStore,
) -> None:
    def failing() -> Iterator[pa.RecordBatch]:
        yield batch({"docs/fox.md": ["never seen"]})
        raise KeyError("the embedder failed")

    before = store.version, store.documents()
    with pytest.raises(KeyError, match="the embedder failed"):
        store.replace(["docs/fox.md"], failing())
    assert (store.version, store.documents()) == before


def test_batches_are_drawn_as_they_are_written(tmp_path: Path) -> None:
    alive, most = [0], [0]

    def counting() -> Iterator[pa.RecordBatch]:
        for number in range(200):
            alive[0] += 1
            most[0] = max(most[0], alive[0])
            yield batch({f"{number}.md": ["x" * 10_000] * 20})
            alive[0] -= 1

    store = IndexStore.open_or_create(tmp_path, "pages", 64)
    assert store.replace([], counting()) == 4_000
    assert most[0] == 1


def test_a_stale_document_keeps_its_passages(store: IndexStore) -> None:
    before = store.rows(["id", "text", "vector"], "document = 'docs/fox.md'").sort_by("id")
    store.mark_stale("docs/fox.md", "r2", "c1", "it's encrypted")
    state = store.documents()["docs/fox.md"]
    assert state == DocumentState("docs/fox.md", "r2", "c1", 2, stale=True, reason="it's encrypted")
    assert store.rows(["id", "text", "vector"], "document = 'docs/fox.md'").sort_by("id") == before


def test_metadata_is_updated_without_touching_the_text(store: IndexStore) -> None:
    store.update("docs/fox.md", {"tenant": "o'neill", "tags": ["a", "it's"], "title": None})
    rows = store.rows(["tenant", "tags", "text"], "document = 'docs/fox.md'").to_pylist()
    assert {(row["tenant"], *row["tags"]) for row in rows} == {("o'neill", "a", "it's")}
    assert {row["text"] for row in rows} == set(PAGES["docs/fox.md"])


@settings(max_examples=40, deadline=None)
@given(name=st.text(st.characters(exclude_categories=["Cs"]), min_size=1))
def test_any_name_can_be_quoted(name: str, tmp_path_factory: pytest.TempPathFactory) -> None:
    folder = tmp_path_factory.mktemp("quoted")
    store = IndexStore.open_or_create(folder, "pages", 64)
    store.replace([], [batch({name: ["x"], "other": ["y"]})])
    assert store.rows(["document"], f"document = {quote(name)}")["document"].to_pylist() == [name]
    store.replace([name], [])
    assert set(store.documents()) == {"other"} - {name}


KILLED = """
import os, sys, time
sys.path.insert(0, {repository!r})
from tests.fakes import batch
from tasks.index.store import IndexStore

def slowly():
    for number in range(1000):
        yield batch({{f"new/{{number}}.md": ["word " * 2000] * 20}})
        if number == 20:
            print("writing", flush=True)
            time.sleep(60)

IndexStore.open({folder!r}, "pages").replace(["docs/fox.md"], slowly())
"""


def test_a_run_killed_while_it_writes_leaves_the_table_as_it_was(store: IndexStore, tmp_path: Path) -> None:
    before = store.documents()
    repository = str(Path(__file__).parents[1])
    code = KILLED.format(folder=str(tmp_path), repository=repository)
    run = subprocess.Popen([sys.executable, "-c", code], stdout=subprocess.PIPE)
    assert run.stdout is not None
    assert run.stdout.readline() == b"writing\n"
    time.sleep(0.2)
    run.send_signal(signal.SIGKILL)
    run.wait()
    again = IndexStore.open(tmp_path, "pages")
    assert again.documents() == before
    again.replace(["docs/fox.md"], [batch({"docs/fox.md": ["new"]})])
    assert len(again) == 2


# Errors


def test_another_dimension_needs_another_table(store: IndexStore, tmp_path: Path) -> None:
    with pytest.raises(StoreError, match=r"vectors of 64 entries, the embedder makes 32"):
        IndexStore.open_or_create(tmp_path, "pages", 32)


def test_a_table_written_by_a_newer_tandem_is_refused(tmp_path: Path) -> None:
    newer = chunk_schema(64).with_metadata({"tandem.format": str(FORMAT + 1)})
    lancedb.connect(tmp_path).create_table("pages", schema=newer)
    with pytest.raises(StoreError, match=r"written by a newer Tandem .* upgrade"):
        IndexStore.open_or_create(tmp_path, "pages", 64)


def test_a_table_of_somebody_else_is_refused(tmp_path: Path) -> None:
    lancedb.connect(tmp_path).create_table("pages", [{"text": "mine"}])
    with pytest.raises(StoreError, match="not written by Tandem"):
        IndexStore.open_or_create(tmp_path, "pages", 64)


def test_a_missing_table_and_a_missing_version_are_named(store: IndexStore, tmp_path: Path) -> None:
    with pytest.raises(StoreError, match="nowhere"):
        IndexStore.open(tmp_path, "nowhere")
    with pytest.raises(StoreError, match="version v9 of pages"):
        store.at("v9")
    assert not store.exists(999)
    assert store.exists(store.version)


@pytest.mark.parametrize(
    ("number", "advice"),
    [(28, "the disk is full; free some space"), (13, "permission denied; make the folder")],
)
def test_what_the_disk_refuses_is_said_with_what_to_do(number: int, advice: str) -> None:
    with pytest.raises(StoreError, match=f"cannot write to pages: {advice}"), explained("write to pages"):
        raise RuntimeError(f"lance error: LanceError(IO): {os.strerror(number)} (os error {number}), dataset.rs:1")


# Indices


def test_maintaining_twice_writes_nothing_the_second_time(store: IndexStore) -> None:
    first = store.maintain(SearchConfig())
    again = store.maintain(SearchConfig())
    assert first.seconds
    assert not again.seconds
    assert again.version == first.version == store.version


@pytest.mark.parametrize("change", ["delete", "update", "language", "vector index"])
def test_whatever_changes_is_followed_by_the_indices(store: IndexStore, change: str) -> None:
    search = SearchConfig()
    store.maintain(search)
    if change == "delete":
        store.replace(["docs/fox.md"], [])
    elif change == "update":
        store.mark_stale("docs/fox.md", "r2", "c1", "broken")
        assert "rows are missing from the index" in " ".join(store.check())
    elif change == "language":
        search = SearchConfig(text_language="German")
    else:
        store.replace([], [batch({f"{n}.md": [f"page {n} w{n % 7}"] for n in range(300)})])
        search = SearchConfig(exact_below=300)
    health = store.maintain(search)
    assert health.seconds
    assert health.vector_index == (change == "vector index")
    assert not store.maintain(search).seconds
    assert store.check() == []


def test_a_healthy_version_passes_the_check(store: IndexStore) -> None:
    store.replace([], [placeholder("docs/empty.md", None), batch({"docs/rule.md": ["---"]})])
    store.maintain(SearchConfig())
    assert store.check() == []


@pytest.mark.parametrize(
    ("damage", "sentence"),
    [
        ("no index", "the index text_idx does not exist"),
        ("added later", "rows are missing from the index"),
        ("twice", "1 rows have an id that another row has too"),
        ("no vector", "1 passages have no vector or no text"),
    ],
)
def test_the_check_says_what_is_wrong(store: IndexStore, damage: str, sentence: str) -> None:
    if damage != "no index":
        store.maintain(SearchConfig())
    if damage == "added later":
        store.replace([], [batch({"docs/owl.md": ["an owl"]})])
    if damage == "twice":
        store.table.add(batch({"docs/whale.md": ["blue whales swim far"]}))
    if damage == "no vector":
        row = batch({"docs/owl.md": ["an owl"]}).to_pylist()[0] | {"vector": None}
        store.replace([], [pa.RecordBatch.from_pylist([row], schema=chunk_schema(64))])
    assert sentence in " ".join(store.check())


def test_the_check_names_every_passage_that_its_own_vector_does_not_find(
    store: IndexStore, monkeypatch: pytest.MonkeyPatch
) -> None:
    store.maintain(SearchConfig())
    monkeypatch.setattr("tasks.index.store._SAME", -1)  # no distance is below it
    assert sorted(store.check()) == [f"the passage {id} is not found by its own vector" for id in IDS]


def test_the_check_names_every_passage_that_its_own_text_does_not_find(
    store: IndexStore, monkeypatch: pytest.MonkeyPatch
) -> None:
    store.maintain(SearchConfig())
    monkeypatch.setattr("tasks.index.store.match_words", lambda text: match_words("zebra"))
    assert sorted(store.check()) == [f"the passage {id} is not found by its own text" for id in IDS]


def data_files(store: IndexStore) -> set[str]:
    return {file.path for fragment in store.table.to_lance().get_fragments() for file in fragment.data_files()}


def test_many_small_writes_are_compacted(store: IndexStore) -> None:
    for number in range(40):
        store.replace([], [batch({f"{number}.md": [f"page {number}"]})])
    assert store.maintain(SearchConfig()).fragments <= 5
    assert len(store) == 43
    assert store.check() == []


def test_a_compaction_does_not_write_large_files_again(store: IndexStore) -> None:
    store.replace(list(PAGES), [batch({"long.md": [f"line {number}" for number in range(100)]})])
    large = data_files(store)
    for number in range(40):
        store.replace([], [batch({f"{number}.md": [f"page {number}"]})])
    assert store.maintain(SearchConfig()).fragments == 2
    assert large < data_files(store)
    assert len(store) == 140
    assert store.check() == []


def test_a_large_file_of_which_much_is_deleted_is_written_again(store: IndexStore) -> None:
    store.replace(list(PAGES), [batch({f"{number}.md": [f"page {number}"] for number in range(100)})])
    large = data_files(store)
    store.replace([f"{number}.md" for number in range(60)], [])
    store.maintain(SearchConfig())
    assert large.isdisjoint(data_files(store))
    assert store.table.to_lance().count_rows() == len(store) == 40
    assert store.check() == []


# Versions


def test_a_tagged_version_stays_as_it_was(store: IndexStore) -> None:
    store.maintain(SearchConfig())
    store.tag("v1", store.version)
    store.replace(["docs/fox.md"], [])
    old = store.at("v1")
    assert len(old) == 3
    assert old.version == store.tags()["v1"] < store.version
    assert old.check() == []
    with pytest.raises(StoreError, match="for reading only"):
        old.replace(["docs/whale.md"], [])


def test_a_tag_moves_and_goes(store: IndexStore) -> None:
    store.tag("v1", 1)
    store.tag("v1", 2)
    assert store.tags() == {"v1": 2}
    store.untag("v1")
    assert store.tags() == {}


def test_collecting_frees_all_but_the_kept_versions_whatever_their_order(store: IndexStore, tmp_path: Path) -> None:
    for night in range(6):
        pages = {f"{number}.md": [f"night {night} page {number} w{number * 7}"] * 20 for number in range(40)}
        store.replace([f"{number}.md" for number in range(40)], [batch(pages)])
        store.maintain(SearchConfig())
        store.tag(f"v{night}", store.version)
    contents = {tag: store.at(tag).rows().sort_by("id") for tag in ("v1", "v5")}
    before = bytes_on_disk(tmp_path)
    freed = store.collect(["v1", "v5"])
    after = bytes_on_disk(tmp_path)
    assert after < before / 2
    assert freed == pytest.approx(before - after, rel=0.01)
    assert set(store.tags()) == {"v1", "v5"}
    assert not store.exists("v3")
    for tag, rows in contents.items():
        assert store.at(tag).rows().sort_by("id") == rows
        assert store.at(tag).check() == []
    assert not store.maintain(SearchConfig()).seconds


def test_collecting_while_another_process_writes_leaves_every_row(store: IndexStore, tmp_path: Path) -> None:
    done, table = tmp_path / "done", str(tmp_path / "pages.lance")
    rounds, collected = 6, 0
    with subprocess.Popen([sys.executable, "-m", "tests.slow_writer", table, str(done), str(rounds)]) as writer:
        while writer.poll() is None:
            IndexStore.open(tmp_path, "pages").collect([])
            collected += 1
    assert (writer.returncode, done.exists()) == (0, True)
    assert collected > rounds
    after = IndexStore.open(tmp_path, "pages")
    written = [f"slow/{number}.md#{ordinal}" for number in range(rounds) for ordinal in range(2)]
    assert sorted(after.rows()["id"].to_pylist()) == sorted([*IDS, *written])


def test_collecting_while_a_first_night_is_being_written_leaves_every_row(tmp_path: Path) -> None:
    IndexStore.open_or_create(tmp_path, "pages", 64)

    def slowly() -> Iterator[pa.RecordBatch]:
        for number in range(4):
            yield batch({f"slow/{number}.md": [f"page {number}"]})
            time.sleep(0.3)

    with ThreadPoolExecutor(1) as pool:
        night = pool.submit(IndexStore.open(tmp_path, "pages").replace, [], slowly())
        while not night.done():
            IndexStore.open(tmp_path, "pages").collect([])
        assert night.result() == 4
    after = IndexStore.open(tmp_path, "pages").rows()["id"].to_pylist()
    assert sorted(after) == [f"slow/{number}.md#0" for number in range(4)]


@pytest.mark.parametrize(("days", "left"), [(6, 1), (8, 0)])
def test_what_a_killed_run_wrote_goes_once_it_is_seven_days_old(
    store: IndexStore, tmp_path: Path, days: int, left: int
) -> None:
    table = tmp_path / "pages.lance"
    before = set(table.rglob("*.lance"))
    rows = pa.Table.from_batches([batch({"docs/owl.md": ["an owl that was never committed"]})])
    lance.fragment.write_fragments(rows, str(table), mode="append")
    (stray,) = set(table.rglob("*.lance")) - before
    then = time.time() - days * 86_400
    os.utime(stray, (then, then))
    store.collect([])
    assert stray.exists() is bool(left)
    assert len(store) == 3


def test_the_latest_version_is_never_collected(store: IndexStore) -> None:
    store.collect([])
    assert len(store) == 3
    store.replace([], [batch({"docs/owl.md": ["an owl"]})])
    assert len(store) == 4


def test_nothing_is_collected_when_a_version_to_be_kept_lost_its_tag(store: IndexStore) -> None:
    store.tag("v1", 1)
    with pytest.raises(StoreError, match=r"v2 must be kept, but the tag is gone"):
        store.collect(["v2"])
    assert store.exists("v1")
