"""A training's checkpoint lies with its MLflow run, so that another machine can go on from it."""

import hashlib
from pathlib import Path

from mlflow import MlflowClient
from mlflow.exceptions import MlflowException

from tasks.errors import DamagedCheckpointError
from tasks.registry.connection import explained
from tasks.registry.runs import MODEL_TAG, artifacts_of, own_places, search_runs

CHECKPOINT_TAG = "tandem.checkpoint"
HASH_TAG = "tandem.checkpoint_hash"
"""Set before the tag of the step, which says that all is there."""
CHECKPOINTS = "checkpoints"
"""The folder among a run's files."""


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
        artifacts_of(client, run_id).delete_artifacts(_checkpoint(step))
        return
    client.set_tag(run_id, HASH_TAG, _hash(folder))
    client.set_tag(run_id, CHECKPOINT_TAG, str(step))
    if last is not None:
        artifacts_of(client, run_id).delete_artifacts(_checkpoint(last))


@explained
def read_step(client: MlflowClient, run_id: str) -> int | None:
    """The step of the checkpoint that a run has; None where it has none."""
    step = client.get_run(run_id).data.tags.get(CHECKPOINT_TAG)
    return int(step) if step else None


@explained
def fetch_checkpoint(client: MlflowClient, run_id: str, folder: Path) -> Path | None:
    """Download a run's checkpoint into a folder; None where it has none.

    Raises DamagedCheckpointError where it is not as it was kept, as after a disk that was full or a power cut.
    """
    step = read_step(client, run_id)
    if step is None:
        return None
    folder.mkdir(parents=True, exist_ok=True)
    kept = client.get_run(run_id).data.tags.get(HASH_TAG)
    artifacts = artifacts_of(client, run_id)
    if artifacts.list_artifacts(_checkpoint(step)):
        fetched = Path(artifacts.download_artifacts(_checkpoint(step), str(folder)))
        if kept in (None, _hash(fetched)):  # None: by a Tandem that kept no hash
            return fetched
    raise DamagedCheckpointError(f"the checkpoint of step {step} is damaged: the training begins anew")


@explained
def forget_checkpoint(client: MlflowClient, run_id: str) -> None:
    """Delete a run's checkpoint, which nobody needs once its adapter is registered."""
    step = read_step(client, run_id)
    if step is not None:
        client.delete_tag(run_id, CHECKPOINT_TAG)
        artifacts_of(client, run_id).delete_artifacts(_checkpoint(step))


@explained
def old_checkpoints(client: MlflowClient, before: float) -> dict[str, str]:
    """The runs that ended before a time (seconds since the epoch) and still have a checkpoint, with their models."""
    query = f"tags.`{CHECKPOINT_TAG}` != '' and attributes.status != 'RUNNING'"
    found = search_runs(client, own_places(client), f"{query} and attributes.end_time < {int(before * 1000)}")
    return {run.info.run_id: run.data.tags.get(MODEL_TAG, "") for run in found}


def _files(folder: Path) -> set[Path]:
    return set(folder.rglob("*"))


def _hash(folder: Path) -> str:
    digest = hashlib.sha256()
    for file in sorted(file for file in folder.rglob("*") if file.is_file()):
        digest.update(f"{file.relative_to(folder)} {file.stat().st_size}\n".encode())
        with file.open("rb") as opened:
            digest.update(hashlib.file_digest(opened, "sha256").digest())
    return digest.hexdigest()


def _checkpoint(step: int) -> str:
    return f"{CHECKPOINTS}/checkpoint-{step}"
