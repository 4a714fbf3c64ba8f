"""Looks whether the schedules on a Prefect server keep their promise: runs are scheduled, and the last one came.

Prefect's scheduler can fail at every pass while its server answers and its page looks well; then no night ever comes.
"""

from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from datetime import datetime, timedelta
from pathlib import Path
from typing import Any

import httpx
from prefect import get_client
from prefect.client.orchestration import SyncPrefectClient
from prefect.client.schemas.filters import (
    DeploymentFilter,
    DeploymentFilterId,
    DeploymentFilterTags,
    FlowRunFilter,
    FlowRunFilterExpectedStartTime,
)
from prefect.client.schemas.objects import DeploymentSchedule, FlowRun, StateType
from prefect.client.schemas.responses import DeploymentResponse
from prefect.client.schemas.sorting import FlowRunSort
from prefect.exceptions import PrefectException
from prefect.server.schemas.schedules import CronSchedule, IntervalSchedule, RRuleSchedule
from pydantic import TypeAdapter

from tasks.config.servers import reach
from tasks.logs import read_errors
from tasks.records import Trouble
from tasks.recover import PAGE, SILENCE, WATCHED, heard_after
from tasks.undeployed import find_undeployed

GRACE = timedelta(minutes=10)
"""How late a run may begin on a busy machine before it is missing."""
PASSES = 3
"""Passes of the scheduler that may go by before it counts as failed."""
LOOK_BACK = [timedelta(hours=1), timedelta(days=1), timedelta(days=8), timedelta(days=62), timedelta(days=731)]
"""How far back the last date of a schedule is searched for, step by step: one of every minute has many."""
DEFAULT_LOOP = timedelta(seconds=60)
"""Between two passes of a server that `tandem up` started."""
RECENT = 50
"""Runs of a deployment that are read to find its last one."""
RESTART = "restart the Prefect server (`tandem down`, then `tandem up`)"
RUN = "prefect deployment run"
PASS = "schedule_deployments", "schedule_recent_deployments"
"""How Prefect's server calls a pass of its scheduler in its log."""


@dataclass(frozen=True, slots=True)
class ScheduleState:
    """An active schedule of one of Tandem's deployments, and what is wrong with it."""

    deployment: str
    """As ``flow/deployment``."""
    schedule: str
    """Such as ``0 2 * * *``."""
    next: datetime | None
    """When its next run is due."""
    last: datetime | None
    """When the deployment's newest run was due."""
    ended: str
    """The state of that run."""
    issues: tuple[Trouble, ...]


@dataclass(frozen=True, slots=True)
class _Scheduler:
    """What the server is set to."""

    enabled: bool
    loop_seconds: float
    """Between two passes."""
    min_runs: int
    """Runs that a pass leaves of every schedule, at least."""
    min_scheduled_time: timedelta
    """How far ahead these reach, at least."""

    @property
    def patience(self) -> timedelta:
        return timedelta(seconds=PASSES * self.loop_seconds)


def read_schedules(client: SyncPrefectClient, now: datetime) -> list[ScheduleState]:
    """Every active schedule of Tandem's deployments on this server, as it is at this time."""
    scheduler = _read_scheduler(client)
    return [
        _examine(client, deployment, schedule, scheduler, now)
        for deployment in _read_deployments(client)
        for schedule in deployment.schedules
        if schedule.active and not deployment.paused
    ]


def examine_schedules(url: str, log: Path | None, now: datetime) -> tuple[list[ScheduleState], list[Trouble]]:
    """The schedules on the server that PREFECT_API_URL names, and every issue with them and their scheduler.

    `log` is that of a server which `tandem up` started.
    """
    try:
        reach(url)
        with get_client(sync_client=True) as client:
            schedules = read_schedules(client, now)
            undeployed = list(find_undeployed(_read_deployments(client)))
    except (OSError, httpx.HTTPError, PrefectException) as error:
        what = f"the Prefect server at {url} cannot be asked for its schedules: {error}"
        return [], [Trouble(what, "start it again, or unset PREFECT_API_URL")]
    failed = [] if log is None else list(failed_passes(log, now))
    return schedules, [*failed, *undeployed, *(issue for schedule in schedules for issue in schedule.issues)]


def failed_passes(log: Path, now: datetime) -> Iterator[Trouble]:
    """Whether the scheduler's last passes failed, by its server's log."""
    since = now - PASSES * DEFAULT_LOOP
    failed = [line for line in read_errors(log, since) if any(name in line.text for name in PASS)]
    if failed:
        yield Trouble(
            f"the pass of Prefect's scheduler at {_local(failed[-1].at)} failed: runs may not be scheduled",
            f"read {log}; {RESTART}",
        )


def _read_scheduler(client: SyncPrefectClient) -> _Scheduler:
    settings = client.request("GET", "/admin/settings").json()["server"]["services"]["scheduler"]
    return TypeAdapter(_Scheduler).validate_python({name: settings[name] for name in _Scheduler.__slots__})


def _read_deployments(client: SyncPrefectClient) -> list[DeploymentResponse]:
    ours = DeploymentFilter(tags=DeploymentFilterTags(all_=[WATCHED]))
    found: list[DeploymentResponse] = []
    while len(page := client.read_deployments(deployment_filter=ours, limit=PAGE, offset=len(found))) == PAGE:
        found += page
    return found + page


