"""From approved rows to a fine-tune: decided on in Prefect's form, and started once, here or where it is deployed."""

import threading
from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import Any
from uuid import UUID

import pytest
import yaml
from prefect import get_client
from prefect.client.schemas.objects import FlowRun, StateType

from flows.approve_rows import approve_rows
from tasks.config.curation import ApproveRowsConfig
from tasks.config.deployments import DeploymentsConfig
from tasks.config.settings import Home
from tasks.deploy import deploy_all
from tasks.draft import make_draft
from tasks.registry.connection import connect
from tasks.registry.datasets import STARTED_TAG, find_dataset
from tasks.registry.pointers import pointers
from tasks.registry.runs import read_tags
from tasks.review import Desk
from tests.command import Tandem
from tests.tiny_models import conversation, write_data, write_yaml
from tests.waiting import wait_for

pytestmark = pytest.mark.usefixtures("prefect")
ROOT = Path(__file__).resolve().parents[1]
SOURCE = "datasets:/desk-sft@newest"


@pytest.fixture
def conf(ready_home: Home, tiny_model: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """A conf/ with a fine-tune of the approved rows, of which 48 are to be trained on and 16 are held out."""
    write_data(tmp_path)
    conf = tmp_path / "conf"
    write_yaml(conf / "models" / "tiny.yaml", {"model": str(tiny_model)})
    dataset = {"format": "messages", "sources": [SOURCE], "held_out": [f"{SOURCE}/held_out"], "id_column": "id"}
    write_yaml(conf / "datasets" / "answers.yaml", dataset)
    general = {f"general_{what}": str(tmp_path / f"{what}.jsonl") for what in ("text", "choices")}
    fine_tune = {
        "name": "tiny",
        "base": "tiny",
        "dataset": "answers",
        "checks": {"min_rows": 40, "near_duplicate": 1},
        "training": {"max_length": 64, "learning_rate": 0.01, "epochs": 1, "batch_rows": 8},
        "machine": {"precision": "fp32"},
        "scoring": {"scores": [], **general},
        "gate": {"min_rows": 5, "max_forgotten": 10, "max_general_loss": 1},
        "promote": "auto",
    }
    write_yaml(conf / "sft" / "tiny.yaml", fine_tune)
    write_yaml(tmp_path / "desk.yaml", {"name": "desk", "release": "desk", "sft": "tiny", "new_rows": 10})
    monkeypatch.setenv("TANDEM_CONF", str(conf))
    approve(ready_home, 0, 64)
    return conf


def approve(home: Home, first: int, last: int) -> None:
    """As `tandem curate` drafted them and a person approved them; every fourth one is held out."""
    desk = Desk("desk", home)
    for number in range(first, last):
        asked, answer = conversation(number)
        side: Any = "train" if number % 4 else "held_out"
        question, said = f"{asked['content']} {number}", answer["content"]
        prompt = ({"role": "user", "content": question},)
        desk.add([make_draft("sft", "correction", question=question, answer=said, prompt=prompt, side=side)])
    desk.decide([(draft.id, True, draft.answer) for draft in desk.waiting()], "ann")


def test_enough_approved_rows_start_their_fine_tune_once_and_the_run_says_why(
    conf: Path, ready_home: Home, tmp_path: Path, tandem: Tandem
) -> None:
    said = tandem("curate", tmp_path / "desk.yaml", "--json")
    assert said.status == 0, said.err
    assert said.json["versions"] == {"sft": "desk-sft@1"}
    why = (
        "desk-sft@1 has 48 approved rows to train on, of at least 40; made by `tandem curate` of conf/curate/desk.yaml."
    )
    assert said.json["reasons"] == [f"tiny was fine-tuned, version 1: promote. {why}"]
    client = connect(ready_home)
    assert pointers(client, "tiny").champion == 1
    experiment = client.get_experiment_by_name("adapter-tiny")
    assert experiment
    [run] = client.search_runs([experiment.experiment_id])
    assert run.data.tags["mlflow.note.content"] == why
    [trained_on] = [each.dataset for each in run.inputs.dataset_inputs]
    assert "datasets:/desk-sft@1" in trained_on.source
    assert "datasets:/desk-sft@1/held_out" in trained_on.source
    assert run.data.metrics["count_rows:_train"] == 48

    again = tandem("curate", tmp_path / "desk.yaml", "--json")
    assert again.json["reasons"] == [f"desk-sft@1 has started a fine-tune already: run {run.info.run_id}."]
    approve(ready_home, 64, 68)
    few = tandem("curate", tmp_path / "desk.yaml", "--json")
    assert few.json["reasons"] == [
        "desk-sft@2 has 3 rows more than desk-sft@1, from which tiny was trained, and new_rows is 10."
    ]
    assert len(client.search_runs([experiment.experiment_id])) == 1


def test_too_few_rows_start_nothing_and_a_fine_tune_that_does_not_read_them_is_named(
    conf: Path, ready_home: Home, tmp_path: Path, tandem: Tandem
) -> None:
    settings = yaml.safe_load((conf / "sft" / "tiny.yaml").read_text())
    write_yaml(conf / "sft" / "tiny.yaml", settings | {"checks": {"min_rows": 49}})
    said = tandem("curate", tmp_path / "desk.yaml", "--json")
    assert said.json["reasons"] == ["desk-sft@1 has 48 rows to train on, and tiny needs 49 (checks.min_rows)."]
    write_yaml(conf / "sft" / "tiny.yaml", settings | {"gate": settings["gate"] | {"min_rows": 500}})
    [reason] = tandem("curate", tmp_path / "desk.yaml", "--json").json["reasons"]
    assert reason.endswith("held-out rows, and the gate of tiny judges by no fewer than 500 (gate.min_rows).")
    dataset = yaml.safe_load((conf / "datasets" / "answers.yaml").read_text())
    write_yaml(conf / "datasets" / "answers.yaml", dataset | {"sources": ["datasets:/other@newest"]})
    said = tandem("curate", tmp_path / "desk.yaml")
    assert said.status == 2
    assert "conf/datasets/answers.yaml does not read what it makes: name datasets:/desk-sft@newest" in said.err


@pytest.fixture
def deployed(conf: Path) -> Iterator[UUID]:
    """The fine-tune, deployed on the server, where no worker takes it."""
    deployment = {"name": "finetune-sft", "flow": "flows/finetune_sft.py:finetune_sft", "work_pool": "nobody"}
    pools = [{"name": "nobody"}]
    [name], _ = deploy_all(DeploymentsConfig.model_validate({"work_pools": pools, "deployments": [deployment]}), ROOT)
    with get_client(sync_client=True) as client:
        found = client.read_deployment_by_name(name).id
        yield found
        client.delete_deployment(found)


def runs_of(deployment: UUID) -> list[FlowRun]:
    with get_client(sync_client=True) as client:
        return [run for run in client.read_flow_runs() if run.deployment_id == deployment]


def test_where_it_is_deployed_the_fine_tune_is_asked_for_there_and_once_for_a_version(
    deployed: UUID, ready_home: Home, tmp_path: Path, tandem: Tandem
) -> None:
    client = connect(ready_home)
    for _ in range(2):
        said = tandem("curate", tmp_path / "desk.yaml", "--json")
        [run] = runs_of(deployed)
        assert said.json["reasons"][0].startswith(f"tiny is fine-tuned by the flow run {run.id}: desk-sft@1 has 48")
        assert (run.parameters["config"]["name"], run.parameters["config"]["dataset_version"]) == ("tiny", 1)
        version = find_dataset(client, "desk-sft", "1")
        assert read_tags(client, version.run_id)[STARTED_TAG] == f"flow run {run.id}"
        client.delete_tag(version.run_id, STARTED_TAG)  # as if it had been killed before it wrote that down


def paused() -> FlowRun | None:
    with get_client(sync_client=True) as client:
        runs = [run for run in client.read_flow_runs() if run.name == "approve rows of desk"]
    return next((run for run in runs if run.state and run.state.type == StateType.PAUSED), None)


def submit(run: FlowRun, said: Mapping[str, Any]) -> None:
    """As the form in the Prefect UI does it."""
    with get_client(sync_client=True) as client:
        client.resume_flow_run(run.id, run_input=dict(said))


def test_rows_are_decided_on_in_forms_of_the_prefect_ui(ready_home: Home) -> None:
    desk = Desk("desk", ready_home)
    prompt = (
        {"role": "system", "content": "Green tea is steeped at eighty degrees."},
        {"role": "user", "content": "q"},
    )
    desk.add([make_draft("sft", "correction", question=f"how hot {n}", answer="hot", prompt=prompt) for n in range(3)])
    one, two, three = (draft.id for draft in desk.drafts())
    done: list[dict[str, int]] = []
    config = ApproveRowsConfig(name="desk", rows=2, by="ann")
    thread = threading.Thread(target=lambda: done.append(approve_rows(config)))
    thread.start()
    wait_for(lambda: paused() is not None, 60)
    first = paused()
    assert first
    submit(first, {f"decide_{one}": "approve", f"answer_{one}": "quite hot", f"decide_{two}": "reject"})
    wait_for(lambda: len(desk.decisions()) == 2, 60)  # kept before the next form is shown
    wait_for(lambda: paused() is not None, 60)
    second = paused()
    assert second
    submit(second, {f"decide_{three}": "later"})
    thread.join(60)
    assert done == [{"approve": 1, "reject": 1, "later": 1}]
    assert desk.approved() == [(desk.drafts()[0], "quite hot")]
    assert {decision.by for decision in desk.decisions().values()} == {"ann"}
    assert [entry["id"] for entry in yaml.safe_load(desk.file.read_text())] == [three]
