"""Deployments on a real Prefect server, run by a real worker process."""

import os
import subprocess
import sys
from collections.abc import Callable, Iterator
from datetime import UTC, datetime, timedelta
from pathlib import Path
from typing import Any
from uuid import UUID

import pytest
import yaml
from prefect import get_client
from prefect.client.schemas.actions import DeploymentUpdate
from prefect.client.schemas.objects import FlowRun, StateType
from prefect.client.schemas.responses import DeploymentResponse
from prefect.client.schemas.schedules import CronSchedule
from prefect.exceptions import PrefectHTTPStatusError
from prefect.settings import PREFECT_API_URL
from prefect.states import Completed, Running, Scheduled
from pydantic import ValidationError

from tasks.absorb import absorb_missed_nights
from tasks.config.deployments import DeploymentsConfig
from tasks.config.index import ReindexConfig
from tasks.config.settings import Home
from tasks.deploy import deploy_all
from tasks.errors import ConfigError
from tasks.registry.connection import connect
from tasks.registry.versions import list_versions
from tests.nights import write_facts
from tests.servers import stop
from tests.waiting import wait_for

pytestmark = pytest.mark.usefixtures("prefect")
ROOT = Path(__file__).resolve().parents[1]


@pytest.fixture
def deployed(ready_home: Home, configure: Callable[..., ReindexConfig], site: Path, tmp_path: Path) -> Iterator[str]:
    """The re-index of four pages as a deployment at two o'clock in Berlin."""
    write_facts(site)
    file = tmp_path / "docs.yaml"
    file.write_text(yaml.safe_dump(configure().model_dump(mode="json")))
    config = at_two_in_berlin(file)
    (name,), _ = deploy_all(config, ROOT)
    assert deploy_all(config, ROOT)[0] == [name]  # safe to repeat
    yield name
    with get_client(sync_client=True) as client:  # with its scheduled runs, which the next test's worker would take
        client.delete_deployment(client.read_deployment_by_name(name).id)


def at_two_in_berlin(file: Path) -> DeploymentsConfig:
    deployment = {
        "name": "reindex",
        "flow": "flows/reindex.py:reindex",
        "config": str(file),
        "cron": "0 2 * * *",
        "work_pool": "tests",
    }
    return DeploymentsConfig.model_validate(
        {"timezone": "Europe/Berlin", "work_pools": [{"name": "tests"}], "deployments": [deployment]}
    )


@pytest.fixture
def worker(deployed: str, tmp_path: Path) -> Iterator[None]:
    environment = os.environ | {"PREFECT_API_URL": PREFECT_API_URL.value(), "PREFECT_WORKER_QUERY_SECONDS": "1"}
    command = [str(Path(sys.executable).with_name("prefect")), "worker", "start", "--pool", "tests"]
    with (tmp_path / "worker.log").open("w") as log:
        process = subprocess.Popen(command, env=environment, cwd=tmp_path, stdout=log, stderr=log)
        yield
        stop(process)  # asked politely, it sometimes waits for minutes


@pytest.mark.parametrize(
    ("text", "said"),
    [
        ("name: docs\nsources: [{name: docs, location: /tmp}]\ngolde: x\n", "golde: unknown key; did you mean golden?"),
        (None, "does not exist"),
    ],
)
def test_a_mistake_in_a_configuration_shows_when_it_is_deployed_and_not_at_night(
    tmp_path: Path, text: str | None, said: str
) -> None:
    file = tmp_path / "docs.yaml"
    if text:
        file.write_text(text)
    with pytest.raises(ConfigError) as raised:
        deploy_all(at_two_in_berlin(file), ROOT)
    assert str(file) in str(raised.value)
    assert said in str(raised.value)


def test_the_reindex_is_scheduled_at_two_at_night_in_the_configured_time_zone(deployed: str) -> None:
    with get_client(sync_client=True) as client:
        deployment = client.read_deployment_by_name(deployed)
    (schedule,) = deployment.schedules
    assert isinstance(schedule.schedule, CronSchedule)
    assert (schedule.schedule.cron, schedule.schedule.timezone) == ("0 2 * * *", "Europe/Berlin")
    form = deployment.parameter_openapi_schema
    assert form
    assert set(form["properties"]) == {"config", "allow_deletions"}
    assert form["definitions"]["SourceConfig"]["properties"]["location"]["description"]


