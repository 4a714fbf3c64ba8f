"""`tandem up` and `down` as a person meets them, and runs on its workers that are killed or cancelled."""

import json
import os
import subprocess
import sys
import time
import urllib.request
from collections.abc import Iterator
from dataclasses import dataclass
from datetime import UTC, datetime, timedelta
from pathlib import Path
from typing import Any
from uuid import UUID

import psutil
import pytest
from prefect import get_client

from tasks import postgres
from tasks.config.services import Service, read_services, runs, use_services, write_services
from tasks.config.settings import Home
from tasks.processes import MARK
from tasks.recover import SETTLED
from tasks.services import down
from tests.installation import (
    Installation,
    ask_prefect,
    cancel,
    heartbeats,
    history,
    installed,
    lives,
    read,
    state,
    tandem,
    write_deployments,
)
from tests.servers import free_port
from tests.waiting import wait_for

pytestmark = [pytest.mark.long, pytest.mark.services, pytest.mark.timeout(900)]
NAMES = {"postgres", "mlflow", "prefect", "worker-cpu", "worker-gpu", "watcher", "supervisor"}


def started_by(home: Home) -> list[psutil.Process]:
    """All processes that carry the home's mark."""
    found = []
    for process in psutil.process_iter():
        try:
            if process.environ().get(MARK, "").startswith(f"{home.root}#") and process.status() != psutil.STATUS_ZOMBIE:
                found.append(process)
        except psutil.Error:
            continue
    return found


def toy(flow: str, **settings: object) -> dict[str, Any]:
    return {"name": "toy", "flow": f"tests/toys.py:{flow}", "limit": None} | settings


def start(here: Installation, deployment: str, folder: Path) -> UUID:
    """Start a toy, which writes down in the folder what it does."""
    folder.mkdir()
    return here.start(deployment, folder=str(folder))


@pytest.fixture(scope="module")
def here(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Installation]:
    toys = (
        toy("dies_once", retry_crashed=2, cron="0 2 * * *", work_pool="gpu"),
        toy("dies_always", retry_crashed=1, work_pool="gpu"),
        toy("sleeps_once", retry_crashed=2),
        toy("sleeps_once", retry_crashed=2, work_pool="gpu", name="on-gpu"),
        toy("waits_for_child", work_pool="gpu"),
    )
    with installed(tmp_path_factory.mktemp("services"), *toys) as installation:
        yield installation


@dataclass(frozen=True)
class Lost:
    """Runs that crashed, all at the beginning, because the server lets a minute pass before it starts one again.

    Those that kill themselves have a worker of their own: the other's end could meet them in their second attempt.
    """

    folder: Path
    dies_once: UUID
    dies_always: UUID
    run: UUID
    """Its worker was killed, with all that the worker had started."""
    conditions: dict[str, str]
    """What `tandem status` said of every service after that."""

    def attempts(self, run: str) -> list[list[str]]:
        """Flow run and process of every attempt of it."""
        return [file.read_text().split() for file in sorted((self.folder / run).iterdir())]


@pytest.fixture(scope="module")
def lost(here: Installation, tmp_path_factory: pytest.TempPathFactory) -> Lost:
    folder = tmp_path_factory.mktemp("lost")
    dies_once = start(here, "dies-once/toy", folder / "once")
    dies_always = start(here, "dies-always/toy", folder / "always")
    wait_for(lambda: state(dies_once) == state(dies_always) == "Crashed")
    run = start(here, "sleeps-once/toy", folder / "run")
    wait_for((folder / "run" / "attempt-1").exists)
    wait_for(lambda: bool(heartbeats(run)))
    here.end_supervisor()
    worker = psutil.Process(here.pid("worker-cpu"))
    for process in [*worker.children(recursive=True), worker]:
        process.kill()
    wait_for(lambda: not runs(read_services(here.home)["worker-cpu"]))
    said = json.loads(tandem(here.home, "status", "--json").stdout)
    return Lost(folder, dies_once, dies_always, run, {row["name"]: row["condition"] for row in said["services"]})


