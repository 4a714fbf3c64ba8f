"""Releases that follow from a part that moved, on a real Prefect server: a run is started, and only one."""

from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
import yaml
from prefect import get_client
from prefect.client.orchestration import SyncPrefectClient
from prefect.client.schemas.objects import FlowRun

from tasks.config.deployments import DeploymentsConfig
from tasks.config.settings import Home
from tasks.deploy import deploy_all
from tasks.errors import ConfigError
from tasks.follow import Followed, start_followers
from tasks.registry.connection import connect, registry
from tasks.registry.marks import VERSION_TAG
from tasks.registry.versions import PART_TAG, next_number
from tests.command import golden_of_nights
from tests.released import register_manifest

ROOT = Path(__file__).resolve().parents[1]


@pytest.fixture
def client(home_of_nights: Home, tmp_path: Path) -> Iterator[SyncPrefectClient]:
    """With a release of the live index, version 3, deployed and never made."""
    settings = {"name": "desk", "index": "docs@champion", "policy": "extractive", "golden": str(golden_of_nights())}
    (tmp_path / "desk.yaml").write_text(yaml.safe_dump(settings))
    release = {"name": "desk", "flow": "flows/release.py:release", "config": str(tmp_path / "desk.yaml")}
    deployed = {"work_pools": [{"name": "following"}], "deployments": [release | {"work_pool": "following"}]}
    (name,), _ = deploy_all(DeploymentsConfig.model_validate(deployed), ROOT)
    with get_client(sync_client=True) as client:
        yield client
        client.delete_deployment(client.read_deployment_by_name(name).id)


def started(client: SyncPrefectClient) -> list[FlowRun]:
    return [run for run in client.read_flow_runs() if run.work_pool_name == "following"]


def make_release(home: Home, **parts: str) -> None:
    """Register a version that is made of these."""
    manifest: dict[str, Any] = {"release": "desk"} | parts
    client = connect(home)
    tags = {f"{PART_TAG}{kind}": part for kind, part in parts.items()}
    tags[VERSION_TAG] = f"desk@{next_number(client, 'desk')}"
    register_manifest(client, "desk", manifest, "tasks.releases:answering", tags)


def test_a_release_follows_once_from_every_move_of_a_part(client: SyncPrefectClient, home_of_nights: Home) -> None:
    start_followers(client, home_of_nights, Followed())
    start_followers(client, home_of_nights, Followed())
    (run,) = started(client)
    assert run.parameters["config"]["index"] == "docs@champion"
    make_release(home_of_nights, index="docs@3", prompt="answer@1")
    start_followers(client, home_of_nights, Followed())
    assert len(started(client)) == 1
    for number in (2, 3, 2):  # by hand in MLflow's UI; the release of version 2 is made, that of 3 anew, and so on
        registry(connect(home_of_nights)).set_registered_model_alias("docs", "champion", str(number))
        start_followers(client, home_of_nights, Followed())
        start_followers(client, home_of_nights, Followed())
        make_release(home_of_nights, index=f"docs@{number}", prompt="answer@1")
    assert len(started(client)) == 4


def test_a_part_that_is_not_there_yet_is_waited_for(client: SyncPrefectClient, home_of_nights: Home) -> None:
    registry(connect(home_of_nights)).delete_registered_model_alias("docs", "champion")
    start_followers(client, home_of_nights, Followed())
    assert started(client) == []


def test_settings_that_this_tandem_does_not_know_are_named_with_their_deployment(
    client: SyncPrefectClient, home_of_nights: Home
) -> None:
    deployment = client.read_deployment_by_name("release/desk")
    client.delete_deployment(deployment.id)
    client.create_deployment(deployment.flow_id, "desk", tags=["tandem"], parameters={"config": {"nam": "desk"}})
    with pytest.raises(ConfigError, match="release/desk cannot follow its parts"):
        start_followers(client, home_of_nights, Followed())