def test_one_night_runs_at_a_time_and_the_next_waits_for_it_in_a_work_queue(deployed: str) -> None:
    with get_client(sync_client=True) as client:
        deployment = client.read_deployment_by_name(deployed)
        queue = client.read_work_queue_by_name("reindex", work_pool_name="tests")
    assert (deployment.work_queue_name, queue.concurrency_limit) == ("reindex", 1)


def test_a_limit_is_never_leased_also_where_an_older_tandem_deployed_it(tmp_path: Path) -> None:
    """Prefect's server keeps leases in memory: its restart would end every run that holds one."""
    toy = {"name": "toy", "flow": "tests/toys.py:sleeps_once", "work_pool": "leased", "limit": 1}
    config = DeploymentsConfig.model_validate({"work_pools": [{"name": "leased"}], "deployments": [toy]})
    (name,), _ = deploy_all(config, ROOT)
    with get_client(sync_client=True) as client:
        deployment = client.read_deployment_by_name(name)
        client.update_deployment(deployment.id, DeploymentUpdate(concurrency_limit=1))
        assert client.read_deployment(deployment.id).global_concurrency_limit
        deploy_all(config, ROOT)
        assert client.read_deployment(deployment.id).global_concurrency_limit is None


def test_a_limit_that_is_changed_or_taken_out_of_the_file_follows_it(tmp_path: Path) -> None:
    def limits(limit: int | None) -> tuple[str | None, int | None]:
        toy = {"name": "toy", "flow": "tests/toys.py:sleeps_once", "work_pool": "limited", "limit": limit}
        (name,), _ = deploy_all(
            DeploymentsConfig.model_validate({"work_pools": [{"name": "limited"}], "deployments": [toy]}), ROOT
        )
        with get_client(sync_client=True) as client:
            queue = client.read_deployment_by_name(name).work_queue_name
            return queue, client.read_work_queue_by_name(str(queue), work_pool_name="limited").concurrency_limit

    assert [limits(1), limits(3), limits(None)] == [("toy", 1), ("toy", 3), ("default", None)]


@pytest.mark.parametrize(
    "names", [("toy", "toy"), ("default",)], ids=["two of a name", "the name of a queue that every pool has"]
)
def test_a_limit_needs_a_name_that_no_other_queue_of_the_pool_has(names: tuple[str, ...]) -> None:
    toys = [{"name": name, "flow": "tests/toys.py:sleeps_once"} for name in names]
    with pytest.raises(ValidationError, match="has a limit, which is that of a work queue of its name"):
        DeploymentsConfig.model_validate({"deployments": toys})
    assert DeploymentsConfig.model_validate({"deployments": [toy | {"limit": None} for toy in toys]})


def test_only_due_runs_that_would_do_the_same_are_made_up(deployed: str, monkeypatch: pytest.MonkeyPatch) -> None:
    with get_client(sync_client=True) as client:
        deployment = client.read_deployment_by_name(deployed)
        this = client.create_flow_run_from_deployment(deployment.id, state=Running())
    missed = _scheduled(deployed, timedelta(days=-1))
    allowing = _scheduled(deployed, timedelta(days=-1), allow_deletions=True)
    tomorrow = _scheduled(deployed, timedelta(days=1))
    monkeypatch.setenv("PREFECT__RUNTIME__FLOW_RUN__ID", str(this.id))  # stands for the run this is called in
    assert absorb_missed_nights.fn(deployment.id) == 1
    ends = [run.state_type for run in _read([missed, allowing, tomorrow, this.id])]
    with get_client(sync_client=True) as client:  # or it would keep the next test's night waiting
        client.set_flow_run_state(this.id, Completed())
    assert ends == [StateType.CANCELLED, StateType.SCHEDULED, StateType.SCHEDULED, StateType.RUNNING]


def test_missed_nights_are_made_up_by_one_run_of_the_worker(deployed: str, worker: None, ready_home: Home) -> None:
    missed = [_scheduled(deployed, timedelta(days=-days, minutes=-1)) for days in (2, 1, 0)]
    wait_for(lambda: all(run.state and run.state.is_final() for run in _read(missed)), 120)
    runs = _read(missed)
    ends = sorted(run.state_type.value for run in runs if run.state_type)
    assert ends == ["CANCELLED", "CANCELLED", "COMPLETED"]
    assert len(list_versions(connect(ready_home), "docs")) == 1
    done = next(run for run in runs if run.state_type == StateType.COMPLETED)
    assert done.name == "re-index docs"
    assert any("Made up by" in (run.state.message or "") for run in runs if run.state)


