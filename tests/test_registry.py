"""The registry: connection, runs, and versions that are registered whole or not at all."""

import json
import math
import os
import shutil
import socket
import sqlite3
import subprocess
import sys
import tempfile
import time
from collections.abc import Iterator
from pathlib import Path

import mlflow.pyfunc
import pytest
from mlflow import MlflowClient
from sqlalchemy import Engine, event

from tasks.config.settings import Home
from tasks.errors import RegistryError
from tasks.registry.connection import connect
from tasks.registry.ledger import history
from tasks.registry.pointers import delete_version, promote
from tasks.registry.runs import (
    PROCESS_TAG,
    close_abandoned,
    finish,
    log,
    read_metrics,
    read_text,
    start_run,
    system_metrics,
)
from tasks.registry.versions import (
    get,
    list_versions,
    load_manifest,
    next_number,
    register,
    resolve_champion,
)
from tests.registry_fixtures import ECHO, add_version, connected, empty_home, loads, write_echo
from tests.registry_killed import killed_homes
from tests.servers import free_port, mlflow_server, stop

REPOSITORY = Path(__file__).resolve().parents[1]
ME = {"by": "me", "reason": "because"}
PATIENCE = 30
"""Seconds. MLflow's own retries take minutes."""


@pytest.fixture
def client(home: Home) -> MlflowClient:
    return connected(home)


def test_two_first_uses_at_once_after_one_that_was_killed_make_one_database(home: Home) -> None:
    use = (
        "from tasks.config.settings import find_home\n"
        "from tasks.registry.connection import connect\n"
        "from tasks.registry.runs import start_run, finish\n"
        "client = connect(find_home())\n"
        "finish(client, start_run(client, 'reindex', 'night', 'docs'))\n"
    )
    command = [sys.executable, "-c", use]
    home.mlruns.mkdir()
    (home.mlruns / "mlflow.db.new").write_text("of a first use that was killed")
    both = [subprocess.Popen(command, cwd=home.root, env=os.environ | {"PYTHONPATH": str(REPOSITORY)}) for _ in "ab"]
    assert [process.wait(timeout=120) for process in both] == [0, 0]
    client = connect(home)
    experiment = client.get_experiment_by_name("reindex")
    assert experiment is not None
    assert len(client.search_runs([experiment.experiment_id])) == 2
    assert experiment.artifact_location == (home.mlruns / "artifacts" / "reindex").as_uri()
    assert sorted(path.name for path in home.root.iterdir()) == ["data", "mlruns"]


def test_a_server_that_is_down_is_named_at_once(home: Home, monkeypatch: pytest.MonkeyPatch) -> None:
    address = f"http://127.0.0.1:{free_port()}"
    monkeypatch.setenv("MLFLOW_TRACKING_URI", address)
    began = time.monotonic()
    with pytest.raises(RegistryError, match=f"MLflow at {address} does not answer: start it"):
        connect(home)
    assert time.monotonic() - began < PATIENCE


def test_a_folder_that_cannot_be_made_is_named(tmp_path: Path) -> None:
    (tmp_path / "file").write_text("")
    with pytest.raises(RegistryError, match=r"file/data"):
        connect(Home(tmp_path / "file"))


def test_a_database_that_is_none_is_named(home: Home) -> None:
    home.mlruns.mkdir()
    (home.mlruns / "mlflow.db").write_text("no database " * 1000)
    with pytest.raises(RegistryError, match=r"MLflow at sqlite:.*mlflow.db: .*not a database"):
        connect(home)


def test_a_full_disk_is_named(home: Home) -> None:
    def no_more_pages(connection: sqlite3.Connection, _: object) -> None:
        connection.execute("PRAGMA max_page_count = 1")  # SQLite's way to a disk that is full from now on

    def fill() -> None:
        for _ in range(100):
            start_run(client, "reindex", "night", "docs", {"long": "x" * 5000})

    empty_home()
    event.listen(Engine, "connect", no_more_pages)
    try:
        client = connected(home)
        with pytest.raises(RegistryError, match=r"the disk under MLflow \(sqlite.*\) is full: free some space"):
            fill()
    finally:
        event.remove(Engine, "connect", no_more_pages)


@pytest.fixture
def small_disk(tmp_path: Path) -> Iterator[Path]:
    """A disk with a page left on it."""
    folder = tmp_path / "disk"
    folder.mkdir()
    mounted = subprocess.run(["mount", "-t", "tmpfs", "-o", "size=100k", "tmpfs", str(folder)], capture_output=True)
    if mounted.returncode:
        pytest.skip("only root may mount a disk")
    (folder / "full").write_bytes(b"x" * 98_000)
    yield folder
    subprocess.run(["umount", str(folder)], check=True)


