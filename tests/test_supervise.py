"""What is gone is started again, what always ends is given up and told; records outlive power cuts, logs stay small."""

import json
import os
from collections.abc import Iterator
from datetime import UTC, datetime, timedelta
from pathlib import Path

import psutil
import pytest

from tasks import postgres
from tasks.config.services import Service, keep_ports, log_of, read_ports, read_services, runs, services_file
from tasks.config.settings import Home
from tasks.logs import LOG_BYTES, read_errors, rotate
from tasks.programs import SUPERVISOR, start, start_supervisor
from tasks.services import condition, down, examine_services
from tests.installation import ask_prefect, tandem
from tests.waiting import wait_for


@pytest.fixture
def supervised(home: Home, monkeypatch: pytest.MonkeyPatch) -> Iterator[Home]:
    """A home with one service, the database, and its supervisor."""
    monkeypatch.setenv("PREFECT_HOME", str(home.data / "prefect"))
    services: dict[str, Service] = {}
    postgres.prepare(home)
    postgres.wait_until_ready(home, start(home, services, postgres.NAME))
    start_supervisor(home, services, os.environ)
    try:
        yield home
    finally:
        down(home)


def kill(home: Home) -> Service:
    """Kill the database; what its record said before."""
    service = read_services(home)[postgres.NAME]
    psutil.Process(service.pid).kill()
    return service


def test_a_service_that_is_killed_comes_back_with_what_it_knew_and_its_restart_is_told(supervised: Home) -> None:
    ask_prefect(supervised, "INSERT INTO flow (name) VALUES ('reindex')")
    before = kill(supervised)
    wait_for(lambda: read_services(supervised)[postgres.NAME].restarts == 1, 60)
    after = read_services(supervised)[postgres.NAME]
    assert after.pid != before.pid
    assert after.restarted > before.started
    wait_for(lambda: condition(read_services(supervised)[postgres.NAME]) == "running", 60)
    wait_for(lambda: "is gone: it is started again in 1 s" in log_of(supervised, SUPERVISOR).read_text(), 10)
    told = tandem(supervised, "status", "--json")
    assert {row["name"]: row["restarts"] for row in json.loads(told.stdout)["services"]} == {
        "postgres": 1,
        SUPERVISOR: 0,
    }
    assert told.returncode == 0


def test_a_service_that_ends_each_time_is_given_up_and_told_by_status_and_doctor(supervised: Home) -> None:
    (postgres.folder_of(supervised) / "PG_VERSION").write_text("9.6")
    kill(supervised)
    wait_for(lambda: read_services(supervised)[postgres.NAME].given_up, 150)
    told = tandem(supervised, "status")
    assert told.returncode == 1
    assert "given up" in told.stdout
    (found,) = examine_services(supervised)
    assert "the service postgres ended each time that it was started again, and is not started any more" in found.what
    assert str(log_of(supervised, postgres.NAME)) in found.what
    assert found.remedy == "tandem up"


def test_a_supervisor_that_is_gone_is_told(supervised: Home) -> None:
    psutil.Process(read_services(supervised)[SUPERVISOR].pid).kill()
    wait_for(lambda: not runs(read_services(supervised)[SUPERVISOR]), 10)
    assert tandem(supervised, "status").returncode == 1
    assert [found.what.partition(":")[0] for found in examine_services(supervised)] == [
        "the service supervisor is gone"
    ]


@pytest.mark.parametrize("left", ["", "[", '[{"name": "mlflow"}]', "[1]", "\0\0\0"])
def test_a_record_of_services_that_a_power_cut_spoilt_is_put_aside_and_told(home: Home, left: str) -> None:
    file = services_file(home)
    file.parent.mkdir(parents=True)
    file.write_text(left)
    told = tandem(home, "down")
    assert (told.returncode, told.stdout) == (0, "Nothing was running.\n")
    assert f"{file} cannot be read" in told.stderr
    assert "run `tandem up`" in told.stderr
    assert "Traceback" not in told.stderr
    assert file.with_suffix(".unreadable").read_text() == left


def test_the_record_of_services_is_on_the_disk_before_it_replaces_the_one_before(
    home: Home, monkeypatch: pytest.MonkeyPatch
) -> None:
    synced: list[str] = []
    real = os.fsync

    def note(number: int) -> None:
        synced.append(os.readlink(f"/proc/self/fd/{number}"))
        real(number)

    monkeypatch.setattr(os, "fsync", note)
    keep_ports(home, {"mlflow": Service("mlflow", 1, 1.0, 5001)})
    assert synced == [str(home.data / "ports.new"), str(home.data)]


def test_ports_are_kept_after_down(home: Home) -> None:
    keep_ports(home, {"mlflow": Service("mlflow", 1, 1.0, 5001), "watcher": Service("watcher", 2, 1.0)})
    down(home)
    assert read_ports(home) == {"mlflow": 5001}


def test_a_log_that_has_grown_begins_anew_while_its_service_writes_and_its_errors_are_still_read(
    tmp_path: Path,
) -> None:
    log = tmp_path / "prefect.log"
    line = f"{datetime.now():%Y-%m-%d %H:%M:%S} ERROR it failed\n"
    with log.open("ab") as service:
        for _ in range(4):
            service.write(line.encode() * (LOG_BYTES // len(line) + 1))
            service.flush()
            rotate(log)
        service.write(line.encode())
    assert log.read_text() == line
    assert sorted(path.name for path in tmp_path.iterdir()) == ["prefect.log", "prefect.log.1", "prefect.log.2"]
    assert len(list(read_errors(log, datetime.now(UTC) - timedelta(hours=1)))) > 1000
