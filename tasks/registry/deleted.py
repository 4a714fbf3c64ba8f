"""What somebody deleted in MLflow's page, and MLflow still has: until `mlflow gc` runs there, it can be restored."""

from collections.abc import Iterator
from dataclasses import dataclass

from mlflow import MlflowClient
from mlflow.entities import LifecycleStage, ViewType
from mlflow.exceptions import MlflowException

from tasks.registry.connection import explained
from tasks.registry.ledger import EXPERIMENT
from tasks.registry.marks import EXPERIMENT_TAG, own_experiments
from tasks.registry.versions import list_versions


@dataclass(frozen=True, slots=True)
class Deleted:
    """Of one model: the runs of versions that are still registered, and the experiments of such runs."""

    experiments: dict[str, str]
    """Names by id."""
    runs: dict[int, str]
    """Ids by version."""


@explained
def is_ledger_deleted(client: MlflowClient) -> bool:
    return bool(own_experiments(client, EXPERIMENT, ViewType.DELETED_ONLY))


@explained
def restore_ledger(client: MlflowClient) -> list[str]:
    """Restore the ledger where it was deleted; a sentence on it."""
    gone = own_experiments(client, EXPERIMENT, ViewType.DELETED_ONLY)
    for experiment in gone:
        client.restore_experiment(experiment.experiment_id)
    return [f"restored the experiment {experiment.name}, which was deleted in MLflow" for experiment in gone]


@explained
def find_deleted(client: MlflowClient, name: str) -> Deleted:
    """What was deleted of a model whose versions are there."""
    gone = {
        each.experiment_id: each.tags[EXPERIMENT_TAG] for each in own_experiments(client, view=ViewType.DELETED_ONLY)
    }
    experiments, runs = {}, {}
    for number, run_id, place in _deleted_runs(client, name):
        if place in gone:
            experiments[place] = gone[place]
        else:
            runs[number] = run_id
    return Deleted(experiments, runs)


@explained
def restore_deleted(client: MlflowClient, name: str) -> list[str]:
    """Restore it; a sentence on each."""
    gone = find_deleted(client, name)
    for place in gone.experiments:
        client.restore_experiment(place)
    for run_id in gone.runs.values():
        client.restore_run(run_id)
    restored = [*(f"experiment {title}" for title in gone.experiments.values())]
    restored += [f"run of version {number}" for number in gone.runs]
    return [f"restored the {what}, which was deleted in MLflow" for what in restored]


def _deleted_runs(client: MlflowClient, name: str) -> Iterator[tuple[int, str, str]]:
    """Version, run and experiment of those whose run is marked as deleted."""
    for version in list_versions(client, name):
        try:
            run = client.get_run(version.run_id) if version.run_id else None
        except MlflowException as error:
            if error.error_code != "RESOURCE_DOES_NOT_EXIST":
                raise
            continue  # gone for good
        if run and run.info.lifecycle_stage == LifecycleStage.DELETED:
            yield version.number, version.run_id, run.info.experiment_id
