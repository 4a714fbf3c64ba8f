"""What follows an event, on a real Prefect server: files are installed, and an event starts a run."""

from collections.abc import Iterator
from contextlib import suppress
from pathlib import Path
from typing import Any

import pytest
import yaml
from prefect import get_client
from prefect.blocks.webhook import Webhook
from prefect.client.schemas.filters import DeploymentFilter, DeploymentFilterName
from prefect.client.schemas.objects import FlowRun
from prefect.events import emit_event
from prefect.events.schemas.automations import Automation, AutomationCore

from tasks.automations import TAG, Installed
from tasks.config.deployments import DeploymentsConfig
from tasks.deploy import deploy_all
from tasks.errors import ConfigError
from tests.waiting import wait_for

pytestmark = pytest.mark.usefixtures("prefect")
ROOT = Path(__file__).resolve().parents[1]
STALE = "tandem.monitor.stale"
APPROVED, OTHER = ({"config": {"name": name, "reason": "stale"}} for name in ("docs", "other"))


@pytest.fixture
def folder(tmp_path: Path) -> Iterator[Path]:
    """An empty folder for automations; what was installed by it or by others is gone before and afterwards."""
    made = tmp_path / "automations"
    made.mkdir()
    deploy(made)
    yield made
    for file in made.iterdir():
        file.unlink()
    deploy(made)


def write(folder: Path, stem: str, **settings: Any) -> Path:
    file = folder / f"{stem}.yaml"
    file.write_text(yaml.safe_dump({"name": stem, "events": [STALE]} | settings))
    return file


def deploy(folder: Path) -> Installed:
    """Automations beside a deployment that waits for somebody to approve, as nothing runs it."""
    deployment = {"name": "approve", "flow": "flows/approve.py:approve", "work_pool": "nobody"}
    config = {"work_pools": [{"name": "nobody"}], "deployments": [deployment], "automations": str(folder)}
    return deploy_all(DeploymentsConfig.model_validate(config), ROOT)[1]


def ours() -> dict[str, Automation]:
    with get_client(sync_client=True) as client:
        return {each.name: each for each in client.read_automations() if TAG in each.tags}


def runs() -> list[FlowRun]:
    approving = DeploymentFilter(name=DeploymentFilterName(any_=["approve"]))
    with get_client(sync_client=True) as client:
        return client.read_flow_runs(deployment_filter=approving)


def find_stale(release: str) -> None:
    emit_event(
        STALE,
        resource={"prefect.resource.id": f"tandem.release.{release}", "prefect.resource.name": f"{release}@1"},
        payload={"sentence": "The source north is stale.", "remedy": "run `tandem reindex`"},
    )


def test_findings_that_come_together_start_one_run_with_the_reason_and_none_for_another_release(folder: Path) -> None:
    parameters = {"config": {"name": "docs", "reason": "{{ event.payload.sentence }}"}}
    write(folder, "follow", release="desk", run="approve", parameters=parameters)
    assert deploy(folder).installed == ("follow",)
    find_stale("other")
    told = 0
    while not runs() and told < 3:  # a busy server may see an event before it knows of a new automation
        for _ in range(3):
            find_stale("desk")
        told += 1
        with suppress(AssertionError):
            wait_for(lambda: bool(runs()), 40)
    [run] = runs()
    assert run.parameters["config"] == {"name": "docs", "reason": "The source north is stale."}


def test_to_deploy_twice_makes_no_second_one_and_a_change_of_the_file_is_followed(folder: Path) -> None:
    write(folder, "follow", run="approve", parameters=APPROVED)
    deploy(folder)
    before = ours()["follow"].id
    write(folder, "follow", run="approve", parameters=OTHER, enabled=False)
    assert deploy(folder).installed == ("follow",)
    found = ours()
    assert list(found) == ["follow"]
    assert (found["follow"].id, found["follow"].enabled) == (before, False)
    assert found["follow"].actions[0].parameters == OTHER  # type: ignore[union-attr]


def test_what_has_no_file_any_more_is_removed_and_what_others_made_stays(folder: Path) -> None:
    write(folder, "follow", run="approve", parameters=APPROVED)
    deploy(folder)
    theirs = AutomationCore(**ours()["follow"].model_dump(exclude={"id"}) | {"name": "theirs", "tags": []})
    with get_client(sync_client=True) as client:
        made = client.create_automation(theirs)
    (folder / "follow.yaml").unlink()
    assert deploy(folder) == Installed(removed=("follow",))
    assert ours() == {}
    with get_client(sync_client=True) as client:
        assert client.read_automation(made)
        client.delete_automation(made)


def test_without_its_block_it_is_left_out_and_the_way_to_make_it_is_told(folder: Path) -> None:
    write(folder, "tell", notify="webhook/pager")
    done = deploy(folder)
    assert (done.installed, ours()) == ((), {})
    assert "automation tell is left out: there is no block webhook/pager. Make one of the type" in done.left_out[0]
    Webhook(url="http://127.0.0.1:9/").save("pager")
    assert deploy(folder).installed == ("tell",)
    Webhook.delete("pager")
    assert deploy(folder).left_out
    assert ours() == {}


@pytest.mark.parametrize(
    ("settings", "said"),
    [
        ({"run": "diagnosis"}, "run: there is no deployment diagnosis; there are approve"),
        ({"run": "approve", "parameters": {"config": {"nam": "docs"}}}, "parameters do not fit the deployment approve"),
        ({}, "it does nothing: name a deployment under run, or a block under notify"),
        ({"notify": "pager"}, "notify: String should match pattern"),
        ({"name": "other", "run": "approve"}, "name is other; it must be that of the file, follow"),
    ],
)
def test_a_mistake_in_a_file_is_named_before_anything_is_changed(
    folder: Path, settings: dict[str, Any], said: str
) -> None:
    file = write(folder, "follow", **settings)
    with pytest.raises(ConfigError) as raised:
        deploy(folder)
    assert str(file) in str(raised.value)
    assert said in str(raised.value)
    file.unlink()


def test_the_automations_of_conf_start_deployments_that_there_are(folder: Path) -> None:
    from tasks.automations import prepare_automations
    from tasks.config.loading import load_config
    from tasks.deploy import prepare_all

    config = load_config(ROOT / "conf" / "deployments.yaml", DeploymentsConfig)
    prepared = prepare_automations(config, prepare_all(config, ROOT), ROOT)
    assert prepared
    retrain = next(each for each in prepared if each.config.name == "retrain-old")
    assert retrain.parameters["config"]["promote"] == "ask"
    assert retrain.parameters["config"]["training"]["epochs"] == 2