def test_everything_answers_when_up_returns(here: Installation) -> None:
    assert {row["name"]: row["condition"] for row in here.first["services"]} == dict.fromkeys(NAMES, "running")
    health = {"mlflow": "/health", "prefect": "/api/health"}
    for name, service in read_services(here.home).items():
        if name in health:
            assert urllib.request.urlopen(service.address + health[name], timeout=10).status == 200
    with get_client(sync_client=True) as client:
        assert len(client.read_deployment_by_name("dies-once/toy").schedules) == 1
        assert {pool.name: pool.concurrency_limit for pool in client.read_work_pools()} == {"cpu": None, "gpu": 1}


def test_other_commands_use_the_running_servers_and_what_is_set_stays(
    here: Installation, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("MLFLOW_TRACKING_URI", "restored at the end")  # what is not set now would not be taken back
    monkeypatch.delenv("MLFLOW_TRACKING_URI")
    monkeypatch.setenv("PREFECT_API_URL", "http://elsewhere/api")
    use_services(here.home)
    assert os.environ["MLFLOW_TRACKING_URI"] == read_services(here.home)["mlflow"].address
    assert os.environ["PREFECT_API_URL"] == "http://elsewhere/api"


def test_a_second_up_starts_only_what_is_missing_and_where_it_was(here: Installation, lost: Lost) -> None:
    assert lost.conditions == dict.fromkeys(NAMES, "running") | {"worker-cpu": "gone", "supervisor": "gone"}
    psutil.Process(here.pid("mlflow")).kill()
    before = read_services(here.home)
    again = tandem(here.home, "up", here.deployments, "--json")
    assert again.returncode == 0, again.stderr
    after = read_services(here.home)
    assert {name for name in NAMES if after[name] != before[name]} == {"mlflow", "worker-cpu", "supervisor"}
    assert after["mlflow"].port == before["mlflow"].port


def test_one_run_at_a_time_on_the_gpu_and_a_cancelled_one_makes_room_within_ten_seconds(
    here: Installation, tmp_path: Path
) -> None:
    first, second = (start(here, "waits-for-child/toy", tmp_path / name) for name in ("first", "second"))
    ran = tmp_path / "first"
    wait_for(lambda: any((tmp_path / name / "attempt-1").exists() for name in ("first", "second")))
    if not (ran / "attempt-1").exists():
        first, second, ran = second, first, tmp_path / "second"
    waits = tmp_path / ("second" if ran.name == "first" else "first")
    time.sleep(5)  # the worker looks every second
    assert not (waits / "attempt-1").exists()
    pids = [int((ran / "attempt-1").read_text().split()[1]), int((ran / "child").read_text())]
    assert all(psutil.pid_exists(pid) for pid in pids)
    began = time.monotonic()
    cancel(first)
    wait_for(lambda: not any(lives(pid) for pid in pids), 10)
    print(f"cancelled in {time.monotonic() - began:.1f} s")
    wait_for((waits / "attempt-1").exists)
    cancel(second)
    wait_for(lambda: {state(first), state(second)} == {"Cancelled"})


def test_a_run_that_kills_itself_goes_on_as_the_same_run(lost: Lost) -> None:
    wait_for(lambda: state(lost.dies_once) == "Completed", 360, lambda: history(lost.dies_once))
    first, second = lost.attempts("once")
    assert first[0] == second[0] == str(lost.dies_once)
    assert first[1] != second[1]


def test_a_run_whose_worker_was_killed_goes_on_as_the_same_run_on_the_next_worker(lost: Lost) -> None:
    wait_for(lambda: state(lost.run) == "Completed", 480, lambda: history(lost.run))
    assert [run for run, _ in lost.attempts("run")] == [str(lost.run)] * 2


def test_up_on_a_taken_port_says_so_and_starts_nothing(here: Installation, tmp_path: Path) -> None:
    other, taken = Home(tmp_path / "other"), read_services(here.home)["mlflow"].port
    said = tandem(other, "up", here.deployments, "--mlflow-port", taken, "--prefect-port", free_port())
    assert said.returncode == 1
    assert f"port {taken}, meant for mlflow" in said.stderr
    assert not started_by(other)


def test_a_running_server_is_not_moved(here: Installation) -> None:
    said = tandem(here.home, "up", here.deployments, "--prefect-port", free_port())
    assert said.returncode == 2
    assert "tandem down" in said.stderr


def test_an_up_that_fails_half_way_leaves_nothing_and_disturbs_no_other_home(
    here: Installation, tmp_path: Path
) -> None:
    other, before = Home(tmp_path / "other"), read_services(here.home)
    wrong = write_deployments(tmp_path, toy("no_such_flow"))
    said = tandem(other, "up", wrong, "--mlflow-port", free_port(), "--prefect-port", free_port())
    assert said.returncode != 0
    assert "no_such_flow" in said.stderr
    assert not started_by(other)
    assert read_services(other) == {}
    assert read_services(here.home) == before
    assert all(runs(service) for service in before.values())


def test_a_run_that_always_crashes_is_started_again_once_if_it_says_so(here: Installation, lost: Lost) -> None:
    def crashed_twice() -> bool:
        return len(lost.attempts("always")) == 2 and state(lost.dies_always) == "Crashed"

    wait_for(crashed_twice, 360, lambda: history(lost.dies_always))
    crashed = read(lost.dies_always).state.timestamp  # type: ignore[union-attr]
    wait_for(lambda: datetime.now(UTC) - crashed > SETTLED + timedelta(seconds=15), 240)
    assert len(lost.attempts("always")) == 2


def test_down_ends_all_and_what_it_interrupted_goes_on_after_the_next_up(here: Installation, tmp_path: Path) -> None:
    orphan = start(here, "sleeps-once/toy", tmp_path / "orphan")
    asked = start(here, "sleeps-once/on-gpu", tmp_path / "asked")
    attempts = [tmp_path / name / "attempt-1" for name in ("orphan", "asked")]
    wait_for(lambda: all(attempt.exists() for attempt in attempts))
    here.end_supervisor()
    psutil.Process(here.pid("worker-cpu")).kill()
    assert lives(int(attempts[0].read_text().split()[1]))  # nobody watches it any more
    wait_for(lambda: bool(heartbeats(orphan)))
    said = tandem(here.home, "down", "--json")
    assert set(json.loads(said.stdout)["ended"]) == NAMES - {"worker-cpu", "supervisor"}
    assert not started_by(here.home)
    assert read_services(here.home) == {}
    assert tandem(here.home, "down").stdout == "Nothing was running.\n"
    _let_a_night_pass(here.home)
    assert tandem(here.home, "up", here.deployments).returncode == 0
    assert read_services(here.home)["prefect"].address == here.address("prefect")
    wait_for(lambda: state(orphan) == state(asked) == "Completed", 480)


def test_down_leaves_a_process_alone_that_was_given_the_pid_of_a_service(home: Home) -> None:
    stranger = subprocess.Popen([sys.executable, "-c", "import time; time.sleep(600)"])
    try:
        started = psutil.Process(stranger.pid).create_time()
        write_services(home, {"mlflow": Service("mlflow", stranger.pid, started - 3600, 5000)})
        assert down(home) == []
        assert stranger.poll() is None
    finally:
        stranger.kill()
        stranger.wait()


def test_a_process_that_nobody_reaped_does_not_run() -> None:
    child = subprocess.Popen([sys.executable, "-c", ""])
    started = psutil.Process(child.pid).create_time()
    wait_for(lambda: psutil.Process(child.pid).status() == psutil.STATUS_ZOMBIE)
    assert not runs(Service("worker-cpu", child.pid, started))
    child.wait()


def _let_a_night_pass(home: Home) -> None:
    """What the server knows of happened yesterday."""
    with postgres.running(postgres.folder_of(home)):
        for table, column in (("flow_run_state", "timestamp"), ("events", "occurred")):
            ask_prefect(home, f"UPDATE {table} SET {column} = {column} - interval '1 day'")
