"""One truth about health: whatever is wrong is said by `status`, `doctor`, the watcher, the report and `/readyz`."""

import shutil
from datetime import UTC, datetime, timedelta
from pathlib import Path

import pytest
import yaml
from prefect import get_client

from tasks.alerts import Alerts
from tasks.config.deployments import load_deployments
from tasks.config.health import read_health, write_health
from tasks.config.services import Service, write_services
from tasks.config.settings import Home
from tasks.deploy import deploy_all
from tasks.health import FREE, examine_health
from tasks.index.store import list_tables
from tasks.records import Trouble
from tasks.registry.connection import connect
from tasks.registry.versions import load_manifest
from tasks.report import report_health
from tests.command import Tandem
from tests.servers import free_port
from tests.waiting import wait_for

ROOT = Path(__file__).resolve().parents[1]
NOW = datetime(2026, 3, 1, 8, tzinfo=UTC)


def break_live_version(home: Home) -> str:
    """Its table is gone, which is said so."""
    table = load_manifest(connect(home), "docs", "champion")["table"]
    assert table in list_tables(home.lancedb)
    shutil.rmtree(home.lancedb / f"{table}.lance")
    return "docs: version 3 (champion): "


def end_worker(home: Home) -> str:
    write_services(home, {"worker-cpu": Service("worker-cpu", 2**22 - 1, 1.0)})
    return "the service worker-cpu is gone"


def fill_disk(home: Home, monkeypatch: pytest.MonkeyPatch) -> str:
    monkeypatch.setenv(FREE, "1000000")
    return f"less than 1e+06 GiB is free on the disk of {home.root}"


@pytest.mark.parametrize("fault", ["a version", "a service", "the disk"])
def test_what_is_wrong_is_said_everywhere(
    home_of_nights: Home, tandem: Tandem, monkeypatch: pytest.MonkeyPatch, fault: str
) -> None:
    home = home_of_nights
    assert (tandem("status").status, tandem("doctor").status) == (0, 0)
    assert (examine_health(home).troubles, report_health(home)) == ((), "")
    what = {
        "a version": lambda: break_live_version(home),
        "a service": lambda: end_worker(home),
        "the disk": lambda: fill_disk(home, monkeypatch),
    }[fault]()
    status, doctor = tandem("status"), tandem("doctor")
    assert (status.status, doctor.status) == (1, 1)
    assert what in status.out
    assert what in doctor.out
    Alerts(home).look(NOW)
    assert [what in said for said in read_health(home, NOW)] == [True]
    assert what in report_health(home)


def test_what_cannot_be_examined_is_wrong_itself(home_of_nights: Home, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("MLFLOW_TRACKING_URI", f"http://127.0.0.1:{free_port()}")
    [trouble] = examine_health(home_of_nights).troubles
    assert trouble.what.startswith("what is live cannot be examined: MLflow at http://127.0.0.1:")
    assert "does not answer: start it" in trouble.what
    assert trouble.remedy == "tandem doctor, once that is done"


def test_the_watcher_tells_a_trouble_once_and_that_it_is_over(
    home_of_nights: Home, monkeypatch: pytest.MonkeyPatch
) -> None:
    with get_client(sync_client=True) as client:
        monkeypatch.setenv("PREFECT_API_URL", str(client.api_url))
        alerts = Alerts(home_of_nights)
        with monkeypatch.context() as full:
            fill_disk(home_of_nights, full)
            alerts.look(NOW)
            alerts.look(NOW + timedelta(minutes=1))
        alerts.look(NOW + timedelta(seconds=90))  # too early
        alerts.look(NOW + timedelta(minutes=2))
        wanted = {"filter": {"event": {"name": ["tandem.health.found", "tandem.health.over"]}}}

        def told() -> list[str]:
            found = client.request("POST", "/events/filter", json=wanted).json()["events"]
            own = f"tandem.home.{home_of_nights.root}"
            return sorted(each["event"] for each in found if each["resource"]["prefect.resource.id"] == own)

        wait_for(lambda: told() == ["tandem.health.found", "tandem.health.over"], 30, lambda: str(told()))


def test_a_look_that_lies_far_back_is_wrong_itself(ready_home: Home) -> None:
    assert read_health(ready_home, NOW) == []  # no watcher has ever looked
    write_health(ready_home, [Trouble("the roof leaks", "mend it")], NOW)
    assert read_health(ready_home, NOW + timedelta(minutes=4)) == ["the roof leaks"]
    [said] = read_health(ready_home, NOW + timedelta(minutes=6))
    assert said.startswith("the watcher looked at the installation last at ")
    (ready_home.data / "health.json").write_text("[]")
    [said] = read_health(ready_home, NOW)
    assert "cannot be read" in said


def test_an_edit_of_the_list_of_deployments_is_told_until_it_is_deployed(
    prefect: None, ready_home: Home, monkeypatch: pytest.MonkeyPatch
) -> None:
    toy = {"name": "toy", "flow": "tests/toys.py:writes_down", "work_pool": "listed", "cron": "0 2 * * *"}
    file = ready_home.root / "deployments.yaml"

    def write(*deployments: dict[str, str]) -> None:
        file.write_text(yaml.safe_dump({"work_pools": [{"name": "listed"}], "deployments": list(deployments)}))

    def told() -> list[str]:
        return [each.what for each in examine_health(ready_home).troubles if str(file) in each.what]

    with get_client(sync_client=True) as client:
        monkeypatch.setenv("PREFECT_API_URL", str(client.api_url))
        write(toy)
        deploy_all(load_deployments(file), ROOT)
        assert told() == []
        write(toy | {"cron": "0 3 * * *"}, toy | {"name": "more"})
        says = "the deployment toy runs by what it said before"
        assert told() == [
            f"{file} was edited and not deployed (cron): {says}",
            f"{file} lists the deployment more, which was not deployed",
        ]
        deploy_all(load_deployments(file), ROOT)
        assert told() == []
        write(toy | {"cron": "0 3 * * *"})
        assert told() == [f"{file} lists the deployment more no more, and it is there all the same"]
        for name in ("toy", "more"):
            client.delete_deployment(client.read_deployment_by_name(f"writes-down/{name}").id)
