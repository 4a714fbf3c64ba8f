"""What the watcher does, on a real Prefect server: what it makes of runs in every state, as if time had passed."""

import subprocess
import time
from collections.abc import Iterator
from datetime import UTC, datetime, timedelta
from pathlib import Path
from uuid import UUID, uuid4

import pytest
from prefect import get_client
from prefect.client.orchestration import SyncPrefectClient
from prefect.client.schemas.objects import State
from prefect.events import Event, Resource
from prefect.states import Cancelled, Cancelling, Completed, Crashed, Pending, Running

from tasks.close import close_ended
from tasks.config.deployments import DeploymentsConfig
from tasks.config.settings import Home
from tasks.deploy import deploy_all
from tasks.interrupted import RUN_OF, end_interrupted
from tasks.recover import INTERRUPTED, REMEMBERED, SETTLED, SILENCE, START, WATCHED, recover
from tasks.registry.connection import connect
from tasks.registry.runs import finish, start_run
from tasks.tracking import FLOW_RUN_TAG
from tests.installation import heartbeats, state, tandem
from tests.waiting import wait_for

pytestmark = pytest.mark.usefixtures("prefect")
ROOT = Path(__file__).resolve().parents[1]
SOON = timedelta(seconds=10)


@pytest.fixture
def client() -> Iterator[SyncPrefectClient]:
    with get_client(sync_client=True) as client:
        yield client


@pytest.fixture
def deployment(client: SyncPrefectClient) -> Iterator[UUID]:
    """One whose runs are started again twice."""
    toy = {"name": "toy", "flow": "tests/toys.py:dies_once", "work_pool": "watched", "limit": None, "retry_crashed": 2}
    (name,), _ = deploy_all(
        DeploymentsConfig.model_validate({"work_pools": [{"name": "watched"}], "deployments": [toy]}), ROOT
    )
    made = client.read_deployment_by_name(name).id
    yield made
    client.delete_deployment(made)


def create(client: SyncPrefectClient, deployment: UUID, *states: "State[None]") -> UUID:
    """A run that went through these states, by hand: no worker takes it."""
    run = client.create_flow_run_from_deployment(deployment, parameters={"folder": "nowhere"}).id
    for each in states:
        client.set_flow_run_state(run, each)
    return run


def look(client: SyncPrefectClient, after: timedelta, since: datetime | None = None) -> None:
    """Look when this much time has passed."""
    now = datetime.now(UTC)
    recover(client, since or now, now + after)


def beat(client: SyncPrefectClient, run: UUID, at: datetime) -> None:
    """Let the run say that it lives, by its machine's clock."""
    resource = Resource({"prefect.resource.id": f"prefect.flow-run.{run}"})
    event = Event(event="prefect.flow-run.heartbeat", resource=resource, occurred=at)
    client.request("POST", "/events", json=[event.model_dump(mode="json")])
    wait_for(lambda: bool(heartbeats(run)))


@pytest.mark.parametrize(
    ("states", "patience", "end"),
    [
        ([Pending()], START, "Crashed"),
        ([Pending(), Running()], SILENCE, "Crashed"),
        ([Pending(), Running(), Cancelling()], SILENCE, "Cancelled"),
    ],
)
def test_a_run_of_which_nothing_is_heard_has_ended(
    client: SyncPrefectClient, deployment: UUID, states: "list[State[None]]", patience: timedelta, end: str
) -> None:
    run = create(client, deployment, *states)
    look(client, patience - SOON)
    assert state(run) == states[-1].name
    look(client, patience + SOON)
    assert state(run) == end


@pytest.mark.parametrize("wrong", [timedelta(0), timedelta(minutes=-20)])
def test_a_run_that_says_that_it_lives_is_left_alone_whatever_the_clock_of_its_machine_says(
    client: SyncPrefectClient, deployment: UUID, wrong: timedelta
) -> None:
    run, began = create(client, deployment, Pending(), Running()), datetime.now(UTC)
    time.sleep(2)
    beat(client, run, datetime.now(UTC) + wrong)
    recover(client, began, began + SILENCE + timedelta(seconds=1))
    assert state(run) == "Running"
    look(client, SILENCE + SOON)
    assert state(run) == "Crashed"


def test_silence_while_nobody_listened_says_nothing(client: SyncPrefectClient, deployment: UUID) -> None:
    run = create(client, deployment, Pending(), Running())
    returned = datetime.now(UTC) + timedelta(hours=8)
    look(client, timedelta(hours=8) + SILENCE - SOON, since=returned)
    assert state(run) == "Running"
    look(client, timedelta(hours=8) + SILENCE + SOON, since=returned)
    assert state(run) == "Crashed"


