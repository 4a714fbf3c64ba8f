"""What is said of the last run of a schedule, on a real Prefect server: runs in every state, made by hand."""

from collections.abc import Iterator
from datetime import UTC, datetime, timedelta
from pathlib import Path
from uuid import UUID

import pytest
from prefect import get_client
from prefect.client.orchestration import SyncPrefectClient
from prefect.client.schemas.objects import State
from prefect.client.schemas.schedules import CronSchedule, IntervalSchedule
from prefect.states import AwaitingRetry, Cancelled, Completed, Crashed, Failed, Pending, Running, Scheduled

from tasks.config.deployments import DeploymentsConfig
from tasks.deploy import deploy_all
from tasks.logs import read_errors
from tasks.schedules import GRACE, failed_passes, last_date, read_schedules

pytestmark = pytest.mark.usefixtures("prefect")
ROOT = Path(__file__).resolve().parents[1]
NOON = datetime.now(UTC).replace(hour=12, minute=0, second=0, microsecond=0)
DUE = NOON.replace(hour=2)


@pytest.fixture
def client() -> Iterator[SyncPrefectClient]:
    with get_client(sync_client=True) as client:
        yield client


@pytest.fixture
def deployment(client: SyncPrefectClient) -> Iterator[UUID]:
    """One that is due at two at night, in a work pool that has no worker."""
    toy = {"name": "toy", "flow": "tests/toys.py:dies_once", "work_pool": "nobody", "cron": "0 2 * * *"}
    (name,), _ = deploy_all(
        DeploymentsConfig.model_validate({"work_pools": [{"name": "nobody"}], "deployments": [toy]}), ROOT
    )
    made = client.read_deployment_by_name(name).id
    yield made
    client.delete_deployment(made)


def said(client: SyncPrefectClient, now: datetime) -> list[str]:
    """What is wrong with the last run; this server's scheduler is another matter."""
    issues = [issue for schedule in read_schedules(client, now) for issue in schedule.issues]
    return [issue.what for issue in issues if "schedule is active" not in issue.what and "scheduler" not in issue.what]


@pytest.mark.parametrize(
    ("states", "what"),
    [
        ([], "waits, and no worker takes it"),
        ([Pending(), Running(), Failed(message="no golden queries")], "ended as Failed: no golden queries"),
        ([Pending(), Running(), Crashed(message="its machine is gone")], "ended as Crashed: its machine is gone"),
        ([Pending(), Running()], "nothing was heard of its process"),
        ([Pending()], ""),
        ([Pending(), Running(), Completed()], ""),
        ([Pending(), Running(), Crashed(), AwaitingRetry()], ""),
        ([Cancelled()], ""),
    ],
)
def test_a_run_that_was_due_and_did_not_end_well_is_named(
    client: SyncPrefectClient, deployment: UUID, states: "list[State[None]]", what: str
) -> None:
    run = client.create_flow_run_from_deployment(
        deployment, parameters={"folder": "nowhere"}, state=Scheduled(scheduled_time=DUE + timedelta(days=1))
    )
    for each in states:
        client.set_flow_run_state(run.id, each, force=True)
    found = said(client, NOON + timedelta(days=1))
    assert len(found) == bool(what)
    assert not what or (found[0].startswith("dies-once/toy (0 2 * * *): ") and what in found[0])


def test_a_run_that_nobody_made_is_missing_after_a_while(client: SyncPrefectClient, deployment: UUID) -> None:
    due = DUE + timedelta(days=1)
    assert said(client, due + GRACE - timedelta(minutes=1)) == []
    [missing] = said(client, due + GRACE + timedelta(minutes=1))
    assert "is missing" in missing


def test_a_night_that_was_made_up_for_by_hand_is_not_missing(client: SyncPrefectClient, deployment: UUID) -> None:
    morning = Scheduled(scheduled_time=DUE + timedelta(days=1, hours=6))
    run = client.create_flow_run_from_deployment(deployment, parameters={"folder": "nowhere"}, state=morning)
    client.set_flow_run_state(run.id, Completed(), force=True)
    assert said(client, NOON + timedelta(days=1)) == []