def _examine(
    client: SyncPrefectClient,
    deployment: DeploymentResponse,
    schedule: DeploymentSchedule,
    scheduler: _Scheduler,
    now: datetime,
) -> ScheduleState:
    since = now - scheduler.patience
    ahead = [
        run.expected_start_time
        for run in _read_runs(client, deployment, FlowRunSort.EXPECTED_START_TIME_ASC, after=since)
        if run.auto_scheduled and run.created_by and run.created_by.id == schedule.id and run.expected_start_time
    ]
    recent = _read_runs(client, deployment, FlowRunSort.EXPECTED_START_TIME_DESC, before=now)
    name = f"{client.read_flow(deployment.flow_id).name}/{deployment.name}"
    text = getattr(schedule.schedule, "cron", None) or str(schedule.schedule)
    issues = [
        *_upcoming(schedule, ahead, scheduler, now),
        *_lost(client, recent, now),
        *_last_run(name, deployment, schedule, recent, now),
    ]
    return ScheduleState(
        deployment=name,
        schedule=text,
        next=next((at for at in ahead if at > now), None),
        last=recent[0].expected_start_time if recent else None,
        ended=str(recent[0].state_name) if recent else "",
        issues=tuple(Trouble(f"{name} ({text}): {issue.what}", issue.remedy) for issue in issues),
    )


def _read_runs(
    client: SyncPrefectClient,
    deployment: DeploymentResponse,
    sort: FlowRunSort,
    after: datetime | None = None,
    before: datetime | None = None,
) -> list[FlowRun]:
    due = FlowRunFilterExpectedStartTime(after_=after, before_=before)
    return client.read_flow_runs(
        flow_run_filter=FlowRunFilter(expected_start_time=due),
        deployment_filter=DeploymentFilter(id=DeploymentFilterId(any_=[deployment.id])),
        sort=sort,
        limit=PAGE if after else RECENT,
    )


def _upcoming(
    schedule: DeploymentSchedule, ahead: Sequence[datetime], scheduler: _Scheduler, now: datetime
) -> Iterator[Trouble]:
    """Whether the scheduler has passed lately: a pass leaves enough runs, so too few show that there was none."""
    since = now - scheduler.patience
    if not scheduler.enabled:
        yield Trouble("Prefect's scheduler is switched off", "set PREFECT_SERVER_SERVICES_SCHEDULER_ENABLED=true")
    elif schedule.created and schedule.created > since:
        return
    elif not any(at > now for at in ahead):
        yield Trouble("the schedule is active, and no run is scheduled", RESTART)
    elif len(ahead) < scheduler.min_runs or ahead[-1] < since + scheduler.min_scheduled_time:
        yield Trouble(
            f"Prefect's scheduler has scheduled nothing for more than {scheduler.patience.seconds} s", RESTART
        )


def _lost(client: SyncPrefectClient, recent: Sequence[FlowRun], now: datetime) -> Iterator[Trouble]:
    """Runs whose process is gone, and that nobody marked as crashed: the next one may wait for them for ever."""
    for run in recent:
        running = run.state if run.state_type == StateType.RUNNING else None
        if running and now - running.timestamp > SILENCE and not heard_after(client, run, now - SILENCE):
            yield Trouble(
                f"the run {run.name} is Running, and nothing was heard of its process for {SILENCE.seconds} s",
                "let one `tandem watch` run for this server (`tandem up` starts it): it marks such a run as crashed",
            )


def _last_run(
    name: str, deployment: DeploymentResponse, schedule: DeploymentSchedule, recent: Sequence[FlowRun], now: datetime
) -> Iterator[Trouble]:
    """Whether the run that was due last came, and how it ended."""
    due = last_date(schedule.schedule, now - GRACE)
    if due is None or any(_is_at_work(run) for run in recent):
        return
    since = [run for run in recent if _began(run) >= due]
    types = [run.state_type for run in since]
    if StateType.COMPLETED in types:
        return
    if StateType.SCHEDULED in types:
        yield Trouble(
            f"the run due at {_local(due)} waits, and no worker takes it",
            f"start a worker of the work pool {deployment.work_pool_name}: `tandem up`, or `prefect worker start`",
        )
    elif ended := next((run for run in since if run.state_type in (StateType.FAILED, StateType.CRASHED)), None):
        said = ended.state.message if ended.state else ""
        yield Trouble(
            f"the last run, {ended.name}, ended as {ended.state_name}: {said}", f"see to it, then {RUN} {name}"
        )
    elif not since and (_is_older(schedule, due) or any(run.auto_scheduled for run in recent)):
        yield Trouble(f"the run due at {_local(due)} is missing", f"{RUN} {name}")


def last_date(schedule: Any, before: datetime) -> datetime | None:
    """The last date of a Prefect schedule before a time; None where it has none in two years."""
    kinds: tuple[type[Any], ...] = (CronSchedule, IntervalSchedule, RRuleSchedule)
    kind = next(kind for kind in kinds if kind.__name__ == type(schedule).__name__)
    server_side = kind(**schedule.model_dump())
    for back in LOOK_BACK:
        if dates := list(server_side._get_dates_generator(start=before - back, end=before)):
            return datetime.fromisoformat(dates[-1].isoformat())
    return None


def _is_at_work(run: FlowRun) -> bool:
    again = run.state_type == StateType.SCHEDULED and run.run_count > 0
    return again or run.state_type in (StateType.RUNNING, StateType.PENDING, StateType.CANCELLING, StateType.PAUSED)


def _began(run: FlowRun) -> datetime:
    """When it began, which may be later than it was due: a missed night is made up for in the morning."""
    return max(filter(None, (run.start_time, run.expected_start_time)))


def _is_older(schedule: DeploymentSchedule, moment: datetime) -> bool:
    return schedule.created is not None and schedule.created <= moment


def _local(moment: datetime) -> str:
    return f"{moment.astimezone():%Y-%m-%d %H:%M}"
