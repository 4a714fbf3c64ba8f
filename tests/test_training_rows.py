"""Rows of every kind of source, with the places that findings name."""

import gzip
from pathlib import Path
from typing import Any

import fsspec
import pyarrow as pa
import pyarrow.parquet as pq
import pytest

from tasks.errors import SourceError
from tasks.training.rows import Row, read_rows


@pytest.fixture(autouse=True)
def folder(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    monkeypatch.chdir(tmp_path)
    return tmp_path


def read(*sources: str, **options: str) -> list[Any]:
    """Rows as place and values; bad ones as place and reason."""
    rows = read_rows(sources, **options)
    return [(row.place, row.values if isinstance(row, Row) else row.reason) for row in rows]


def test_a_line_of_json_is_a_row_and_blank_lines_are_none() -> None:
    Path("a.jsonl").write_text('\ufeff{"q": "é"}\n\n{"q": 2}\n', encoding="utf-8")
    assert read("a.jsonl") == [("a.jsonl:1", {"q": "é"}), ("a.jsonl:3", {"q": 2})]


def test_lines_that_are_no_rows_are_told_by_line_and_the_others_are_read() -> None:
    Path("a.jsonl").write_bytes(b'{"q": 1}\n{"q" 2}\n[3]\n{"q": "\xff"}\n{"q": 5}\n')
    assert read("a.jsonl") == [
        ("a.jsonl:1", {"q": 1}),
        ("a.jsonl:2:6", "is not JSON"),
        ("a.jsonl:3", "is not a JSON object"),
        ("a.jsonl:4", "is not UTF-8"),
        ("a.jsonl:5", {"q": 5}),
    ]


def test_cells_of_a_csv_may_span_lines_and_a_row_is_named_by_its_first() -> None:
    Path("a.csv").write_text('text,label\n"one\n\ntwo",x\n\n"a, ""b""",y\nz\n')
    assert read("a.csv") == [
        ("a.csv:2", {"text": "one\n\ntwo", "label": "x"}),
        ("a.csv:6", {"text": 'a, "b"', "label": "y"}),
        ("a.csv:7", "has not as many cells as the header, which has 2"),
    ]


def test_a_cell_may_be_longer_than_the_csv_module_likes() -> None:
    Path("a.csv").write_text("text\n" + "x" * 200_000)
    assert len(read("a.csv")[0][1]["text"]) == 200_000


def test_a_quote_left_open_does_not_swallow_the_rest_of_a_csv() -> None:
    Path("a.csv").write_text('text,label\na,x\n"b,y\nc,z\n')
    with pytest.raises(SourceError, match=r"a\.csv:3: the row that begins here is no CSV"):
        read("a.csv")


def test_parquet_keeps_its_types_and_is_named_by_row() -> None:
    turns = [{"role": "user", "content": "hi"}]
    pq.write_table(pa.Table.from_pylist([{"messages": turns, "n": 1}, {"messages": turns, "n": None}]), "a.parquet")
    assert read("a.parquet") == [
        ("a.parquet#1", {"messages": turns, "n": 1}),
        ("a.parquet#2", {"messages": turns, "n": None}),
    ]


def test_folders_and_globs_are_read_in_order_of_their_paths_and_other_files_left_alone() -> None:
    for name in ("rows/b.jsonl", "rows/deep/a.ndjson", "rows/README.md"):
        Path(name).parent.mkdir(parents=True, exist_ok=True)
        Path(name).write_text('{"q": 1}\n')
    Path("rows/a.jsonl.gz").write_bytes(gzip.compress(b'{"q": 1}\n'))
    everything = ["rows/a.jsonl.gz:1", "rows/b.jsonl:1", "rows/deep/a.ndjson:1"]
    assert [place for place, _ in read("rows")] == everything
    assert [place for place, _ in read("rows/**")] == everything
    assert [place for place, _ in read("rows/*.jsonl*")] == everything[:2]
    assert [place for place, _ in read("rows/b.jsonl", "rows/a.jsonl.gz")] == ["rows/b.jsonl:1", "rows/a.jsonl.gz:1"]


def test_any_fsspec_url_is_a_source() -> None:
    with fsspec.open("memory://bucket/a.jsonl", "w") as file:
        file.write('{"q": 1}\n')
    assert read("memory://bucket/*.jsonl") == [("memory:///bucket/a.jsonl:1", {"q": 1})]


def test_data_sets_of_the_hub_and_saved_ones_are_read_with_their_split(
    folder: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    from datasets import Dataset, DatasetDict

    monkeypatch.setattr("datasets.config.HF_DATASETS_CACHE", folder / "cache")
    splits = DatasetDict(train=Dataset.from_list([{"q": 1}]), test=Dataset.from_list([{"q": 2}, {"q": 3}]))
    splits.save_to_disk("saved")
    splits["test"].save_to_disk("single")
    assert read("saved", hub_split="test") == [("saved#1", {"q": 2}), ("saved#2", {"q": 3})]
    assert read("single") == [("single#1", {"q": 2}), ("single#2", {"q": 3})]
    Path("hub").mkdir()
    Path("hub/train.jsonl").write_text('{"q": 4}\n')
    assert read("hub:./hub") == [("hub:./hub#1", {"q": 4})]
    with pytest.raises(SourceError, match=r"hub:\./hub, split dev: cannot be loaded"):
        read("hub:./hub", hub_split="dev")
    with pytest.raises(SourceError, match="saved: cannot be loaded"):
        read("saved", hub_split="dev")


@pytest.mark.parametrize(
    ("source", "reason"),
    [
        ("nowhere.jsonl", "there is no jsonl, csv or parquet file there"),
        ("empty", "there is no jsonl, csv or parquet file there"),
        ("a.txt", r"a\.txt: cannot be read \(its name does not end in"),
        ("broken.parquet", r"broken\.parquet: cannot be read"),
        ("broken.jsonl.gz", r"broken\.jsonl\.gz: cannot be read"),
        ("latin.csv", r"latin\.csv: is not UTF-8; save"),
        ("nonsense://x/y", r"nonsense://x/y: cannot be listed"),
    ],
)
def test_a_source_that_cannot_be_read_is_an_error_that_names_it(source: str, reason: str) -> None:
    Path("empty").mkdir()
    Path("a.txt").write_text("x")
    Path("broken.parquet").write_text("x")
    Path("broken.jsonl.gz").write_bytes(gzip.compress(b'{"q": 1}\n' * 100)[:-12])
    Path("latin.csv").write_bytes("text\né".encode("latin-1"))
    with pytest.raises(SourceError, match=reason):
        read(source)
