"""A training's checkpoint lies with its MLflow run, so that another machine can go on from it."""

from pathlib import Path

from mlflow import MlflowClient
from mlflow.exceptions import MlflowException
from mlflow.store.artifact.artifact_repo import ArtifactRepository
from mlflow.store.artifact.artifact_repository_registry import get_artifact_repository

from tasks.registry.connection import explained

CHECKPOINT_TAG = "tandem.checkpoint"


@explained
def keep_checkpoint(client: MlflowClient, run_id: str, folder: Path, step: int) -> None:
    """Keep a training's checkpoint with its run, and only this one; a tag says that it is there whole.

    A training deletes its checkpoints when it has newer ones. One of which files went before it was kept is left out.
    """
    last = read_step(client, run_id)
    if last == step:
        return
    files = _files(folder)
    try:
        client.log_artifacts(run_id, str(folder), _checkpoint(step))
    except (OSError, MlflowException):
        if files and _files(folder) == files:
            raise
    if not files or _files(folder) != files:
        _artifacts(client, run_id).delete_artifacts(_checkpoint(step))
        return
    client.set_tag(run_id, CHECKPOINT_TAG, str(step))
    if last is not None:
        _artifacts(client, run_id).delete_artifacts(_checkpoint(last))


@explained
def read_step(client: MlflowClient, run_id: str) -> int | None:
    """The step of the checkpoint that a run has; None where it has none."""
    step = client.get_run(run_id).data.tags.get(CHECKPOINT_TAG)
    return int(step) if step else None


@explained
def fetch_checkpoint(client: MlflowClient, run_id: str, folder: Path) -> Path | None:
    """Download a run's checkpoint into a folder; None where it has none."""
    step = read_step(client, run_id)
    if step is None:
        return None
    folder.mkdir(parents=True, exist_ok=True)
    return Path(_artifacts(client, run_id).download_artifacts(_checkpoint(step), str(folder)))


@explained
def forget_checkpoint(client: MlflowClient, run_id: str) -> None:
    """Delete a run's checkpoint, which nobody needs once its adapter is registered."""
    step = read_step(client, run_id)
    if step is not None:
        client.delete_tag(run_id, CHECKPOINT_TAG)
        _artifacts(client, run_id).delete_artifacts(_checkpoint(step))


def _files(folder: Path) -> set[Path]:
    return set(folder.rglob("*"))


def _checkpoint(step: int) -> str:
    return f"checkpoints/checkpoint-{step}"


def _artifacts(client: MlflowClient, run_id: str) -> ArtifactRepository:
    uri = client.get_run(run_id).info.artifact_uri
    return get_artifact_repository(uri, tracking_uri=client.tracking_uri)
