"""Registers what conf/deployments.yaml describes on the Prefect server. Safe to repeat."""

import os
from inspect import signature
from pathlib import Path
from typing import Any, cast

from prefect import Flow, get_client
from prefect.client.orchestration import SyncPrefectClient
from prefect.client.schemas.actions import WorkPoolCreate, WorkPoolUpdate
from prefect.deployments.runner import RunnerDeployment
from prefect.exceptions import ObjectAlreadyExists
from prefect.schedules import Cron
from prefect.workers.process import ProcessWorker

from tasks.automations import Installed, install, prepare_automations
from tasks.config.deployments import Deployment, DeploymentsConfig
from tasks.config.loading import load_config
from tasks.recover import HEARTBEAT, tags_of

PASSED_ON = (
    "TANDEM_HOME",
    "TANDEM_CONF",
    "MLFLOW_TRACKING_URI",
    "PREFECT_HOME",
    "DO_NOT_TRACK",
    "MLFLOW_DISABLE_TELEMETRY",
)
"""Variables of this process that the runs on a worker need as well."""


def deploy_all(config: DeploymentsConfig, root: Path) -> tuple[list[str], Installed]:
    """Create or update work pools, deployments and automations; `root` is the repository.

    Returns the full names of the deployments, and what became of the automations. A mistake in a file is found before
    anything is changed.
    """
    deployments = prepare_all(config, root)
    automations = prepare_automations(config, deployments, root)
    create_pools(config)
    return [apply(prepared) for prepared in deployments], install(automations)


def prepare_all(config: DeploymentsConfig, root: Path) -> list[RunnerDeployment]:
    """Import the flows and check their configurations; asks no server."""
    return [prepare(deployment, config.timezone, root) for deployment in config.deployments]


def apply(prepared: RunnerDeployment) -> str:
    """Create or update a deployment, whose work pool must be there. Returns its full name."""
    prepared.apply()
    return f"{prepared.flow_name}/{prepared.name}"


def create_pools(config: DeploymentsConfig) -> None:
    """Create the work pools and queues that are missing, and give the others their limits."""
    template = ProcessWorker.get_default_base_job_template()  # without it each worker would try to set it at first
    with get_client(sync_client=True) as client:
        for pool in config.work_pools:
            try:
                client.create_work_pool(
                    WorkPoolCreate(
                        name=pool.name, type="process", base_job_template=template, concurrency_limit=pool.limit
                    )
                )
            except ObjectAlreadyExists:
                client.update_work_pool(pool.name, WorkPoolUpdate(concurrency_limit=pool.limit))
        for deployment in config.deployments:
            if deployment.limit:
                _create_queue(client, deployment.work_pool, deployment.name, deployment.limit)


def _create_queue(client: SyncPrefectClient, pool: str, name: str, limit: int) -> None:
    try:
        client.create_work_queue(name, work_pool_name=pool, concurrency_limit=limit)
    except ObjectAlreadyExists:
        queue = client.read_work_queue_by_name(name, work_pool_name=pool)
        client.update_work_queue(queue.id, concurrency_limit=limit)


def prepare(deployment: Deployment, timezone: str, root: Path) -> RunnerDeployment:
    """What the server is to know of a deployment."""
    flow = cast(Flow[Any, Any], Flow.from_source(source=str(root), entrypoint=deployment.flow))
    environment = {name: os.environ[name] for name in PASSED_ON if name in os.environ}
    prepared = flow.to_deployment(
        name=deployment.name,
        description=deployment.description or None,
        tags=tags_of(deployment.retry_crashed),
        work_pool_name=deployment.work_pool,
        schedule=Cron(deployment.cron, timezone=timezone, active=not deployment.paused) if deployment.cron else None,
        parameters={"config": read_config(root / deployment.config, flow)} if deployment.config else None,
        job_variables={"env": environment | {"PREFECT_FLOWS_HEARTBEAT_FREQUENCY": str(HEARTBEAT.seconds)}},
        # A limit of the deployment itself would be leased: Prefect's server keeps leases in memory, and its restart
        # would end every run that holds one.
        work_queue_name=deployment.name if deployment.limit else "default",
    )
    return cast(RunnerDeployment, prepared)


def read_config(path: Path, flow: Flow[Any, Any]) -> dict[str, Any]:
    """What the file sets, checked by the flow's own model: a mistake shows now and not at night."""
    model = signature(flow.fn).parameters["config"].annotation
    return load_config(path, model).model_dump(mode="json", exclude_unset=True)
