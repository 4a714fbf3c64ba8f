"""Bad input and broken surroundings: a sentence that says what to do, an exit status, and nothing lost."""

import os
import subprocess
import sys
import time
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import lancedb
import pytest
from mlflow import MlflowClient

from tasks import prepare
from tasks.config.index import EmbedderConfig
from tasks.config.settings import Home
from tasks.documents import folder
from tasks.health import FREE
from tasks.index.cache import VectorCache
from tasks.index.embedding import embedder_fingerprint
from tasks.index.store import FORMAT, IndexStore, chunk_schema
from tasks.registry.connection import connect
from tasks.registry.pointers import pointers
from tasks.registry.runs import running
from tasks.registry.versions import list_versions
from tests.command import Said, Tandem, site_of_nights, three_nights, write_config
from tests.homes import copy_home, use_home
from tests.nights import golden_for_facts, page, write_facts
from tests.servers import free_port, mlflow_server, stop

pytestmark = pytest.mark.usefixtures("prefect")
BIN = Path(sys.executable).parent
TEA = "how long does green tea steep"
PATIENCE = 90
"""Seconds. MLflow's own retries take minutes."""


@pytest.fixture
def home(home_of_nights: Home) -> Home:
    return home_of_nights


def assert_is_a_sentence(said: Said, status: int, *parts: str) -> None:
    assert (said.status, said.out) == (status, ""), said
    assert said.err.startswith("tandem: ")
    assert "Traceback" not in said.err
    for part in parts:
        assert part in said.err


BAD_LINE = '{"query": "one", "relevant": ["docs/tea.md"]}\n\n{"query": "two", "relevnt": ["docs/tea.md"]}\n'
UNKNOWN_DOCUMENT = '{"query": "one", "relevant": ["docs/tee.md"]}\n'
NO_MODEL = {"kind": "sentence-transformers", "model": "/no/such/model"}
BAD: dict[str, tuple[dict[str, Any], int, list[str]]] = {
    "unknown key": (
        {"chunking": {"max_token": 9}},
        2,
        ["docs.yaml", "max_token: unknown key; did you mean max_tokens?"],
    ),
    "no such source": (
        {"sources": [{"name": "more", "location": "/no/such/folder"}]},
        2,
        ["source more: /no/such/folder does not exist; correct `location` in the configuration"],
    ),
    "no such source beside a good one": (
        {"sources": [{"name": "docs", "location": "SITE"}, {"name": "more", "location": "/no/such/folder"}]},
        2,
        ["source more: /no/such/folder does not exist; correct `location` in the configuration"],
    ),
    "no golden file": ({"golden": "/no/such/file"}, 2, ["/no/such/file cannot be read", "tandem golden draft"]),
    "malformed golden line": ({"golden": BAD_LINE}, 2, ["line 3: unknown key 'relevnt' (did you mean 'relevant'?)"]),
    "golden query for an unknown document": (
        {"golden": UNKNOWN_DOCUMENT},
        2,
        ["line 1: unknown document 'docs/tee.md' (did you mean 'docs/tea.md'?)"],
    ),
    "no such model": ({"embedder": NO_MODEL}, 1, ["/no/such/model is neither a folder here", "check the name"]),
    "no key for the endpoint": ({"embedder": {"kind": "openai"}}, 2, ["OPENAI_API_KEY is not set"]),
}


@pytest.mark.parametrize("name", BAD)
def test_bad_input_is_named_and_the_live_version_stays(
    tandem: Tandem, home: Home, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, name: str
) -> None:
    monkeypatch.delenv("OPENAI_API_KEY", raising=False)
    settings, status, parts = BAD[name]
    before = tandem("search", "docs", TEA, "--json").json
    assert_is_a_sentence(tandem("reindex", configuration(settings, tmp_path)), status, *parts)
    assert tandem("search", "docs", TEA, "--json").json == before
    assert len(list_versions(connect(home), "docs")) == 3
    assert running(connect(home), "docs") == []


def test_a_source_that_was_indexed_and_is_gone_holds_the_night_and_says_why(
    tandem: Tandem, home: Home, tmp_path: Path
) -> None:
    before = tandem("search", "docs", TEA, "--json").json
    config = write_config(tmp_path, {"sources": [{"name": "docs", "location": "/no/such/folder"}]})
    said = tandem("reindex", config, "--json")
    assert (said.status, said.json["decision"], said.json["live"]) == (1, "hold", 3)
    assert "/no/such/folder does not exist; correct `location`" in said.json["reasons"][0]
    assert tandem("search", "docs", TEA, "--json").json == before


def configuration(settings: dict[str, Any], folder: Path) -> Path:
    """Golden queries given as text become a file, and SITE the real site."""
    settings = dict(settings)
    if settings.get("golden", "").startswith("{"):
        file = folder / "golden.jsonl"
        file.write_text(settings["golden"])
        settings["golden"] = str(file)
    if len(settings.get("sources", [])) == 2:
        settings["sources"] = [settings["sources"][0] | {"location": str(site_of_nights())}, settings["sources"][1]]
    return write_config(folder, settings)


def test_the_exit_status_reaches_the_shell(home: Home, tmp_path: Path) -> None:
    config = write_config(tmp_path, {"nonsense": 1})
    done = subprocess.run([BIN / "tandem", "reindex", config], capture_output=True, text=True, check=False)
    assert (done.returncode, done.stdout) == (2, "")
    assert done.stderr.startswith(f"tandem: {config} is not a valid ReindexConfig:\n  nonsense: unknown key")


