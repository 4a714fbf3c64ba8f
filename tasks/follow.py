"""Starts the release that follows where a part of it moved: by a night, by a rollback, or by hand in MLflow's UI.

It compares what is live with what the newest release was made of, so that no move is missed, whoever made it.
"""

import json
import logging
from hashlib import sha256
from typing import Any

from prefect.client.orchestration import SyncPrefectClient
from prefect.client.schemas.filters import DeploymentFilter, DeploymentFilterTags, FlowFilter, FlowFilterName
from prefect.client.schemas.responses import DeploymentResponse
from pydantic import ValidationError

from tasks.config.answering import ReleaseConfig
from tasks.config.settings import Home
from tasks.errors import ConfigError, RegistryError
from tasks.recover import WATCHED
from tasks.registry.connection import MlflowClient, connect
from tasks.registry.versions import PART_TAG, newest_tags, pin

log = logging.getLogger(__name__)
FLOW = "release"


def start_followers(client: SyncPrefectClient, home: Home, known: set[str]) -> None:
    """Start every deployed release that would be made of other versions than its newest one; each of these once.

    The server knows what was started before; `known` holds what this process need not ask it again.

    Raises RegistryError where MLflow does not answer, ConfigError where a deployment's settings are of another Tandem.
    """
    mlflow = connect(home)
    releases = client.read_deployments(
        flow_filter=FlowFilter(name=FlowFilterName(any_=[FLOW])),
        deployment_filter=DeploymentFilter(tags=DeploymentFilterTags(all_=[WATCHED])),
    )
    for deployment in releases:
        if set_up := deployment.parameters.get("config"):
            _follow(client, mlflow, deployment, _config_of(deployment.name, set_up), known)


def _follow(
    client: SyncPrefectClient,
    mlflow: MlflowClient,
    deployment: DeploymentResponse,
    config: ReleaseConfig,
    known: set[str],
) -> None:
    newest = newest_tags(mlflow, config.name)
    wanted = _live_parts(mlflow, config)
    if not wanted or all(newest.get(f"{PART_TAG}{kind}") == part for kind, part in wanted.items()):
        return
    # one that fails makes no version, and is not started again before something changes
    state = json.dumps([str(deployment.id), sorted(newest.items()), sorted(wanted.items())])
    key = sha256(state.encode()).hexdigest()
    if key in known:
        return
    run = client.create_flow_run_from_deployment(deployment.id, idempotency_key=key)
    known.add(key)
    log.info("%s is made of %s by the run %s", config.name, ", ".join(wanted.values()), run.id)


def _config_of(name: str, set_up: Any) -> ReleaseConfig:
    try:
        return ReleaseConfig.model_validate(set_up)
    except ValidationError as error:
        raise ConfigError(f"the deployment {FLOW}/{name} cannot follow its parts: {error}") from None


def _live_parts(mlflow: MlflowClient, config: ReleaseConfig) -> dict[str, str]:
    """The versions that it would be made of now, of parts that are registered; empty where one is not there yet."""
    named = {"index": config.index, "adapter": config.adapter, "prompt": config.prompt}
    try:
        return {kind: pin(mlflow, name) for kind, name in named.items() if name and "@" in name}
    except RegistryError:
        return {}
