"""Starts the release that follows where a part of it moved: by a night, by a rollback, or by hand in MLflow's UI.

It compares what is live with what the newest release was made of, so that no move is missed, whoever made it.
"""

import json
import logging
import time
from collections.abc import Sequence
from dataclasses import dataclass, field
from hashlib import sha256
from typing import Any

from prefect.client.orchestration import SyncPrefectClient
from prefect.client.schemas.filters import DeploymentFilter, DeploymentFilterTags, FlowFilter, FlowFilterName
from prefect.client.schemas.responses import DeploymentResponse
from pydantic import ValidationError

from tasks.absorb import BY_WATCHER
from tasks.config.answering import ReleaseConfig
from tasks.config.settings import Home
from tasks.errors import BusyError, ConfigError, RegistryError, TandemError
from tasks.put_back import put_back
from tasks.recover import WATCHED
from tasks.register import PUT_BACK, VERDICT_TAG
from tasks.registry.connection import MlflowClient, connect
from tasks.registry.versions import PART_TAG, newest_tags, pin

log = logging.getLogger(__name__)
FLOW = "release"
MOVE_SECONDS = 1.0
"""Between two looks at where the parts of releases stand."""


@dataclass(frozen=True, slots=True)
class Followed:
    """What the watcher did and saw since it was started."""

    started: set[str] = field(default_factory=set)
    """A key for each run that it started, of what was live then."""
    parts: dict[str, dict[str, str]] = field(default_factory=dict)
    """By release, the live versions of its parts at the last look."""


def start_followers(client: SyncPrefectClient, home: Home, followed: Followed) -> list[ReleaseConfig]:
    """Start every deployed release that would be made of other versions than its newest one; each of these once.

    Where a part went back to a version that was live before, a release with it is put back at once, and the run that is
    started examines it.
    Returns the deployed releases.

    The server knows what was started before; `followed` holds what this process need not ask it again.

    Raises RegistryError where MLflow does not answer, ConfigError where a deployment's settings are of another Tandem.
    """
    mlflow = connect(home)
    releases = client.read_deployments(
        flow_filter=FlowFilter(name=FlowFilterName(any_=[FLOW])),
        deployment_filter=DeploymentFilter(tags=DeploymentFilterTags(all_=[WATCHED])),
    )
    deployed = [
        (deployment, _config_of(deployment.name, set_up))
        for deployment in releases
        if (set_up := deployment.parameters.get("config"))
    ]
    for deployment, config in deployed:
        _follow(client, mlflow, deployment, config, home, followed)
    return [config for _, config in deployed]


def wait_for_a_move(home: Home, releases: Sequence[ReleaseConfig], followed: Followed, seconds: float) -> None:
    """Return as soon as a part of a release is not what the last look saw, and after so many seconds at the latest."""
    mlflow, end = connect(home), time.monotonic() + seconds
    while (left := end - time.monotonic()) > 0:
        time.sleep(min(left, MOVE_SECONDS))
        if any(_live_parts(mlflow, config) != followed.parts.get(config.name) for config in releases):
            return


def _follow(
    client: SyncPrefectClient,
    mlflow: MlflowClient,
    deployment: DeploymentResponse,
    config: ReleaseConfig,
    home: Home,
    followed: Followed,
) -> None:
    wanted = _live_parts(mlflow, config)
    moved = followed.parts.get(config.name, wanted) != wanted
    key = _due(mlflow, deployment, config, wanted, followed)
    if moved or key:
        try:
            _put_back(mlflow, config, wanted, home)
        except BusyError:
            return  # a release run is under way: the next look tries again
        key = _due(mlflow, deployment, config, wanted, followed)  # what was made of it asks to be examined
    followed.parts[config.name] = wanted
    if key:
        run = client.create_flow_run_from_deployment(deployment.id, idempotency_key=key, tags=[BY_WATCHER])
        followed.started.add(key)
        log.info("%s is made of %s by the run %s", config.name, ", ".join(wanted.values()), run.id)


def _due(
    mlflow: MlflowClient,
    deployment: DeploymentResponse,
    config: ReleaseConfig,
    wanted: dict[str, str],
    followed: Followed,
) -> str:
    """A key for the run that the newest version asks for: it is made of other parts, or nobody has examined it.

    Empty where none is asked for, or it was started.
    """
    newest = newest_tags(mlflow, config.name)
    same = all(newest.get(f"{PART_TAG}{kind}") == part for kind, part in wanted.items())
    if not wanted or (same and newest.get(VERDICT_TAG) != PUT_BACK):
        return ""
    # a run that fails makes no version, and is not started again before something changes
    state = json.dumps([str(deployment.id), sorted(newest.items()), sorted(wanted.items())])
    key = sha256(state.encode()).hexdigest()
    return "" if key in followed.started else key


def _put_back(mlflow: MlflowClient, config: ReleaseConfig, wanted: dict[str, str], home: Home) -> None:
    try:
        move = put_back(mlflow, config, wanted, home)
    except BusyError:
        raise
    except TandemError as error:  # the run that examines it says so where people look
        log.warning("%s is not put back: %s", config.name, error)
        return
    if move:
        log.info("%s goes from version %s to %s: %s", config.name, move.before, move.after, move.reason)


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
