"""Deployments on a real Prefect server, run by a real worker process."""

import os
import subprocess
import sys
import time
from collections.abc import Callable, Iterator
from datetime import UTC, datetime, timedelta
from pathlib import Path
from uuid import UUID

import pytest
import yaml
from prefect import get_client
from prefect.client.schemas.objects import FlowRun, StateType
from prefect.client.schemas.schedules import CronSchedule
from prefect.settings import PREFECT_API_URL
from prefect.states import Scheduled

from tasks.config.deployments import DeploymentsConfig
from tasks.config.index import ReindexConfig
from tasks.config.settings import Home
from tasks.deploy import deploy_all
from tasks.registry.connection import connect
from tasks.registry.versions import list_versions
from tests.nights import write_facts

pytestmark = pytest.mark.usefixtures("prefect")
ROOT = Path(__file__).resolve().parents[1]


@pytest.fixture
def deployed(ready_home: Home, configure: Callable[..., ReindexConfig], site: Path, tmp_path: Path) -> str:
    """The re-index of four pages as a deployment at two o'clock in Berlin."""
    write_facts(site)
    file = tmp_path / "docs.yaml"
    file.write_text(yaml.safe_dump(configure().model_dump(mode="json")))
    config = DeploymentsConfig.model_validate(
        {
            "timezone": "Europe/Berlin",
            "work_pools": [{"name": "tests"}],
            "deployments": [
                {
                    "name": "reindex",
                    "flow": "flows/reindex.py:reindex",
                    "config": str(file),
                    "cron": "0 2 * * *",
                    "work_pool": "tests",
                }
            ],
        }
    )
    (name,) = deploy_all(config, ROOT)
    assert deploy_all(config, ROOT) == [name]  # safe to repeat
    return name


@pytest.fixture
def worker(deployed: str, tmp_path: Path) -> Iterator[None]:
    environment = os.environ | {"PREFECT_API_URL": PREFECT_API_URL.value(), "PREFECT_WORKER_QUERY_SECONDS": "1"}
    command = [str(Path(sys.executable).with_name("prefect")), "worker", "start", "--pool", "tests"]
    with (tmp_path / "worker.log").open("w") as log:
        process = subprocess.Popen(command, env=environment, cwd=tmp_path, stdout=log, stderr=log)
        yield
        process.terminate()
        process.wait(60)


def test_the_reindex_is_scheduled_at_two_at_night_in_the_configured_time_zone(deployed: str) -> None:
    with get_client(sync_client=True) as client:
        deployment = client.read_deployment_by_name(deployed)
    (schedule,) = deployment.schedules
    assert isinstance(schedule.schedule, CronSchedule)
    assert (schedule.schedule.cron, schedule.schedule.timezone) == ("0 2 * * *", "Europe/Berlin")
    form = deployment.parameter_openapi_schema
    assert form
    assert set(form["properties"]) == {"config", "allow_deletions"}
    assert form["definitions"]["SourceConfig"]["properties"]["location"]["description"]


def test_missed_nights_are_made_up_by_one_run_of_the_worker(deployed: str, worker: None, ready_home: Home) -> None:
    now = datetime.now(UTC)
    with get_client(sync_client=True) as client:
        deployment = client.read_deployment_by_name(deployed)
        missed = [
            client.create_flow_run_from_deployment(
                deployment.id, state=Scheduled(scheduled_time=now - timedelta(days=days, minutes=1))
            ).id
            for days in (2, 1, 0)
        ]
    runs = _wait_until_final(missed)
    ends = sorted(run.state_type.value for run in runs if run.state_type)
    assert ends == ["CANCELLED", "CANCELLED", "COMPLETED"]
    assert len(list_versions(connect(ready_home), "docs")) == 1
    done = next(run for run in runs if run.state_type == StateType.COMPLETED)
    assert done.name == "re-index docs"
    assert any("Made up by" in (run.state.message or "") for run in runs if run.state)


def _wait_until_final(ids: list[UUID]) -> list[FlowRun]:
    deadline = time.monotonic() + 120
    while time.monotonic() < deadline:
        with get_client(sync_client=True) as client:
            runs = [client.read_flow_run(id) for id in ids]
        if all(run.state and run.state.is_final() for run in runs):
            return runs
        time.sleep(1)
    raise AssertionError([(run.name, run.state) for run in runs])
