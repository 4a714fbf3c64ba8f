"""The night comes by itself, survives a restart of the server, and is missed where the scheduler fails."""

import json
import time
from collections.abc import Iterator
from datetime import UTC, datetime, timedelta
from pathlib import Path
from typing import Any

import psutil
import pytest
import yaml
from prefect import get_client
from prefect.client.schemas.filters import DeploymentFilter, DeploymentFilterName, FlowRunFilter, FlowRunFilterState
from prefect.client.schemas.objects import FlowRun

from tasks.config.deployments import DeploymentsConfig
from tasks.config.loading import load_config
from tasks.config.services import log_of, read_services, runs
from tasks.lock import model_lock
from tasks.registry.connection import connect
from tasks.registry.versions import list_versions
from tasks.schedules import examine_schedules
from tests.installation import Installation, ask_prefect, completed, history, installed, read, state, tandem
from tests.nights import config_over_facts
from tests.waiting import wait_for

ROOT = Path(__file__).resolve().parents[1]
pytestmark = [pytest.mark.long, pytest.mark.services, pytest.mark.timeout(900)]


@pytest.fixture(scope="module")
def here(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Installation]:
    """An index that is due every minute, and one that is due at two at night."""
    folder = tmp_path_factory.mktemp("nights")
    docs = config_over_facts(folder).model_dump(mode="json")
    deployments = []
    for name, cron in (("docs", "* * * * *"), ("held", "0 2 * * *")):
        file = folder / f"{name}.yaml"
        file.write_text(yaml.safe_dump(docs | {"name": name, "lock_minutes": 10}))
        night = {"name": name, "flow": "flows/reindex.py:reindex", "config": str(file), "cron": cron}
        deployments.append(night | {"retry_crashed": 1})
    with installed(folder, *deployments) as installation:
        yield installation


def versions(here: Installation, name: str) -> list[int]:
    with pytest.MonkeyPatch.context() as patch:
        patch.setenv("MLFLOW_TRACKING_URI", here.address("mlflow"))
        return [version.number for version in list_versions(connect(here.home), name)]


def runs_of(deployment: str, **which: Any) -> list[FlowRun]:
    with get_client(sync_client=True) as client:
        return client.read_flow_runs(
            deployment_filter=DeploymentFilter(name=DeploymentFilterName(any_=[deployment])),
            flow_run_filter=FlowRunFilter(state=FlowRunFilterState(**which)),
        )


def said(here: Installation, later: timedelta) -> str:
    """What is wrong with the schedules when this much time has passed."""
    url = f"{here.address('prefect')}/api"
    return "\n".join(issue.what for issue in examine_schedules(url, None, datetime.now(UTC) + later)[1])


def test_a_schedule_fires_and_the_night_runs_by_itself_to_its_end(here: Installation) -> None:
    wait_for(lambda: versions(here, "docs") == [1], 300, lambda: str(runs_of("docs")))
    wait_for(lambda: bool(runs_of("docs", type={"any_": ["COMPLETED"]})))
    assert all(run.auto_scheduled for run in runs_of("docs"))


def test_where_schedules_work_nothing_is_found_and_the_next_night_is_told(here: Installation) -> None:
    told = tandem(here.home, "status", "--json")
    rows = {row["deployment"]: row for row in json.loads(told.stdout)["schedules"]}
    assert rows["reindex/held"]["schedule"] == "0 2 * * *"
    assert datetime.fromisoformat(rows["reindex/held"]["next"]).hour == 2
    doctor = tandem(here.home, "doctor")
    assert (doctor.stdout, doctor.returncode) == ("Everything is in order.\n", 0)
    assert "held" not in said(here, timedelta(minutes=5))
    assert said(here, timedelta(0)) == ""


def test_a_restart_of_the_server_leaves_a_night_running_to_its_end(here: Installation) -> None:
    with model_lock(here.home.locks, "held", 0):  # the night waits for it
        run = here.start("reindex/held")
        wait_for(lambda: state(run) == "Running")
        details = read(run).state.state_details  # type: ignore[union-attr]
        assert details.deployment_concurrency_lease_id is None  # it would stand in the memory of the server alone
        here.end_supervisor()
        psutil.Process(here.pid("prefect")).kill()
        wait_for(lambda: not runs(read_services(here.home)["prefect"]))
        down = tandem(here.home, "doctor")
        assert "the service prefect is gone" in down.stdout
        assert tandem(here.home, "up", here.deployments).returncode == 0
        time.sleep(10)
        assert state(run) == "Running"
    wait_for(lambda: completed(run), 300, lambda: history(run))
    assert versions(here, "held") == [1]


def test_a_night_whose_process_was_killed_is_started_again_as_the_same_run(here: Installation) -> None:
    with model_lock(here.home.locks, "held", 0):
        run = here.start("reindex/held")
        wait_for(lambda: state(run) == "Running")
        for process in psutil.Process(here.pid("worker-cpu")).children(recursive=True):
            process.kill()
        wait_for(lambda: state(run) == "Crashed")
    wait_for(lambda: completed(run), 300, lambda: history(run))
    assert read(run).run_count == 2


def test_what_is_shipped_with_a_schedule_is_started_again_after_a_crash() -> None:
    shipped = load_config(ROOT / "conf" / "deployments.yaml", DeploymentsConfig).deployments
    scheduled = {each.name: each.retry_crashed for each in shipped if each.cron}
    assert {"reindex", "maintain", "monitor", "retrain"} == scheduled.keys()
    assert all(scheduled.values())


def test_a_scheduler_that_fails_is_found_and_its_errors_stand_in_the_log(here: Installation) -> None:
    """It fails as it did under SQLAlchemy 2.1: whenever it inserts a run."""
    ask_prefect(
        here.home,
        "CREATE FUNCTION refuse() RETURNS trigger LANGUAGE plpgsql AS "
        "$$ BEGIN RAISE EXCEPTION 'no schedule fires'; END $$",
    )
    ask_prefect(
        here.home,
        "CREATE TRIGGER refuse BEFORE INSERT ON flow_run FOR EACH ROW WHEN (NEW.auto_scheduled) "
        "EXECUTE FUNCTION refuse()",
    )
    scheduled = sorted(runs_of("held", name={"any_": ["Scheduled"]}), key=lambda run: str(run.expected_start_time))
    with get_client(sync_client=True) as client:
        for run in scheduled[1:]:
            client.delete_flow_run(run.id)
    assert "reindex/held (0 2 * * *): Prefect's scheduler has scheduled nothing" in said(here, timedelta(minutes=5))
    assert tandem(here.home, "deploy", here.deployments).returncode == 0  # takes the scheduled runs away
    log = log_of(here.home, "prefect")
    wait_for(lambda: "no schedule fires" in log.read_text(), 120)
    doctor = tandem(here.home, "doctor")
    assert doctor.returncode == 1
    assert "the pass of Prefect's scheduler at" in doctor.stdout
    status = json.loads(tandem(here.home, "status", "--json").stdout)
    assert next(row["errors"] for row in status["services"] if row["name"] == "prefect") > 0
    soon, later = said(here, timedelta(minutes=5)), said(here, timedelta(days=2))
    for name in ("docs (* * * * *)", "held (0 2 * * *)"):
        assert f"reindex/{name}: the schedule is active, and no run is scheduled" in soon
    assert "reindex/held (0 2 * * *): the run due at" in later
    assert "is missing" in later
