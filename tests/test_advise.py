"""The advice as a flow: what Tandem has measured counts before what a case assumes, and the report is kept."""

import json
import time
from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import Any

import pytest
import yaml
from mlflow import MlflowClient
from prefect.client.orchestration import get_client

from tasks.answering.service.tracing import RELEASE_TAG, record_of
from tasks.config.advice import CaseConfig
from tasks.config.settings import Home
from tasks.measure import MONTH, measure
from tasks.records import Answer, Finetune, Measured
from tasks.register_adapter import _metrics as metrics_of_adapter
from tasks.register_release import ALONE_METRIC
from tasks.registry.connection import connect
from tasks.registry.runs import experiment_id, finish, log, read_text, start_run
from tasks.registry.traces import experiment_of, new_trace_id, write_traces
from tasks.registry.versions import get, load_manifest
from tasks.releases import ENTRY_POINT
from tests.command import Tandem
from tests.homes import copy_home, use_home
from tests.released import NAME, register_manifest, two_releases
from tests.test_advice import settings_of

DAY = 86_400
ROUTED = "desk@3"
"""Its language model answers alone what it surely knows."""


@pytest.fixture(scope="module")
def used(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Home]:
    """Releases 1 to 3; the third was asked 40 times in two days, evaluated, diagnosed, and has an adapter."""
    with pytest.MonkeyPatch.context() as patch:
        home = use_home(copy_home(two_releases(), tmp_path_factory.mktemp("advise") / "home"), patch)
        client = connect(home)
        manifest = load_manifest(client, NAME, 2)
        policy = manifest["policy"] | {"generator": manifest["policy"]["generator"] | {"kind": "transformers"}}
        routed = {"tag": "v3", "policy": policy, "alone_from": 0.5, "adapter": "voice@1"}
        assert register_manifest(client, NAME, manifest | routed, ENTRY_POINT) == 3
        examined = {"candidate_right": 0.7, ALONE_METRIC: 0.6}
        log(client, get(client, NAME, 3).run_id, metrics=examined)
        add_traces(client)
        register_manifest(client, "voice", {"adapter": "voice"}, ENTRY_POINT)
        counts = {"rows: train": 900, "rows: held_out": 100}
        tuned = Finetune("voice", "sft", "promote", (), 1, counts=counts, seconds={"train": 3000.0, "score": 600.0})
        metrics = metrics_of_adapter(tuned) | {"tokens_per_second": 1500.0}
        log(client, get(client, "voice", 1).run_id, metrics=metrics)
        add_nights(client)
        yield home


def add_traces(client: MlflowClient) -> None:
    """Of 30 answers with a search, and 10 alone; the slowest search takes 30 times as long as the quickest."""
    now = time.time_ns()
    records = []
    for place in range(40):
        alone = place >= 30
        seconds = {"alone": 0.5} if alone else {"search": 0.1 * (place + 1), "generation": 0.5}
        tokens = (200, 50) if alone else (1000, 100)
        versions = {"release": ROUTED, "index": "docs@2", "adapter": "voice@1", "prompt": "answer@1"}
        answer = Answer("how", "So.", (), (), False, 0.9, versions, seconds, *tokens, alone=alone)
        ended = now - int(2 * DAY * 1e9 * place / 39)
        records.append(record_of(new_trace_id(), answer, ended, "none"))
    write_traces(client, experiment_of(client, f"answers-{NAME}"), records)


def add_run(client: MlflowClient, experiment: str, metrics: Mapping[str, float], **tags: str) -> str:
    run = start_run(client, experiment, "made", "made", tags)
    log(client, run, metrics=metrics)
    finish(client, run)
    return run


def add_nights(client: MlflowClient) -> None:
    """A first one 20 days ago, which adds all 10 documents, and two on which together three changed."""
    found = experiment_id(client, "index-docs")
    for days, added, changed in ((20, 10, 0), (12, 1, 1), (3, 0, 1)):
        run = client.create_run(found, start_time=int((time.time() - days * DAY) * 1000)).info.run_id
        log(client, run, metrics={"count_documents added": added, "count_documents changed": changed})
        finish(client, run)


def measured(**changes: Any) -> tuple[dict[str, Measured], list[str]]:
    found, missing = measure.fn(CaseConfig.model_validate(settings_of(**changes)))
    return {each.field: each for each in found}, missing


