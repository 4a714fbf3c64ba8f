"""Missed nights are made up by one run, not by many; and a run that was queued works by the configuration of now."""

from datetime import UTC, datetime
from typing import Any, TypeVar
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
from prefect.client.schemas.responses import DeploymentResponse
from prefect.context import FlowRunContext
from prefect.states import Cancelled
from pydantic import BaseModel

from tasks.config.loading import parse_config
from tasks.telling import warn
from tasks.undeployed import warn_if_undeployed

WAITING = {"Late", "AwaitingConcurrencySlot"}
BY_WATCHER = "tandem-follows"
"""Tag of the runs that the watcher starts."""
Config = TypeVar("Config", bound=BaseModel)


def own_deployment() -> UUID | None:
    """The deployment this flow run belongs to; read from the context, where `prefect.runtime` would ask the server."""
    context = FlowRunContext.get()
    return context.flow_run.deployment_id if context and context.flow_run else None


def current(config: Config) -> Config:
    """The configuration that this run is to work by.

    A run of a schedule, or of the watcher, holds the one of when it was made, and may have waited while another was
    deployed: it works by the deployment's of now. One that somebody started keeps what it was started with.
    """
    context = FlowRunContext.get()
    run = context.flow_run if context else None
    if not run or not run.deployment_id:
        return config
    warn_if_undeployed()
    if not _follows(run):
        return config
    with get_client(sync_client=True) as client:
        now = parameters_of(run, client.read_deployment(run.deployment_id)).get("config")
    if now is None or now == run.parameters.get("config"):
        return config
    warn("another configuration was deployed while this run waited: it works by that one")
    return parse_config(now, type(config), "the configuration of the deployment")


@task(name="absorb missed nights")
def absorb_missed_nights(deployment_id: UUID) -> int:
    """Cancel other runs of this deployment that are due and would do the same; returns how many.

    Runs that somebody started with other parameters, to allow deletions once, say, stay.
    """
    scheduled = FlowRunFilter(state=FlowRunFilterState(type=FlowRunFilterStateType(any_=[StateType.SCHEDULED])))
    ours = DeploymentFilter(id=DeploymentFilterId(any_=[deployment_id]))
    with get_client(sync_client=True) as client:
        deployment = client.read_deployment(deployment_id)
        this = client.read_flow_run(UUID(runtime.flow_run.id))
        runs = client.read_flow_runs(flow_run_filter=scheduled, deployment_filter=ours)
        does = parameters_of(this, deployment)
        due = [run for run in runs if parameters_of(run, deployment) == does and _is_due(run)]
        for run in due:
            made_up: State[None] = Cancelled(message=f"Made up by the run {this.id} ({this.name})")
            client.set_flow_run_state(run.id, made_up, force=True)
    return len(due)


def parameters_of(run: FlowRun, deployment: DeploymentResponse) -> dict[str, Any]:
    """What a run works by: of a schedule, the deployment's parameters of now with the schedule's own changes."""
    if not _follows(run):
        return run.parameters
    by = run.created_by.id if run.created_by else None
    changes = next((schedule.parameters for schedule in deployment.schedules if schedule.id == by), {})
    return deployment.parameters | changes


def _follows(run: FlowRun) -> bool:
    """Whether no person chose what it works by."""
    return run.auto_scheduled or BY_WATCHER in run.tags


def _is_due(run: FlowRun) -> bool:
    waits = run.state is not None and run.state.name in WAITING
    return waits or (run.expected_start_time is not None and run.expected_start_time <= datetime.now(UTC))
