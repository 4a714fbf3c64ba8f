"""The task that trains: its process may be killed, and what it decided at first stays."""

from pathlib import Path

import pytest
import safetensors.torch
import torch
from mlflow import MlflowClient
from prefect import flow

from tasks.config.settings import Home
from tasks.records import Trained
from tasks.registry.connection import connect
from tasks.registry.runs import read_tags, start_run
from tasks.train import DECISION_TAG, train
from tasks.training.job import TrainingJob
from tests.tiny_models import sft_job, write_rows

pytestmark = pytest.mark.usefixtures("tiny_conf", "prefect")
STEPS = 8


@flow
def fine_tune(job: TrainingJob, run_id: str) -> Trained:
    return train("tiny", job, run_id)


def test_a_training_process_that_was_killed_goes_on_from_its_checkpoint_within_the_same_run(
    tiny_model: Path, ready_home: Home, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("OMP_NUM_THREADS", "1")
    client = connect(ready_home)
    rows = write_rows(tmp_path / "rows.parquet", 64)

    def trained(name: str) -> tuple[Trained, str]:
        machine = {"precision": "auto", "checkpoint_minutes": 1e-6}
        job = sft_job(tmp_path / name, tiny_model, rows, machine=machine, max_steps=STEPS)
        run_id = start_run(client, "adapter-tiny", name, "tiny")
        return fine_tune(job, run_id), run_id

    calm, _ = trained("calm")
    monkeypatch.setattr("tasks.train.WORKER", "tests.killed_once")
    killed, run_id = trained("killed")

    steps = [point.step for point in client.get_metric_history(run_id, "loss")]
    assert sorted(steps) == list(range(1, STEPS + 1))  # from the first checkpoint, and none of them twice
    [precision] = [text for text in killed.decisions if " weights: " in text]  # as it measured at first, and once
    assert decisions(client, run_id) == set(killed.decisions)
    assert precision in decisions(client, run_id)
    ours, theirs = (safetensors.torch.load_file(Path(t.adapter) / "adapter_model.safetensors") for t in (killed, calm))
    for name, tensor in ours.items():
        torch.testing.assert_close(tensor, theirs[name], rtol=1e-4, atol=1e-6)


def decisions(client: MlflowClient, run_id: str) -> set[str]:
    tags = read_tags(client, run_id)
    return {text for tag, text in tags.items() if tag.startswith(DECISION_TAG)}
