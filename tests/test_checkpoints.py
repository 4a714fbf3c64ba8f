"""Checkpoints that are kept with an MLflow run: whole ones only, while the training deletes its old ones."""

import shutil
from pathlib import Path

import pytest
from mlflow import MlflowClient

from tasks.config.settings import Home
from tasks.errors import RegistryError
from tasks.registry.checkpoints import fetch_checkpoint, keep_checkpoint, read_step
from tasks.registry.connection import connect
from tasks.registry.runs import start_run
from tasks.train import sound_checkpoint

FILES = ("adapter", "optimizer", "state")


class Overtaken(MlflowClient):
    """While it copies, the training deletes a file, as it does with a checkpoint that newer ones have replaced."""

    def log_artifacts(self, run_id: str, local_dir: str, artifact_path: str | None = None) -> None:
        (Path(local_dir) / FILES[-1]).unlink()
        super().log_artifacts(run_id, local_dir, artifact_path)


def checkpoint(folder: Path, step: int) -> Path:
    made = folder / f"checkpoint-{step}"
    made.mkdir()
    for name in FILES:
        (made / name).write_text(f"{name} {step}")
    return made


def kept(client: MlflowClient, run_id: str, folder: Path) -> dict[str, str]:
    found = fetch_checkpoint(client, run_id, folder)
    assert found
    return {file.name: file.read_text() for file in found.iterdir()}


@pytest.mark.parametrize("client_of", [Overtaken, MlflowClient])
def test_a_checkpoint_that_the_training_deletes_meanwhile_is_left_out_and_the_one_before_stays(
    client_of: type[MlflowClient], ready_home: Home, tmp_path: Path
) -> None:
    client = connect(ready_home)
    run_id = start_run(client, "adapter-tiny", "a fine-tune", "tiny")
    keep_checkpoint(client, run_id, checkpoint(tmp_path, 1), 1)
    gone = checkpoint(tmp_path, 2) if client_of is Overtaken else tmp_path / "checkpoint-2"
    keep_checkpoint(client_of(client.tracking_uri), run_id, gone, 2)
    assert read_step(client, run_id) == 1
    assert kept(client, run_id, tmp_path / "fetched") == {name: f"{name} 1" for name in FILES}
    assert [of.path for of in client.list_artifacts(run_id, "checkpoints")] == ["checkpoints/checkpoint-1"]
    keep_checkpoint(client, run_id, checkpoint(tmp_path, 3), 3)
    assert kept(client, run_id, tmp_path / "fetched again") == {name: f"{name} 3" for name in FILES}


def test_a_checkpoint_that_is_whole_and_cannot_be_kept_is_an_error(ready_home: Home, tmp_path: Path) -> None:
    client = connect(ready_home)
    run_id = start_run(client, "adapter-tiny", "a fine-tune", "tiny")
    artifacts = Path(client.get_run(run_id).info.artifact_uri.removeprefix("file://"))
    artifacts.mkdir(parents=True, exist_ok=True)
    (artifacts / "checkpoints").write_text("in the way")
    with pytest.raises(RegistryError, match="checkpoints"):
        keep_checkpoint(client, run_id, checkpoint(tmp_path, 1), 1)
    assert read_step(client, run_id) is None


@pytest.mark.parametrize("damage", ["cut", "changed", "gone", "all gone"])
def test_a_checkpoint_that_is_not_as_it_was_kept_is_told_and_not_gone_on_from(
    ready_home: Home, tmp_path: Path, damage: str
) -> None:
    client = connect(ready_home)
    run_id = start_run(client, "adapter-tiny", "a fine-tune", "tiny")
    keep_checkpoint(client, run_id, checkpoint(tmp_path, 7), 7)
    [adapter] = ready_home.mlruns.rglob("checkpoint-7/adapter")
    match damage:
        case "cut":
            adapter.write_bytes(adapter.read_bytes()[:-3])
        case "changed":
            adapter.write_bytes(adapter.read_bytes()[::-1])
        case "gone":
            adapter.unlink()
        case "all gone":
            shutil.rmtree(adapter.parent)
    decisions: dict[str, str] = {}
    assert sound_checkpoint(client, run_id, tmp_path / "fetched", decisions) is None
    assert decisions == {"checkpoint": "the checkpoint of step 7 is damaged: the training begins anew"}
    assert read_step(client, run_id) is None
    keep_checkpoint(client, run_id, checkpoint(tmp_path, 8), 8)
    assert kept(client, run_id, tmp_path / "fetched again") == {name: f"{name} 8" for name in FILES}