def test_a_crashed_run_is_started_again_when_the_crash_has_settled_and_no_more_often_than_it_says(
    client: SyncPrefectClient, deployment: UUID
) -> None:
    run = create(client, deployment, Pending(), Running(), Crashed())
    look(client, SETTLED - SOON)
    assert state(run) == "Crashed"
    for attempt in ([Pending(), Running(), Crashed()], [Pending(), Crashed()]):  # the last never comes to its flow
        look(client, SETTLED + SOON)
        assert state(run) == "AwaitingRetry"
        look(client, SETTLED + SOON)
        for each in attempt:
            client.set_flow_run_state(run, each)
    look(client, SETTLED + SOON)
    assert state(run) == "Crashed"
    restarts = [each for each in client.read_flow_run_states(run) if each.name == "AwaitingRetry"]
    assert len(restarts) == 2


def test_runs_that_ended_with_the_services_are_started_again_at_once_and_that_counts_for_nothing(
    client: SyncPrefectClient, deployment: UUID
) -> None:
    run, cancelled = (
        create(client, deployment, Pending(), Running()),
        create(client, deployment, Pending(), Cancelling()),
    )
    lives = create(client, deployment, Pending(), Running())
    process = subprocess.Popen(["sleep", "600"], env={RUN_OF: str(lives)})
    try:
        end_interrupted(str(client.api_url), ["of other workers"])
        assert state(run) == "Running"
        for _ in range(4):  # more often than it has retries
            end_interrupted(str(client.api_url), ["watched"])
            assert (state(run), state(cancelled), state(lives)) == ("Crashed", "Cancelled", "Running")
            assert client.read_flow_run(run).state.message == INTERRUPTED  # type: ignore[union-attr]
            look(client, timedelta(0))
            assert state(run) == "AwaitingRetry"
            for each in (Pending(), Running()):
                client.set_flow_run_state(run, each)
    finally:
        process.kill()
        process.wait()
    client.set_flow_run_state(run, Crashed())
    look(client, SETTLED + SOON)
    assert state(run) == "AwaitingRetry"  # its own retries are all there


def test_a_run_without_retries_that_ended_with_the_services_stays_crashed(
    client: SyncPrefectClient, deployment: UUID
) -> None:
    run = create(client, deployment, Pending(), Running())
    client.update_flow_run(run, tags=[WATCHED])
    end_interrupted(str(client.api_url), ["watched"])
    look(client, SETTLED + SOON)
    assert state(run) == "Crashed"


def test_what_crashed_long_ago_or_ended_otherwise_stays_as_it_is(client: SyncPrefectClient, deployment: UUID) -> None:
    crashed = create(client, deployment, Pending(), Running(), Crashed())
    completed = create(client, deployment, Pending(), Running(), Completed())
    look(client, REMEMBERED + SOON)
    assert (state(crashed), state(completed)) == ("Crashed", "Completed")


def test_a_run_that_ended_after_it_was_looked_at_has_not_crashed(client: SyncPrefectClient, deployment: UUID) -> None:
    run = create(client, deployment, Pending(), Running(), Completed())
    client.set_flow_run_state(run, Crashed())  # what the watcher would do a moment too late
    assert state(run) == "Completed"


def test_the_mlflow_run_of_a_killed_run_is_closed_when_it_is_not_started_again(
    client: SyncPrefectClient, deployment: UUID, ready_home: Home
) -> None:
    """Of four that still say RUNNING, one crashed for the last time, one will be started again, two were ended."""
    mlflow = connect(ready_home)
    again = [Pending(), Running(), Crashed()]
    ends: list[list[State[None]]] = [again * 3, again, [Pending(), Running(), Cancelled()], [Pending(), Running()]]
    runs = [create(client, deployment, *states) for states in ends]
    closed, waiting, cancelled, running = (
        start_run(mlflow, "adapter-tiny", "run", "tiny", {FLOW_RUN_TAG: str(run)}) for run in runs
    )
    elsewhere = start_run(mlflow, "adapter-tiny", "run", "tiny", {FLOW_RUN_TAG: str(uuid4())})
    close_ended(client, ready_home, datetime.now(UTC))
    assert {mlflow.get_run(each).info.status for each in (closed, waiting, cancelled, running)} == {"RUNNING"}
    close_ended(client, ready_home, datetime.now(UTC) + SETTLED)
    status = [mlflow.get_run(each).info.status for each in (closed, waiting, cancelled, running, elsewhere)]
    assert status == ["FAILED", "RUNNING", "KILLED", "RUNNING", "RUNNING"]
    for each in (waiting, running, elsewhere):
        finish(mlflow, each)


def test_runs_that_are_not_tandems_are_left_alone(client: SyncPrefectClient, deployment: UUID) -> None:
    run = create(client, deployment, Pending(), Running())
    client.update_flow_run(run, tags=["somebody else's"])
    look(client, SILENCE + SOON)
    assert state(run) == "Running"


def test_without_a_server_to_watch_the_command_says_how_to_come_by_one(home: Home) -> None:
    said = tandem(home, "watch")
    assert said.returncode != 0
    assert said.stderr.startswith("tandem: there is no Prefect server to watch")
    assert "tandem up" in said.stderr
