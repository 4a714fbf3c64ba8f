"""Registers what conf/deployments.yaml describes on the Prefect server. Safe to repeat.

What a person set in Prefect's page stays, unless the file has changed that very thing since it was deployed last.
"""

import os
from collections.abc import Sequence
from dataclasses import replace
from inspect import signature
from pathlib import Path
from typing import Any, cast

from prefect import Flow, get_client
from prefect.client.orchestration import SyncPrefectClient
from prefect.client.schemas.actions import DeploymentScheduleCreate, DeploymentUpdate
from prefect.client.schemas.responses import DeploymentResponse
from prefect.deployments.runner import RunnerDeployment
from prefect.exceptions import ObjectNotFound
from prefect.schedules import Cron

from tasks.automations import Installed, Prepared, install, prepare_automations
from tasks.config.deployments import Deployment, DeploymentsConfig
from tasks.config.loading import load_config
from tasks.deployed import (
    VARIABLE,
    Record,
    flatten,
    read_listed,
    read_record,
    read_written,
    say_kept,
    settle,
    unflatten,
)
from tasks.own_schedule import (
    ON,
    SCHEDULE,
    SLUG,
    find_older,
    find_own,
    follow_schedule,
    others,
    say_schedule,
    things_of_schedule,
)
from tasks.pools import LIMIT, POOL, POOL_LIMIT, create_pools, record_of
from tasks.recover import HEARTBEAT, RETRIES, WATCHED, tags_of

PASSED_ON = (
    "TANDEM_HOME",
    "TANDEM_CONF",
    "MLFLOW_TRACKING_URI",
    "PREFECT_HOME",
    "DO_NOT_TRACK",
    "MLFLOW_DISABLE_TELEMETRY",
)
"""Variables of this process that the runs on a worker need as well."""


DESCRIPTION, PARAMETERS = "description", "parameters."
"""Things of a deployment's record; of parameters, what their names begin with."""
NOT_UPDATED = {"storage", "name", "flow_name", "triggers", "version_type", "schedules", "paused"}


def deploy_all(config: DeploymentsConfig, root: Path, reset: bool = False) -> tuple[list[str], Installed]:
    """Create or update work pools, deployments and automations; `root` is the repository.

    Returns the full names of the deployments, and what became of the automations and of what people set in Prefect's
    page; with `reset` that is put back to what the files say. A mistake in a file is found before anything is changed.
    """
    deployments = prepare_all(config, root)
    return register(config, deployments, prepare_automations(config, deployments, root), reset)


def register(
    config: DeploymentsConfig,
    deployments: Sequence[RunnerDeployment],
    automations: list[Prepared] | None,
    reset: bool = False,
) -> tuple[list[str], Installed]:
    """What `deploy_all` does with what is prepared already."""
    kept = create_pools(config, reset)
    for deployment in deployments:
        kept += apply(deployment, reset)
    installed = install(automations, reset)
    return list(map(name_of, deployments)), replace(installed, kept=(*kept, *installed.kept))


def prepare_all(config: DeploymentsConfig, root: Path) -> list[RunnerDeployment]:
    """Import the flows and check their configurations; asks no server."""
    limits = {pool.name: pool.limit for pool in config.work_pools}
    return [prepare(deployment, config, limits.get(deployment.work_pool), root) for deployment in config.deployments]


def name_of(prepared: RunnerDeployment) -> str:
    """As ``flow/deployment``."""
    return f"{prepared.flow_name}/{prepared.name}"


def apply(prepared: RunnerDeployment, reset: bool = False) -> list[str]:
    """Create or update a deployment, whose work pool must be there.

    Returns what is kept as a person set it, as sentences; with `reset` nothing is.
    """
    name = name_of(prepared)
    with get_client(sync_client=True) as client:
        try:
            there = client.read_deployment_by_name(name)
        except ObjectNotFound:
            prepared.apply()
            return []
        return _update(client, there, prepared, reset)


