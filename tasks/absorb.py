"""Missed nights are made up by one run, not by many."""

from datetime import UTC, datetime

from prefect import get_client, runtime, task
from prefect.client.schemas.filters import (
    DeploymentFilter,
    DeploymentFilterId,
    FlowRunFilter,
    FlowRunFilterExpectedStartTime,
    FlowRunFilterState,
    FlowRunFilterStateType,
)
from prefect.client.schemas.objects import State, StateType
from prefect.states import Cancelled


@task(name="absorb missed nights")
def absorb_missed_nights(deployment_id: str) -> int:
    """Cancel this deployment's other runs that were due before now: this run does their work. Returns how many."""
    due = FlowRunFilter(
        expected_start_time=FlowRunFilterExpectedStartTime(before_=datetime.now(UTC)),
        state=FlowRunFilterState(type=FlowRunFilterStateType(any_=[StateType.SCHEDULED])),
    )
    deployment = DeploymentFilter(id=DeploymentFilterId(any_=[deployment_id]))
    with get_client(sync_client=True) as client:
        late = client.read_flow_runs(flow_run_filter=due, deployment_filter=deployment)
        for run in late:
            made_up: State[None] = Cancelled(message=f"Made up by {runtime.flow_run.name}, which started late")
            client.set_flow_run_state(run.id, made_up, force=True)
    return len(late)
