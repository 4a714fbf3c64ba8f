"""What is pressed in Prefect's page while runs write: nothing is lost, though the page does not try again."""

import threading
from collections.abc import Iterator
from contextvars import copy_context
from pathlib import Path
from uuid import UUID

import httpx
import pytest
from prefect import get_client
from prefect.client.orchestration import SyncPrefectClient
from prefect.client.schemas.actions import LogCreate
from prefect.client.schemas.responses import DeploymentResponse
from prefect.states import Completed, Pending, Running
from prefect.types._datetime import now

from tasks import postgres
from tasks.config.settings import Home
from tests.installation import Installation, installed, tandem

pytestmark = [pytest.mark.long, pytest.mark.services, pytest.mark.timeout(600)]
PRESSES, WRITERS = 100, 4
TOY = {"name": "toy", "flow": "tests/toys.py:sleeps_once", "limit": None, "cron": "0 2 * * *"}


@pytest.fixture(scope="module")
def here(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Installation]:
    with installed(tmp_path_factory.mktemp("presses"), TOY) as installation:
        yield installation


def write(deployment: UUID, stop: threading.Event, failed: list[str]) -> None:
    """Runs with their states and logs, as those of a worker, until it is told to stop."""
    with get_client(sync_client=True) as client:
        while not stop.is_set():
            try:
                _one_run(client, deployment)
            except Exception as error:
                failed.append(repr(error))


def _one_run(client: SyncPrefectClient, deployment: UUID) -> None:
    run = client.create_flow_run_from_deployment(deployment, parameters={"folder": "nowhere"}, state=Pending())
    client.set_flow_run_state(run.id, Running())
    lines = [LogCreate(name="x", level=20, message=f"line {n}", timestamp=now(), flow_run_id=run.id) for n in range(20)]
    client.request("POST", "/logs/", json=[line.model_dump(mode="json") for line in lines])
    client.set_flow_run_state(run.id, Completed())


def press(server: str, deployment: DeploymentResponse, times: int) -> list[int]:
    """Switch the schedule off and on as the page does, which tries once; what was answered."""
    url = f"{server}/deployments/{deployment.id}/schedules/{deployment.schedules[0].id}"
    with httpx.Client(timeout=60) as page:
        return [_answer(page, url, {"active": bool(n % 2)}) for n in range(times)]


def _answer(page: httpx.Client, url: str, switch: dict[str, bool]) -> int:
    try:
        return page.patch(url, json=switch).status_code
    except httpx.HTTPError:
        return 0


def test_no_press_is_lost_while_runs_write(here: Installation) -> None:
    stop, failed = threading.Event(), list[str]()
    with get_client(sync_client=True) as client:
        deployment = client.read_deployment_by_name("sleeps-once/toy")
    writers = [
        threading.Thread(target=copy_context().run, args=(write, deployment.id, stop, failed), daemon=True)
        for _ in range(WRITERS)
    ]
    for writer in writers:
        writer.start()
    answers = press(f"{here.address('prefect')}/api", deployment, PRESSES)
    stop.set()
    for writer in writers:
        writer.join()
    assert answers == [204] * PRESSES
    assert failed == []


def test_where_postgresql_cannot_start_prefect_runs_on_sqlite_which_is_said_and_found(tmp_path: Path) -> None:
    spoilt = postgres.folder_of(Home(tmp_path / "home"))
    spoilt.mkdir(mode=0o700, parents=True)
    (spoilt / "PG_VERSION").write_text("9.6")
    with installed(tmp_path, TOY) as there:
        assert "PostgreSQL cannot start" in there.said
        assert "could not access the server configuration file" in there.said
        told = tandem(there.home, "status")
        assert "Prefect runs on SQLite, where presses in its page may be lost" in told.stdout
        assert (there.home.data / "prefect" / "prefect.db").exists()