def test_a_full_disk_of_temporary_files_is_not_told_as_mlflow_s(
    ready_home: Home, small_disk: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    client = connect(ready_home)
    monkeypatch.setattr(tempfile, "tempdir", str(small_disk))
    with pytest.raises(RegistryError, match=rf"under the temporary files \({small_disk}, see TMPDIR\) is full"):
        add_version(client)


@pytest.fixture
def server(home: Home, monkeypatch: pytest.MonkeyPatch) -> Iterator[subprocess.Popen[bytes]]:
    """A real MLflow server on a free port, to which the home points."""
    home.mlruns.mkdir()
    with mlflow_server(home.mlruns, port := free_port()) as process:
        monkeypatch.setenv("MLFLOW_TRACKING_URI", f"http://127.0.0.1:{port}")
        yield process


def test_a_server_serves_like_the_embedded_database_until_it_dies(home: Home, server: subprocess.Popen[bytes]) -> None:
    client = connect(home)
    run_id = start_run(client, "reindex", "night", "docs")
    log(client, run_id, texts={"report.md": "# good"})
    assert read_text(client, run_id, "report.md") == "# good"
    add_version(client)
    move = promote(client, "docs", 1, **ME, prove=loads)
    champion = resolve_champion(client, "docs")
    assert champion == get(client, "docs", 1)
    assert (history(client, "docs"), load_manifest(client, "docs", "champion")) == ([move], {"number": 1})
    assert resolve_champion(client, "other") is None
    stop(server)
    began = time.monotonic()
    with pytest.raises(RegistryError, match=r"MLflow at http://127.0.0.1:\d+ does not answer: start it"):
        resolve_champion(client, "docs")
    assert time.monotonic() - began < PATIENCE
    with pytest.raises(RegistryError, match="does not answer"):
        log(client, run_id, texts={"more.md": "lost"})


def test_a_run_takes_more_than_one_batch_and_gives_it_back(client: MlflowClient, tmp_path: Path) -> None:
    (tmp_path / "scores.csv").write_text("query,score\n")
    run_id = start_run(client, "reindex", "night of 1 March", "docs", {"prefect": "http://x/1", "commit": 7})
    metrics = {f"metric {number}": number / 7 for number in range(205)}
    log(
        client,
        run_id,
        params={f"param {number}": number for number in range(105)},
        metrics=metrics | {"nothing": math.nan},
        tags={f"tag {number}": number for number in range(150)},
        texts={"report/night.md": "# größer"},
        files=[tmp_path / "scores.csv"],
    )
    finish(client, run_id)
    run = client.get_run(run_id)
    assert (run.info.status, run.info.run_name) == ("FINISHED", "night of 1 March")
    assert (len(run.data.params), run.data.tags["tag 149"], run.data.tags["commit"]) == (105, "149", "7")
    read = read_metrics(client, run_id)
    assert math.isnan(read.pop("nothing"))
    assert read == metrics
    assert read_text(client, run_id, "report/night.md") == "# größer"
    assert read_text(client, run_id, "scores.csv") == "query,score\n"


def test_while_a_run_computes_its_processors_memory_disk_and_network_are_measured(
    client: MlflowClient, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("MLFLOW_SYSTEM_METRICS_SAMPLING_INTERVAL", "0.2")
    run_id = start_run(client, "train", "training", "support")
    with system_metrics(client, run_id):
        time.sleep(1.5)
    measured = client.get_run(run_id).data.metrics
    assert 0 < measured["system/system_memory_usage_percentage"] <= 100
    assert {"system/cpu_utilization_percentage", "system/disk_usage_percentage"} <= measured.keys()


def test_abandoned_runs_of_the_model_are_closed_and_no_others(client: MlflowClient) -> None:
    gone = [start_run(client, experiment, "night", "docs") for experiment in ("reindex", "evaluate")]
    for run_id in gone:
        client.set_tag(run_id, PROCESS_TAG, f"{socket.gethostname()}#{os.getpid()} 0.0")  # the number was given again
    lives = start_run(client, "shadow", "by this process", "docs")
    done, other = start_run(client, "reindex", "night", "docs"), start_run(client, "reindex", "night", "web")
    finish(client, done, "FAILED")
    assert sorted(close_abandoned(client, "docs")) == sorted(gone)
    assert close_abandoned(client, "docs") == []
    statuses = [client.get_run(run_id).info.status for run_id in (*gone, lives, done, other)]
    assert statuses == ["KILLED", "KILLED", "RUNNING", "FAILED", "RUNNING"]
    assert "no process works" in client.get_run(gone[0]).data.tags["tandem.closed"]


def test_a_version_is_found_by_number_and_alias_with_its_manifest(client: MlflowClient) -> None:
    assert resolve_champion(client, "docs") is None
    first, second = add_version(client), add_version(client, tags={"verdict": "promote"}, description="good")
    assert resolve_champion(client, "docs") is None
    promote(client, "docs", 1, **ME, prove=loads)
    champion = resolve_champion(client, "docs")
    assert champion is not None
    assert (champion.number, champion.run_id, champion.aliases) == (1, first.run_id, ("champion",))
    assert list_versions(client, "docs") == [champion, second]
    assert [load_manifest(client, "docs", which)["number"] for which in ("champion", 2)] == [1, 2]
    assert client.get_model_version("docs", "2").tags == {"tandem.kind": "index", "verdict": "promote"}
    with pytest.raises(RegistryError, match="docs has no version 3: it has 1, 2"):
        get(client, "docs", 3)
    with pytest.raises(RegistryError, match="docs has no version candidate"):
        load_manifest(client, "docs", "candidate")


def test_the_number_of_a_deleted_version_is_never_given_again(client: MlflowClient) -> None:
    assert next_number(client, "docs") == 1
    for _ in range(3):
        add_version(client)
    delete_version(client, "docs", 3)
    assert next_number(client, "docs") == 4
    assert add_version(client).number == 4
    client.delete_model_version("docs", "4")  # by hand
    assert next_number(client, "docs") == 5
    assert add_version(client).number == 5


def test_a_version_that_got_another_number_than_its_manifest_says_is_taken_back(client: MlflowClient) -> None:
    add_version(client)
    client.create_model_version("docs", "file:///elsewhere")
    run_id = start_run(client, "reindex", "night", "docs")
    with pytest.raises(RegistryError, match="version number 3 instead of 2"):
        register(client, "docs", run_id, {}, kind="index", number=2, entry_point=ECHO, requirements=["tandem"])
    assert [version.number for version in list_versions(client, "docs")] == [1]
    assert add_version(client).number == 4


def test_artifacts_that_are_gone_are_a_clear_error(client: MlflowClient, home: Home) -> None:
    add_version(client)
    shutil.rmtree(home.mlruns / "artifacts")
    with pytest.raises(RegistryError, match="the manifest of docs version 1 cannot be read from file:"):
        load_manifest(client, "docs", 1)


def test_a_version_answers_as_pyfunc_in_a_process_elsewhere(client: MlflowClient, home: Home, tmp_path: Path) -> None:
    add_version(client, params={"k": int, "tenant": str})
    promote(client, "docs", 1, **ME, prove=loads)
    elsewhere = tmp_path / "elsewhere"
    elsewhere.mkdir()
    write_echo(tmp_path)
    ask = (
        "import json, mlflow.pyfunc\n"
        "model = mlflow.pyfunc.load_model('models:/docs@champion')\n"
        "plain, filtered = model.predict(['a', 'b']), model.predict(['c'], params={'k': 3, 'tenant': 'x'})\n"
        "print(json.dumps([plain, filtered]))\n"
    )
    environment = os.environ | {"PYTHONPATH": str(tmp_path), "MLFLOW_TRACKING_URI": home.tracking_uri}
    answer = subprocess.run(
        [sys.executable, "-c", ask],
        cwd=elsewhere,
        env=environment,
        capture_output=True,
        text=True,
        check=True,
    )
    of = {"number": 1}
    plain = [{"of": of, "text": "a"}, {"of": of, "text": "b"}]
    filtered = [{"of": of, "text": "c", "k": 3, "tenant": "x"}]
    assert json.loads(answer.stdout) == [plain, filtered]
    assert list(elsewhere.iterdir()) == []


def test_registering_that_is_killed_at_any_step_leaves_no_half_version(
    client: MlflowClient, home: Home, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    add_version(client)
    write_echo(tmp_path)
    monkeypatch.syspath_prepend(tmp_path)
    counts = []
    for copy in killed_homes(home, "register", tmp_path / "killed"):
        killed = connect(copy)
        versions = list_versions(killed, "docs")
        counts.append(len(versions))
        for version in versions:
            source = killed.get_model_version("docs", str(version.number)).source
            model = mlflow.pyfunc.load_model(source)
            assert model.predict(["q"]) == [{"of": {"number": version.number}, "text": "q"}]
        close_abandoned(killed, "docs")
        assert add_version(killed).number == len(versions) + 1
        experiments = [experiment.experiment_id for experiment in killed.search_experiments()]
        assert len(killed.search_runs(experiments, "attributes.status = 'RUNNING'")) == 0
    assert counts == sorted(counts)
    assert {1, 2} == set(counts)
