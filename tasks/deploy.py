"""Registers what conf/deployments.yaml describes on the Prefect server. Safe to repeat."""

import os
from datetime import timedelta
from inspect import signature
from pathlib import Path
from typing import Any, cast

from prefect import Flow, get_client
from prefect.client.schemas.actions import WorkPoolCreate, WorkPoolUpdate
from prefect.client.schemas.objects import ConcurrencyLimitConfig, ConcurrencyLimitStrategy, StateType
from prefect.deployments.runner import RunnerDeployment
from prefect.events.actions import ChangeFlowRunState
from prefect.events.schemas.automations import AutomationCore, EventTrigger, Posture
from prefect.events.schemas.events import ResourceSpecification
from prefect.exceptions import ObjectAlreadyExists
from prefect.schedules import Cron

from tasks.config.deployments import Deployment, DeploymentsConfig, WorkPool
from tasks.config.loading import load_config

PASSED_ON = (
    "TANDEM_HOME",
    "TANDEM_CONF",
    "MLFLOW_TRACKING_URI",
    "PREFECT_HOME",
    "DO_NOT_TRACK",
    "MLFLOW_DISABLE_TELEMETRY",
)
"""Variables of this process that the runs on a worker need as well."""
HEARTBEAT = timedelta(seconds=30)
"""How often a run says that it lives; Prefect allows no less."""
SILENCE = 3 * HEARTBEAT
START = timedelta(minutes=5)
"""How long a process may take from its start by a worker to its flow: on a busy machine, minutes of imports."""
SETTLED = timedelta(seconds=60)
"""How long a crash must be old before the run is started again: a worker reports a crash twice, the second time some
seconds later, and would end the new attempt by it."""
WATCHED = "tandem"
"""Tag of the runs that are watched: those whose heartbeats come as often as `SILENCE` expects."""


def deploy_all(config: DeploymentsConfig, root: Path) -> list[str]:
    """Create or update work pools and deployments; `root` is the repository. Returns their full names."""
    create_pools(config.work_pools)
    watch_for_silence()
    for retries in {deployment.retry_crashed for deployment in config.deployments} - {0}:
        retry_crashed(retries)
    return [deploy_one(deployment, config.timezone, root) for deployment in config.deployments]


def create_pools(pools: tuple[WorkPool, ...]) -> None:
    """Create the work pools that are missing, and give the others their limits."""
    with get_client(sync_client=True) as client:
        for pool in pools:
            try:
                client.create_work_pool(WorkPoolCreate(name=pool.name, type="process", concurrency_limit=pool.limit))
            except ObjectAlreadyExists:
                client.update_work_pool(pool.name, WorkPoolUpdate(concurrency_limit=pool.limit))


def watch_for_silence() -> None:
    """Let the server mark runs as crashed whose worker or machine is gone, so that nobody could say so."""
    begun = {"prefect.flow-run.heartbeat", "prefect.flow-run.Running"}
    mark_crashed(f"a run that is silent for {SILENCE.seconds} s has crashed", begun, SILENCE)
    mark_crashed(f"a run that does not begin within {START.seconds} s has crashed", {"prefect.flow-run.Pending"}, START)


def mark_crashed(name: str, after: set[str], within: timedelta) -> None:
    """A run has crashed that neither gives a sign of life nor ends within this time after one of these events."""
    signs = ("Pending", "Running", "heartbeat", "Completed", "Failed", "Cancelled", "Crashed")
    create_automation(
        f"Tandem: {name}",
        EventTrigger(
            after=after,
            expect={f"prefect.flow-run.{sign}" for sign in signs},
            match=ResourceSpecification({"prefect.resource.id": ["prefect.flow-run.*"]}),
            match_related=tagged(WATCHED),
            for_each={"prefect.resource.id"},
            posture=Posture.Proactive,
            threshold=1,
            within=within,
        ),
        ChangeFlowRunState(
            state=StateType.CRASHED, message=f"Nothing was heard of its process for {within.seconds} s."
        ),
    )


def retry_crashed(retries: int) -> None:
    """Let the server start runs with this many retries again when they crashed: the same flow run, on any worker.

    A run that never came as far as its flow is not started again: nothing would count its attempts.
    """
    counts = [str(count) for count in range(1, retries + 1)]
    create_automation(
        f"Tandem: start a crashed run again, at most {retries} times",
        EventTrigger(
            after={"prefect.flow-run.Crashed"},
            expect={"prefect.flow-run.Scheduled", "prefect.flow-run.AwaitingRetry"},  # by hand, in the meantime
            match=ResourceSpecification({"prefect.resource.id": ["prefect.flow-run.*"], "prefect.run-count": counts}),
            match_related=tagged(retry_tag(retries)),
            for_each={"prefect.resource.id"},
            posture=Posture.Proactive,
            threshold=1,
            within=SETTLED,
        ),
        ChangeFlowRunState(state=StateType.SCHEDULED, name="AwaitingRetry", message="Started again after a crash."),
    )


def retry_tag(retries: int) -> str:
    return f"retries-{retries}"


def tagged(tag: str) -> ResourceSpecification:
    return ResourceSpecification({"prefect.resource.id": [f"prefect.tag.{tag}"], "prefect.resource.role": ["tag"]})


def create_automation(name: str, trigger: EventTrigger, action: ChangeFlowRunState) -> None:
    """Unless it is there: a new one would forget which runs the old one was waiting for."""
    with get_client(sync_client=True) as client:
        if not client.read_automations_by_name(name):
            client.create_automation(AutomationCore(name=name, trigger=trigger, actions=[action]))


def deploy_one(deployment: Deployment, timezone: str, root: Path) -> str:
    flow = cast(Flow[Any, Any], Flow.from_source(source=str(root), entrypoint=deployment.flow))
    environment = {name: os.environ[name] for name in PASSED_ON if name in os.environ}
    retries = deployment.retry_crashed
    runner = flow.to_deployment(
        name=deployment.name,
        description=deployment.description or None,
        tags=[WATCHED, retry_tag(retries)] if retries else [WATCHED],
        work_pool_name=deployment.work_pool,
        schedule=Cron(deployment.cron, timezone=timezone) if deployment.cron else None,
        parameters={"config": read_config(root / deployment.config, flow)} if deployment.config else None,
        job_variables={"env": environment | {"PREFECT_FLOWS_HEARTBEAT_FREQUENCY": str(HEARTBEAT.seconds)}},
        # The slot is leased: where a machine goes down with its run, the next one need not wait for it.
        concurrency_limit=ConcurrencyLimitConfig(
            limit=deployment.limit, collision_strategy=ConcurrencyLimitStrategy.ENQUEUE
        )
        if deployment.limit
        else None,
    )
    cast(RunnerDeployment, runner).apply()
    return f"{flow.name}/{deployment.name}"


def read_config(path: Path, flow: Flow[Any, Any]) -> dict[str, Any]:
    """What the file sets, checked by the flow's own model: a mistake shows now and not at night."""
    model = signature(flow.fn).parameters["config"].annotation
    return load_config(path, model).model_dump(mode="json", exclude_unset=True)
