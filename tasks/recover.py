"""Recovers runs on a Prefect server: one whose process is gone has crashed, and a crashed one is started again.

It looks at states and listens to no events, as Prefect's automations do: on a busy server these were seen to act on one
crash five times, and on another not at all (Prefect 3.8.8).
"""

import logging
from datetime import datetime, timedelta
from itertools import count

from prefect.client.orchestration import SyncPrefectClient
from prefect.client.schemas.filters import (
    FlowRunFilter,
    FlowRunFilterEndTime,
    FlowRunFilterState,
    FlowRunFilterStateType,
    FlowRunFilterTags,
)
from prefect.client.schemas.objects import FlowRun, State, StateType
from prefect.states import AwaitingRetry, Cancelled, Crashed

log = logging.getLogger(__name__)

HEARTBEAT = timedelta(seconds=30)
"""How often a run says that it lives; Prefect allows no less."""
SILENCE = 3 * HEARTBEAT
START = timedelta(minutes=5)
"""How long a process may take from its start by a worker to its flow: on a busy machine, minutes of imports."""
SETTLED = timedelta(seconds=60)
"""How long a crash must be old before the run is started again: a worker reports a crash twice, the second time some
seconds later, and would end the new attempt by it."""
REMEMBERED = timedelta(days=7)
"""Runs that crashed longer ago stay as they are."""
DAY = timedelta(days=1)
PAGE = 200
"""Runs in one answer of the server, which gives no more."""
WATCHED = "tandem"
"""Tag of the runs that are watched: those whose heartbeats come as often as `SILENCE` expects."""
RETRIES = "retries-"
"""Begins the tag that says how often a crashed run is started again."""
RESTARTED = "Started again after a crash."
INTERRUPTED = "The services of Tandem were ended while it ran."
RESUMED = "Started again, because the services of Tandem had been ended while it ran."


def recover(client: SyncPrefectClient, since: datetime, now: datetime) -> None:
    """Start crashed runs again, and mark those as crashed that went silent and could be heard since `since`."""
    for run in read_watched(client, StateType.CRASHED, ended_after=now - REMEMBERED):
        if (was_interrupted(run) or _is_older(run, now, SETTLED)) and may_start_again(client, run):
            _set(client, run, AwaitingRetry(message=RESUMED if was_interrupted(run) else RESTARTED))
    for run in read_watched(client, StateType.PENDING, StateType.RUNNING, StateType.CANCELLING):
        patience = START if _type(run) == StateType.PENDING else SILENCE
        if _is_older(run, now, patience, since) and not heard_after(client, run, now - patience):
            message = f"Nothing was heard of its process for {patience.seconds} s."
            _set(client, run, (Cancelled if _type(run) == StateType.CANCELLING else Crashed)(message=message))


def may_start_again(client: SyncPrefectClient, run: FlowRun) -> bool:
    """Whether it was started again less often than its tag says, also where it never came as far as its flow.

    That its services were ended is no fault of its own, and counts for nothing.
    """
    retries = next((int(tag.removeprefix(RETRIES)) for tag in run.tags if tag.startswith(RETRIES)), 0)
    if was_interrupted(run) or not retries:
        return bool(retries)
    messages = [state.message for state in client.read_flow_run_states(run.id)]
    return run.run_count - messages.count(RESUMED) <= retries and messages.count(RESTARTED) < retries


def was_interrupted(run: FlowRun) -> bool:
    """Whether it ended with the services, of which nobody is left who could report its crash once more."""
    return run.state is not None and run.state.message == INTERRUPTED


def tags_of(retries: int) -> list[str]:
    """What marks the runs of a deployment as watched, and started again this often."""
    return [WATCHED, f"{RETRIES}{retries}"] if retries else [WATCHED]


def read_watched(client: SyncPrefectClient, *types: StateType, ended_after: datetime | None = None) -> list[FlowRun]:
    """The runs of Tandem's deployments that are in one of these states."""
    where = FlowRunFilter(
        tags=FlowRunFilterTags(all_=[WATCHED]),
        state=FlowRunFilterState(type=FlowRunFilterStateType(any_=list(types))),
        end_time=FlowRunFilterEndTime(after_=ended_after) if ended_after else None,
    )
    runs: list[FlowRun] = []
    for page in count():
        runs += client.read_flow_runs(flow_run_filter=where, limit=PAGE, offset=page * PAGE)
        if len(runs) < (page + 1) * PAGE:
            break
    return runs


def _type(run: FlowRun) -> StateType | None:
    return run.state.type if run.state else None


def _is_older(run: FlowRun, now: datetime, than: timedelta, since: datetime | None = None) -> bool:
    """Whether its state is; not counting what lies before `since`."""
    assert run.state
    return now - max(run.state.timestamp, since or run.state.timestamp) > than


def heard_after(client: SyncPrefectClient, run: FlowRun, moment: datetime) -> bool:
    """Whether its process said that it lives, by the server's clock: that of the run's machine may be wrong."""
    assert run.state
    where = {
        "event": {"name": ["prefect.flow-run.heartbeat"]},
        "resource": {"id": [f"prefect.flow-run.{run.id}"]},
        "occurred": {"since": str(run.state.timestamp - DAY), "until": str(moment + DAY)},
    }
    found = client.request("POST", "/events/filter", json={"filter": where, "limit": 1})
    return any(datetime.fromisoformat(event["received"]) > moment for event in found.json()["events"])


def _set(client: SyncPrefectClient, run: FlowRun, state: "State[None]") -> None:
    log.warning("%s (%s): %s %s", run.name, run.id, state.name, state.message)
    client.set_flow_run_state(run.id, state)