def test_a_table_written_by_a_newer_tandem_is_left_alone(tandem: Tandem, home: Home, tmp_path: Path) -> None:
    table = f"newer-{embedder_fingerprint(EmbedderConfig(), home)}"
    schema = chunk_schema(384).with_metadata({"tandem.format": str(FORMAT + 1)})
    written = lancedb.connect(home.lancedb).create_table(table, schema=schema)
    said = tandem("reindex", write_config(tmp_path, {"name": "newer"}))
    assert_is_a_sentence(said, 1, "was written by a newer Tandem", "upgrade Tandem")
    assert lancedb.connect(home.lancedb).open_table(table).version == written.version


@pytest.fixture
def small_disk(tmp_path: Path) -> Iterator[Path]:
    """A disk of a few megabytes."""
    folder = tmp_path / "disk"
    folder.mkdir()
    mount = ["mount", "-t", "tmpfs", "-o", "size=24m", "tmpfs", str(folder)]
    if os.geteuid() or subprocess.run(mount, capture_output=True, check=False).returncode:
        pytest.skip("only root may mount a small disk")
    yield folder
    subprocess.run(["umount", "--lazy", str(folder)], check=True)


@pytest.mark.parametrize(
    ("owner", "step"),
    [
        (folder, "_save"),
        (VectorCache, "add"),
        (prepare.pa.ipc, "new_stream"),
        (IndexStore, "replace"),
        (IndexStore, "maintain"),
        (IndexStore, "tag"),
        (MlflowClient, "create_model_version"),
    ],
    ids=lambda part: part if isinstance(part, str) else part.__name__,
)
def test_a_disk_that_is_full_at_some_step_is_a_sentence_and_loses_nothing(
    tandem: Tandem, small_disk: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, owner: Any, step: str
) -> None:
    home = copy_home(three_nights(), small_disk / "home")
    use_home(home, monkeypatch)
    monkeypatch.setenv(FREE, "0")  # the whole disk is smaller than what is asked for
    site = tmp_path / "site"
    write_facts(site)
    page(site, "room", " ".join(f"The room has {chair} chairs." for chair in range(100)))
    settings = {"golden": golden_for_facts(tmp_path), "gate": {"min_queries": 10, "max_loss": 1}}
    config = write_config(tmp_path, settings | {"sources": [{"name": "docs", "location": str(site)}]})
    before = tandem("search", "docs", TEA, "--json").json
    filler, original = small_disk / "filler", getattr(owner, step)

    def fill_first(*arguments: Any, **more: Any) -> Any:
        fill(filler)
        return original(*arguments, **more)

    with monkeypatch.context() as patch:
        patch.setattr(owner, step, fill_first)
        said = tandem("reindex", config)
    assert_is_a_sentence(said, 1, "free s")
    assert tandem("search", "docs", TEA, "--json").json == before
    filler.unlink()
    night = tandem("reindex", config, "--json").json
    assert (night["decision"], night["live"]) == ("promote", 4)
    assert running(connect(home), "docs") == []
    assert tandem("doctor").out == "Everything is in order.\n"


def fill(filler: Path) -> None:
    """Leave not a byte on the disk."""
    space = os.statvfs(filler.parent)
    if space.f_bavail:
        with filler.open("ab") as file:
            os.posix_fallocate(file.fileno(), file.tell(), space.f_bavail * space.f_bsize)


def test_an_mlflow_that_is_down_is_noticed_before_any_work(
    tandem: Tandem, home: Home, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("MLFLOW_TRACKING_URI", f"http://127.0.0.1:{free_port()}")
    began = time.monotonic()
    said = tandem("reindex", write_config(tmp_path, {}))
    assert_is_a_sentence(said, 1, "does not answer: start it, or check MLFLOW_TRACKING_URI")
    assert time.monotonic() - began < PATIENCE
    monkeypatch.delenv("MLFLOW_TRACKING_URI")
    assert tandem("search", "docs", TEA).status == 0


def test_an_mlflow_that_dies_half_way_costs_no_embedding(
    tandem: Tandem, home: Home, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    site = tmp_path / "site"
    write_facts(site)
    settings = {"sources": [{"name": "docs", "location": str(site)}], "golden": golden_for_facts(tmp_path)}
    config = write_config(tmp_path, settings | {"gate": {"min_queries": 10, "max_loss": 1}})
    port = free_port()
    monkeypatch.setenv("MLFLOW_TRACKING_URI", f"http://127.0.0.1:{port}")
    maintain = IndexStore.maintain

    def dying(*arguments: Any) -> Any:
        stop(server)
        return maintain(*arguments)

    with mlflow_server(tmp_path, port) as server:
        assert tandem("reindex", config).status == 0
        page(site, "museum", "The museum is closed on Mondays.")
        page(site, "theatre", "The theatre opens in October.")
        monkeypatch.setattr(IndexStore, "maintain", dying)
        began = time.monotonic()
        assert_is_a_sentence(tandem("reindex", config), 1, "does not answer: start it")
        assert time.monotonic() - began < PATIENCE
    monkeypatch.setattr(IndexStore, "maintain", maintain)
    with mlflow_server(tmp_path, port):
        client = connect(home)
        assert pointers(client, "docs").champion == 1
        assert "docs/ferry.md" in tandem("search", "docs", "when does the ferry leave", "-k", 1).out
        night = tandem("reindex", config, "--json").json
        assert (night["decision"], night["live"]) == ("promote", 2)
        assert night["counts"]["passages embedded"] == 0
        assert night["counts"]["passages in the index"] == 6
        assert running(client, "docs") == []