def test_what_was_asked_trained_indexed_and_found_wrong_is_read_from_mlflow_with_its_source(used: Home) -> None:
    client = connect(used)
    found, missing = measured(release=ROUTED)
    assert found["right"].value == 0.7
    assert missing == [f"{ROUTED} was never diagnosed (`tandem diagnose CONF`): what its failures are of is assumed."]
    evaluated = add_run(client, "evaluation-golden", {"desk_3_right": 0.8, "desk_2_right": 0.2})
    causes = {"cause.form": 6.0, "cause.not_retrieved": 9.0, "cause.not_used": 3.0, "cause.wrongly_refused": 50.0}
    diagnosed = add_run(client, "diagnosis-golden", causes, **{RELEASE_TAG: ROUTED})
    add_run(client, "diagnosis-golden", {"cause.form": 100.0}, **{RELEASE_TAG: "desk@2"})
    found, missing = measured(release=ROUTED)
    assert missing == []
    values = {field: each.value for field, each in found.items()}
    manifest = load_manifest(client, "docs", 2)
    assert values.pop("documents") == manifest["documents"]
    assert values.pop("index_gb") > 0
    assert values.pop("changed_share") == pytest.approx(3 / manifest["documents"] / 20 * MONTH / DAY, rel=0.01)
    assert values.pop("requests") == pytest.approx(20 * MONTH / DAY, rel=0.01)
    assert values.pop("gpu_tokens_per_second") == pytest.approx(round((30 * 1100 + 10 * 250) / 20, 1))
    assert values == {
        "right": 0.8,
        "alone_share": 0.25,
        "answer_ms": 3355.0,  # 0.5 s and 95 % of the way from 0.1 to 3 s
        "tokens_in": 1000.0,
        "tokens_out": 100.0,
        "behaviour_share": pytest.approx(6 / 18),
        "examples": 1000,
        "training_gpu_hours": 1.0,
    }
    assert found["right"].source == f"evaluation-golden, run {evaluated}"
    assert found["behaviour_share"].source == f"6 of 18 failures, diagnosis-golden, run {diagnosed}"
    assert found["tokens_in"].source == "mean of 30 traces of desk@3"
    assert "3,600 s at 1,500 tokens/s" in found["training_gpu_hours"].source
    assert time.time() - 60 < found["requests"].at <= time.time()


def test_too_little_is_not_taken_for_a_measurement_and_what_is_not_there_stays_assumed(used: Home) -> None:
    found, missing = measured(release="desk@1")
    assert set(found) == {"documents", "index_gb", "changed_share", "requests"}  # traces are of another version
    assert any("desk@1 was never diagnosed" in said for said in missing)
    add_run(connect(used), "diagnosis-golden", {"cause.form": 2.0}, **{RELEASE_TAG: "desk@1"})
    found, missing = measured(release="desk@1")
    assert "the diagnosis of desk@1 sorted 2 failures; a share takes 10." in missing
    assert "behaviour_share" not in found
    found, missing = measured(release="other@champion", index="docs@9", adapter="voice@champion")
    assert found == {}
    assert missing == [
        f"{named} is not there yet, so what it would tell is assumed."
        for named in ("other@champion", "docs@9", "voice@champion")
    ]
    assert measured() == ({}, [])


def write(folder: Path, **changes: Any) -> Path:
    path = folder / "case.yaml"
    path.write_text(yaml.safe_dump(settings_of(draws=100, **changes)))
    return path


def test_the_report_marks_what_is_measured_and_goes_to_prefect_and_mlflow_with_its_picture(
    used: Home, prefect: None, tmp_path: Path, tandem: Tandem
) -> None:
    add_run(connect(used), "diagnosis-golden", {"cause.form": 6.0, "cause.not_used": 12.0}, **{RELEASE_TAG: ROUTED})
    said = tandem("advise", write(tmp_path, release=ROUTED), "--json")
    assert said.status == 0, said.err
    done = said.json
    basis = {field["field"]: field for field in done["fields"]}
    assert (basis["tokens_in"]["basis"], basis["tokens_in"]["value"]) == ("measured", 1000.0)
    assert basis["tokens_in"]["from"] == "mean of 30 traces of desk@3"
    assert [(basis[name]["basis"], basis[name]["from"]) for name in ("golden", "tenants")] == [
        ("assumed", "the case"),
        ("assumed", "a default"),
    ]
    assert sum(field["basis"] == "measured" for field in done["fields"]) == 13
    assert "13 fields are measured, the others assumed." in done["reasons"]
    assert done["decision"] in ("retrieval", "both")
    assert done["confidence"] == done["draws"][done["decision"]]
    client = connect(used)
    run = client.get_run(done["run_id"])
    assert client.get_experiment(run.info.experiment_id).name == "advice-desk"
    assert run.info.status == "FINISHED"
    assert run.data.tags["tandem.decision"] == done["decision"]
    files = {file.path for file in client.list_artifacts(done["run_id"])}
    assert files == {"report.md", "advice.json", "case.yaml", "prices.yaml", "costs.png"}
    report = read_text(client, done["run_id"], "report.md")
    assert "| tokens in | 1,000 | measured | mean of 30 traces of desk@3 |" in report
    assert "(costs.png)" in report
    kept = json.loads(read_text(client, done["run_id"], "advice.json"))
    assert kept == {**done, "seconds": kept["seconds"]}
    with get_client(sync_client=True) as prefect_client:
        [shown] = [str(each.data) for each in prefect_client.read_artifacts() if each.key == "advice-desk"]
    assert report.splitlines()[0] in shown
    assert "(data:image/png;base64,iVBOR" in shown


def test_an_empty_home_gets_an_advice_from_the_case_alone_and_the_table_for_people(
    ready_home: Home, prefect: None, tmp_path: Path, tandem: Tandem
) -> None:
    said = tandem("advise", write(tmp_path, release="desk@champion"))
    assert said.status == 0, said.err
    assert "desk@champion is not there yet, so what it would tell is assumed." in said.out
    assert "0 fields are measured" in said.out
    assert "1. Begin with retrieval" in said.out
    assert "hosted API with retrieval" in said.out
    nothing = tandem("advise", write(tmp_path, documents=0, examples=0), "--json")
    assert (nothing.status, nothing.json["decision"]) == (1, "neither")
    wrong = tandem("advise", write(tmp_path, prices="none.yaml"))
    assert wrong.status == 2
    assert "none.yaml does not exist" in wrong.err