def _update(client: SyncPrefectClient, there: DeploymentResponse, prepared: RunnerDeployment, reset: bool) -> list[str]:
    record = cast(Record, read_record(prepared.job_variables["env"]))
    last, file = record_of(there), record.things
    own = find_own(there) if last else find_older(there, file)
    server = _things_on(there) | things_of_schedule(own)
    # an older Tandem kept no record, and nothing tells who paused its schedule
    base = last.things if last else server | {name: file[name] for name in (ON,) if name in file}
    held, kept = (file, []) if reset else settle(base, file, server)
    _change(client, there, prepared, held)
    wanted = cast(DeploymentScheduleCreate | None, next(iter(prepared.schedules or ()), None))
    follow_schedule(client, there, own, wanted, held)
    name = name_of(prepared)
    told = say_kept(name, [thing for thing in kept if thing not in (LIMIT, POOL_LIMIT)], file, held)
    for schedule in others(there, own):
        if reset:
            client.delete_deployment_schedule(there.id, schedule.id)
        else:
            told.append(f"{name}: kept as added in Prefect: the schedule {say_schedule(schedule.schedule)}")
    if there.paused and not reset:
        told.append(f"{name}: kept as set in Prefect: it is paused")
    return told


def _things_on(there: DeploymentResponse) -> dict[str, Any]:
    """What the server has, without the schedule."""
    return {
        DESCRIPTION: there.description or "",
        POOL: there.work_pool_name,
        **flatten(there.parameters, PARAMETERS),
    }


def _change(
    client: SyncPrefectClient, there: DeploymentResponse, prepared: RunnerDeployment, held: dict[str, Any]
) -> None:
    """Everything but the schedules, and but what is switched on and off."""
    parameters = {name: value for name, value in held.items() if name.startswith(PARAMETERS)}
    theirs = [tag for tag in there.tags if tag != WATCHED and not tag.startswith(RETRIES)]
    assert prepared.storage
    values = prepared.model_dump(mode="json", exclude_unset=True, exclude=NOT_UPDATED) | {
        "description": held[DESCRIPTION],
        "parameters": unflatten(parameters).get("parameters", {}),
        "work_pool_name": held[POOL],
        "tags": [*prepared.tags, *theirs],
        "job_variables": _variables(there.job_variables or {}, prepared.job_variables),
        "pull_steps": [prepared.storage.to_pull_step()],
        "parameter_openapi_schema": prepared._parameter_openapi_schema.model_dump(exclude_unset=True),
    }
    client.update_deployment(there.id, DeploymentUpdate(**values))


def _variables(theirs: dict[str, Any], ours: dict[str, Any]) -> dict[str, Any]:
    """Ours, and what a person added to them."""
    environment = {name: value for name, value in (theirs.get("env") or {}).items() if name not in PASSED_ON}
    return theirs | ours | {"env": environment | ours["env"]}


def prepare(deployment: Deployment, config: DeploymentsConfig, pool_limit: int | None, root: Path) -> RunnerDeployment:
    """What the server is to know of a deployment."""
    timezone = config.timezone
    flow = cast(Flow[Any, Any], Flow.from_source(source=str(root), entrypoint=deployment.flow))
    file = root / deployment.config if deployment.config else None
    parameters = {"config": read_config(file, flow)} if file else {}
    schedule = None
    if deployment.cron:
        schedule = Cron(deployment.cron, timezone=timezone, active=not deployment.paused, slug=SLUG)
    record = Record(
        str(file or ""),
        read_written(file) if file else {},
        {
            DESCRIPTION: deployment.description or flow.description or "",
            POOL: deployment.work_pool,
            POOL_LIMIT: pool_limit,
            LIMIT: deployment.limit,
            **({SCHEDULE: f"{deployment.cron} {timezone}", ON: not deployment.paused} if deployment.cron else {}),
            **flatten(parameters, PARAMETERS),
        },
        str(config.file or ""),
        read_listed(config.file, deployment.flow, deployment.name) if config.file else {},
    )
    environment = {name: os.environ[name] for name in PASSED_ON if name in os.environ}
    environment |= {"PREFECT_FLOWS_HEARTBEAT_FREQUENCY": str(HEARTBEAT.seconds), VARIABLE: record.to_json()}
    prepared = flow.to_deployment(
        name=deployment.name,
        description=deployment.description or None,
        tags=tags_of(deployment.retry_crashed),
        work_pool_name=deployment.work_pool,
        schedule=schedule,
        parameters=parameters,
        job_variables={"env": environment},
        # A limit of the deployment itself would be leased: Prefect's server keeps leases in memory, and its restart
        # would end every run that holds one.
        work_queue_name=deployment.name if deployment.limit else "default",
    )
    return cast(RunnerDeployment, prepared)


def read_config(path: Path, flow: Flow[Any, Any]) -> dict[str, Any]:
    """What the file sets, checked by the flow's own model: a mistake shows now and not at night."""
    model = signature(flow.fn).parameters["config"].annotation
    return load_config(path, model).model_dump(mode="json", exclude_unset=True)
