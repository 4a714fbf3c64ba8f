"""A home that was copied, moved or restored elsewhere touches nothing of where it was, and then answers as before."""

import shutil
import sqlite3
from collections.abc import Callable
from contextlib import closing
from pathlib import Path

import pytest

from tasks.config.services import services_file
from tasks.config.settings import Home
from tasks.doctor import examine
from tasks.registry.connection import connect
from tasks.registry.locations import PLACES, move_manifests
from tasks.registry.traces import SpanRecord, TraceRecord, experiment_of, new_trace_id, write_traces
from tasks.registry.versions import list_versions
from tasks.relocate import relocate
from tests.command import Tandem, golden_of_nights, write_config
from tests.homes import use_home

Copy = Callable[[], Home]
REFUSED = "its records name the files of"


@pytest.fixture
def copy(home_of_nights: Home, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Home:
    """A copy of the home of nights, with a trace, which is the home in use."""
    client = connect(home_of_nights)
    asked = SpanRecord("answer", "CHAIN", 1, 2, {"question": "?"})
    write_traces(client, experiment_of(client, "answers-desk"), [TraceRecord(new_trace_id(), asked, [], {})])
    services_file(home_of_nights).write_text("[]")
    shutil.copytree(home_of_nights.root, tmp_path / "a copy")
    return use_home(Home(tmp_path / "a copy"), monkeypatch)


@pytest.fixture
def config(tmp_path: Path) -> Path:
    """Of the nights, with another rule, so that a new version is made."""
    gate = {"min_queries": 10}
    return write_config(tmp_path, {"golden": str(golden_of_nights()), "gate": gate, "chunking": {"max_tokens": 150}})


def contents(home: Home) -> dict[Path, bytes]:
    folders = (home.mlruns, home.lancedb)
    return {file: file.read_bytes() for folder in folders for file in folder.rglob("*") if file.is_file()}


def named(home: Home) -> str:
    """All locations that its records name."""
    with closing(sqlite3.connect(home.mlruns / "mlflow.db")) as database:
        rows = [row for table, column in PLACES for row in database.execute(f"SELECT {column} FROM {table}")]
    return "\n".join(str(value) for (value,) in rows)


def test_a_copy_is_refused_before_anything_is_written_or_deleted(
    copy: Home, home_of_nights: Home, tandem: Tandem, config: Path, tmp_path: Path
) -> None:
    before, own = contents(home_of_nights), contents(copy)
    maintain = tmp_path / "maintain.yaml"
    maintain.write_text("depth: 1\ndays: 0\n")
    for command in (
        ["remove", "docs", 1],
        ["reindex", config],
        ["maintain", maintain, "--apply"],
        ["collect", "docs", "--keep", 1],
        ["rollback", "docs"],
        ["search", "docs", "tea"],
        ["doctor"],
        ["up"],
    ):
        said = tandem(*command)
        assert (said.status, f"{REFUSED} {home_of_nights.root}, " in said.err) == (1, True), command
    assert (contents(home_of_nights), contents(copy)) == (before, own)


def test_a_relocated_copy_answers_as_before_and_lives_by_itself(
    copy: Home, home_of_nights: Home, tandem: Tandem, config: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    before = contents(home_of_nights)
    use_home(home_of_nights, monkeypatch)
    answered, moves = tandem("search", "docs", "green tea", "--json").json, tandem("history", "docs").out
    use_home(copy, monkeypatch)
    said = tandem("relocate", "--json").json["done"]
    assert len(said) == 1
    assert said[0].endswith(f"and 3 manifests named {home_of_nights.root}, and name {copy.root} now")
    assert (tandem("relocate").out, services_file(copy).exists()) == ("Everything lies in this home.\n", False)
    assert (str(home_of_nights.root) in named(copy), home_of_nights.root.as_uri() in named(copy)) == (False, False)
    assert tandem("search", "docs", "green tea", "--json").json == answered
    assert tandem("history", "docs").out == moves
    assert tandem("remove", "docs", 1).status == 0
    assert tandem("reindex", config).status == 0
    assert examine(copy) == []
    use_home(home_of_nights, monkeypatch)
    assert contents(home_of_nights) == before
    assert examine(home_of_nights) == []


def test_a_home_that_was_moved_does_not_make_its_old_place_anew(
    copy: Home, home_of_nights: Home, tandem: Tandem, config: Path
) -> None:
    shutil.rmtree(home_of_nights.root)
    assert f"{REFUSED} {home_of_nights.root}, " in tandem("reindex", config).err
    assert tandem("relocate").status == 0
    assert tandem("reindex", config).status == 0
    assert [version.number for version in list_versions(connect(copy), "docs")] == [1, 2, 3, 4]
    assert examine(copy) == []
    assert not home_of_nights.root.exists()


def test_a_relocation_that_was_killed_is_refused_still_and_begins_anew(
    copy: Home, home_of_nights: Home, tandem: Tandem
) -> None:
    move_manifests(copy, home_of_nights.root)
    assert REFUSED in tandem("doctor").err
    assert len(relocate(copy)) == 1
    assert examine(copy) == []