@pytest.fixture
def conf(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """Configurations to choose from: two base models and one data set."""
    folder = tmp_path / "conf"
    for name in ("models/tiny", "models/large", "datasets/support"):
        (folder / name).parent.mkdir(parents=True, exist_ok=True)
        (folder / f"{name}.yaml").touch()
    monkeypatch.setenv("TANDEM_CONF", str(folder))
    return folder


@pytest.fixture
def finetune(conf: Path) -> Iterator[DeploymentResponse]:
    """A fine-tune as a deployment that is started from its form only."""
    toy = {"name": "toy", "flow": "tests/toys.py:finetune", "work_pool": "one", "limit": None, "retry_crashed": 3}
    pools = [{"name": "one", "limit": 1}, {"name": "many"}]
    (name,), _ = deploy_all(DeploymentsConfig.model_validate({"work_pools": pools, "deployments": [toy]}), ROOT)
    with get_client(sync_client=True) as client:
        deployment = client.read_deployment_by_name(name)
        yield deployment
        client.delete_deployment(deployment.id)


def test_the_form_of_a_fine_tune_has_choices_bounds_defaults_and_descriptions(finetune: DeploymentResponse) -> None:
    form = finetune.parameter_openapi_schema
    assert form
    sft = form["definitions"]["SftConfig"]
    assert sft["properties"]["base"]["enum"] == ["large", "tiny"]
    assert sft["properties"]["dataset"]["enum"] == ["support"]
    assert set(sft["required"]) == {"name", "base", "dataset"}
    rank = form["definitions"]["LoraConfig"]["properties"]["rank"]
    assert (rank["minimum"], rank["maximum"], rank["default"]) == (1, 1024, 16)
    fields = [field for model in form["definitions"].values() for field in model.get("properties", {}).values()]
    assert len(fields) > 50
    for field in fields:  # what stands word for word in the model that it refers to is left to that
        model = form["definitions"][field["$ref"].rpartition("/")[2]] if "$ref" in field else {}
        assert field.get("description") or model.get("description"), field


@pytest.mark.parametrize(
    ("wrong", "said"),
    [
        ({"base": "no-such-model"}, "'no-such-model' is not one of"),
        ({"lora": {"rank": 0}}, "0 is less than the minimum of 1"),
        ({"epoch": 3}, "'epoch' was unexpected"),
        ({"name": None}, "None is not of type 'string'"),
    ],
)
def test_a_wrong_value_is_refused_when_the_run_is_started_with_a_sentence_that_says_what_is_wrong(
    finetune: DeploymentResponse, wrong: dict[str, object], said: str
) -> None:
    config = {"name": "support", "base": "tiny", "dataset": "support"} | wrong
    with get_client(sync_client=True) as client, pytest.raises(PrefectHTTPStatusError) as refused:
        client.create_flow_run_from_deployment(finetune.id, parameters={"config": config})
    assert said in str(refused.value)


def test_what_runs_need_is_passed_on_to_them(finetune: DeploymentResponse, conf: Path, home: Home) -> None:
    with get_client(sync_client=True) as client:
        deploy_all(as_deployed(finetune), ROOT)
        variables = client.read_deployment(finetune.id).job_variables["env"]
    assert (variables["TANDEM_HOME"], variables["TANDEM_CONF"]) == (str(home.root), str(conf))


def as_deployed(finetune: DeploymentResponse) -> DeploymentsConfig:
    toy = {"name": finetune.name, "flow": "tests/toys.py:finetune", "work_pool": "many", "limit": None}
    return DeploymentsConfig.model_validate({"work_pools": [{"name": "one"}, {"name": "many"}], "deployments": [toy]})


def test_a_change_of_pool_and_of_its_limit_follows_the_file(finetune: DeploymentResponse) -> None:
    with get_client(sync_client=True) as client:
        assert client.read_work_pool("one").concurrency_limit == 1
        deploy_all(as_deployed(finetune), ROOT)
        assert client.read_work_pool("one").concurrency_limit is None
        assert client.read_deployment(finetune.id).work_pool_name == "many"


def _scheduled(deployed: str, after: timedelta, **parameters: Any) -> UUID:
    """A run of the deployment that is due then."""
    due = Scheduled(scheduled_time=datetime.now(UTC) + after)
    with get_client(sync_client=True) as client:
        deployment = client.read_deployment_by_name(deployed)
        return client.create_flow_run_from_deployment(deployment.id, parameters=parameters, state=due).id


def _read(runs: list[UUID]) -> list[FlowRun]:
    with get_client(sync_client=True) as client:
        return [client.read_flow_run(run) for run in runs]
