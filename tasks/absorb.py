"""Missed nights are made up by one run, not by many."""

from datetime import UTC, datetime
from uuid import UUID

from prefect import get_client, runtime, task
from prefect.client.schemas.filters import (
    DeploymentFilter,
    DeploymentFilterId,
    FlowRunFilter,
    FlowRunFilterState,
    FlowRunFilterStateType,
)
from prefect.client.schemas.objects import FlowRun, State, StateType
from prefect.context import FlowRunContext
from prefect.states import Cancelled

WAITING = {"Late", "AwaitingConcurrencySlot"}


def own_deployment() -> UUID | None:
    """The deployment this flow run belongs to; read from the context, where `prefect.runtime` would ask the server."""
    context = FlowRunContext.get()
    return context.flow_run.deployment_id if context and context.flow_run else None


@task(name="absorb missed nights")
def absorb_missed_nights(deployment_id: UUID) -> int:
    """Cancel other runs of this deployment that are due and would do the same; returns how many.

    Runs that somebody started with other parameters, to allow deletions once, say, stay.
    """
    scheduled = FlowRunFilter(state=FlowRunFilterState(type=FlowRunFilterStateType(any_=[StateType.SCHEDULED])))
    deployment = DeploymentFilter(id=DeploymentFilterId(any_=[deployment_id]))
    with get_client(sync_client=True) as client:
        this = client.read_flow_run(UUID(runtime.flow_run.id))
        runs = client.read_flow_runs(flow_run_filter=scheduled, deployment_filter=deployment)
        due = [run for run in runs if run.parameters == this.parameters and _is_due(run)]
        for run in due:
            made_up: State[None] = Cancelled(message=f"Made up by the run {this.id} ({this.name})")
            client.set_flow_run_state(run.id, made_up, force=True)
    return len(due)


def _is_due(run: FlowRun) -> bool:
    waits = run.state is not None and run.state.name in WAITING
    return waits or (run.expected_start_time is not None and run.expected_start_time <= datetime.now(UTC))
