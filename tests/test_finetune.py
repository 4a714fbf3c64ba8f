"""Fine-tunes as flows, from rows in a file to a version in MLflow, on a tiny model of random weights."""

from pathlib import Path

import mlflow
import pytest
from peft import PeftModel
from transformers import AutoModelForCausalLM

from tasks.adapters import fetch_adapter, kept_adapter
from tasks.config.settings import Home
from tasks.config.training import SftConfig
from tasks.errors import ConfigError, RefusedError
from tasks.records import Finetune
from tasks.registry import ledger
from tasks.registry.connection import connect
from tasks.registry.pointers import pointers
from tasks.registry.runs import running
from tasks.training.base import hash_around, hash_base
from tests.tiny_models import make_model, write_data, write_yaml

pytestmark = pytest.mark.usefixtures("prefect", "tiny_conf")


@pytest.fixture
def conf(ready_home: Home, tiny_model: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """A conf/ of the test's own, with 64 conversations of which six are held out."""
    rows = write_data(tmp_path)
    conf = tmp_path / "conf"
    write_yaml(conf / "models" / "tiny.yaml", {"model": str(tiny_model)})
    write_yaml(conf / "datasets" / "rows.yaml", {"format": "messages", "sources": [str(rows)]})
    monkeypatch.setenv("TANDEM_CONF", str(conf))
    return conf


def configured(conf: Path, **settings: object) -> SftConfig:
    values = {
        "name": "tiny",
        "base": "tiny",
        "dataset": "rows",
        "checks": {"min_rows": 10, "near_duplicate": 1},
        "held_out_share": 0.25,
        "training": {"max_length": 64, "learning_rate": 0.01, "epochs": 2, "batch_rows": 8},
        "machine": {"precision": "fp32"},
        "scoring": {
            "scores": [],
            "general_text": str(conf.parent / "text.jsonl"),
            "general_choices": str(conf.parent / "choices.jsonl"),
        },
        "gate": {"min_rows": 5, "max_forgotten": 10, "max_general_loss": 1},
        "promote": "auto",
    }
    return SftConfig.model_validate(values | settings)


def run(config: SftConfig) -> Finetune:
    from flows.finetune_sft import finetune_sft

    return finetune_sft(config)


def test_an_adapter_that_beats_its_base_goes_live_and_loads_from_mlflow(
    conf: Path, ready_home: Home, tiny_model: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    done = run(configured(conf))
    assert (done.decision, done.version, done.live) == ("promote", 1, 1), done.reasons
    assert done.scores["candidate"]["held_out_loss"] < done.scores["base"]["held_out_loss"]
    assert [move.by for move in ledger.history(connect(ready_home), "tiny")] == ["flow finetune-sft"]
    assert not (ready_home.data / "training" / done.run_id).exists()
    run_data = connect(ready_home).get_run(done.run_id)
    assert (run_data.info.status, run_data.inputs.dataset_inputs[0].dataset.name) == ("FINISHED", "rows")
    assert {"loss", "tokens_per_second", "candidate_held_out_loss"} <= run_data.data.metrics.keys()

    monkeypatch.setenv("MLFLOW_TRACKING_URI", ready_home.tracking_uri)
    answers = mlflow.pyfunc.load_model("models:/tiny@champion").predict(["please cancel"], params={"max_new_tokens": 4})
    assert [type(answer) for answer in answers] == [str]
    manifest, folder = fetch_adapter("tiny", "champion", tmp_path / "fetched", ready_home)
    PeftModel.from_pretrained(AutoModelForCausalLM.from_pretrained(tiny_model), folder)
    assert (manifest.method, manifest.base["model"]) == ("sft", str(tiny_model))
    for _ in range(2):  # fetched, and found
        assert hash_base(kept_adapter("tiny@1", ready_home)) == manifest.adapter_hash
        assert hash_around(kept_adapter("tiny@1", ready_home)) == manifest.adapter_settings_hash
        assert manifest.base_settings_hash.startswith("sha256:")

    write_yaml(conf / "models" / "tiny.yaml", {"model": str(make_model(tmp_path / "other", seed=7))})
    with pytest.raises(ConfigError, match=r"sha256:.*sha256:"):
        run(configured(conf, parent="tiny@champion"))


def test_data_that_are_not_fit_stop_the_run_before_it_trains(conf: Path, ready_home: Home) -> None:
    with pytest.raises(RefusedError, match="500"):
        run(configured(conf, checks={"min_rows": 500}))
    client = connect(ready_home)
    [experiment] = [found for found in client.search_experiments() if found.name == "adapter-tiny"]
    [failed] = client.search_runs([experiment.experiment_id])
    assert (failed.info.status, running(client, "tiny")) == ("FAILED", [])
    assert pointers(client, "tiny").champion is None
