"""What retention is decided on, and the files of runs whose version is gone."""

from mlflow import MlflowClient

from tasks.records import Registered
from tasks.registry import ledger
from tasks.registry.checkpoints import CHECKPOINTS
from tasks.registry.connection import explained
from tasks.registry.pointers import KEEP_TAG, pointers
from tasks.registry.prompts import is_prompt
from tasks.registry.runs import MODEL_TAG, artifacts_of, own_places, search_runs
from tasks.registry.versions import is_registered, list_names, own_versions, parts_of

EMPTIED_TAG = "tandem.emptied"
"""Of a run whose version is gone, and whose files went with it."""


@explained
def read_registered(client: MlflowClient) -> list[Registered]:
    """Every version of every index, adapter and release. Prompts are texts of a few lines, which always stay."""
    return [version for name in list_names(client) for version in _read(client, name)]


def _read(client: MlflowClient, name: str) -> list[Registered]:
    versions = [version for version in own_versions(client, name) if not is_prompt(version)]
    if not versions:
        return []
    now = pointers(client, name)
    lived = {entry.move.after for entry in ledger.made(client, name) if entry.move.what == "champion"}
    reasons = {now.candidate: "waits for approval", now.previous: "was live before", now.champion: "is live"}
    held = f"{name} is held" if now.hold else ""
    return [
        Registered(
            name=name,
            number=int(version.version),
            created=version.creation_timestamp / 1000,
            lived=int(version.version) in lived,
            protected=reasons.get(int(version.version)) or version.tags.get(KEEP_TAG) or held,
            parts=tuple(parts_of(version)),
        )
        for version in versions
    ]


@explained
def runs_without_version(client: MlflowClient, name: str, tag: str) -> list[str]:
    """The ended runs that made a version of this model which no longer exists, or never did, and still have files.

    A version may be registered under another name by now: MLflow's page renames models, and copies versions.
    They are known by the tag that a version's run gets before the version is registered. The caller holds the model's
    lock, or a run may be about to register its version.
    """
    query = f"tags.`{MODEL_TAG}` = '{name}' and tags.`{tag}` != '' and attributes.status != 'RUNNING'"
    return [
        run.info.run_id
        for run in search_runs(client, own_places(client), query)
        if EMPTIED_TAG not in run.data.tags and not is_registered(client, run.info.run_id)
    ]


@explained
def empty_run(client: MlflowClient, run_id: str, keep: str, why: str) -> None:
    """Delete a run's files but one, and a checkpoint, which has a retention of its own. Safe to repeat."""
    files = artifacts_of(client, run_id)
    for file in files.list_artifacts():
        if file.path not in (keep, CHECKPOINTS):
            files.delete_artifacts(file.path)
    client.set_tag(run_id, EMPTIED_TAG, why)