def test_a_run_at_work_is_not_missed_and_not_lost(client: SyncPrefectClient, deployment: UUID) -> None:
    run = client.create_flow_run_from_deployment(deployment, parameters={"folder": "nowhere"})
    client.set_flow_run_state(run.id, Pending())
    client.set_flow_run_state(run.id, Running())
    assert said(client, datetime.now(UTC)) == []


def test_what_was_due_before_the_schedule_was_made_is_not_missing(client: SyncPrefectClient, deployment: UUID) -> None:
    assert said(client, datetime.now(UTC)) == []


def test_a_schedule_that_is_paused_promises_nothing(client: SyncPrefectClient, deployment: UUID) -> None:
    [schedule] = client.read_deployment(deployment).schedules
    client.update_deployment_schedule(deployment, schedule.id, active=False)
    assert read_schedules(client, NOON + timedelta(days=1)) == []


def test_deployments_of_others_are_left_alone(client: SyncPrefectClient, deployment: UUID) -> None:
    from prefect.client.schemas.actions import DeploymentUpdate

    client.update_deployment(deployment, DeploymentUpdate(tags=["theirs"]))
    assert read_schedules(client, NOON + timedelta(days=1)) == []


@pytest.mark.parametrize(
    ("schedule", "last"),
    [
        (CronSchedule(cron="* * * * *", timezone="UTC"), datetime(2026, 3, 1, 11, 59, tzinfo=UTC)),
        (CronSchedule(cron="0 2 * * *", timezone="Europe/Berlin"), datetime(2026, 3, 1, 1, 0, tzinfo=UTC)),
        (CronSchedule(cron="0 4 * * 0", timezone="UTC"), datetime(2026, 3, 1, 4, 0, tzinfo=UTC)),
        (CronSchedule(cron="0 3 15 1 *", timezone="UTC"), datetime(2026, 1, 15, 3, 0, tzinfo=UTC)),
        (
            IntervalSchedule(interval=timedelta(hours=5), anchor_date=datetime(2026, 3, 1, tzinfo=UTC)),
            datetime(2026, 3, 1, 10, 0, tzinfo=UTC),
        ),
    ],
)
def test_the_last_date_of_a_schedule_is_found_however_often_it_fires(schedule: object, last: datetime) -> None:
    found = last_date(schedule, datetime(2026, 3, 1, 11, 59, 30, tzinfo=UTC))
    assert found == last


def test_errors_are_read_from_logs_of_every_service_and_failed_passes_are_told_apart(tmp_path: Path) -> None:
    log, now = tmp_path / "prefect.log", datetime(2026, 3, 1, 12, 0).astimezone()
    log.write_text(
        "2026-03-01 09:00:00.001 | ERROR   | prefect.server - long ago\n"
        "2026-03-01 11:58:00.001 | WARNING | prefect.server - slow\n"
        "2026-03-01 11:58:30.564 | ERROR   | docket.dependencies - ↩ [ 1ms] schedule_deployments(){}\n"
        "Traceback (most recent call last):\n"
        "2026/03/01 11:59:00 ERROR mlflow.server: it broke\n"
        "2026-03-01 11:59:30,001 ERROR cannot follow\n"
    )
    texts = [error.text for error in read_errors(log, now - timedelta(hours=1))]
    assert texts == [
        "docket.dependencies - ↩ [ 1ms] schedule_deployments(){}",
        "mlflow.server: it broke",
        "cannot follow",
    ]
    [failed] = failed_passes(log, now)
    assert "11:58 failed" in failed.what
    assert list(failed_passes(log, now + timedelta(hours=1))) == []
    assert list(read_errors(tmp_path / "none.log", now)) == []
