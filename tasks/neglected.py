"""What a hand in MLflow's page leaves behind that moves no pointer: deleted records, copied versions, nothing live."""

from collections.abc import Iterator

from tasks.records import Trouble
from tasks.registry.connection import MlflowClient
from tasks.registry.deleted import find_deleted, is_ledger_deleted
from tasks.registry.ledger import made
from tasks.registry.marks import kind_of_model
from tasks.registry.pointers import is_part_of_live, pointers
from tasks.registry.versions import copies, list_versions


def examine_ledger(client: MlflowClient, registered: list[str]) -> Iterator[Trouble]:
    """The ledger is one for all models; mending any of them restores it."""
    if registered and is_ledger_deleted(client):
        what = "the experiment ledger was deleted in MLflow: what was live, when and why is not known"
        yield Trouble(what, f"tandem mend {registered[0]}")


def examine_copies(client: MlflowClient) -> Iterator[Trouble]:
    """What MLflow's button "Promote model" made."""
    for copy in copies(client):
        live = pointers(client, copy.name).champion
        now = f"{copy.name} version {live} is live as before" if live else f"nothing of {copy.name} is live"
        yield Trouble(
            f'{copy.into}: version {copy.number} is a copy of {copy.name} version {copy.of}, as the button "Promote '
            f'model" in MLflow makes it; it moves nothing: {now}',
            f"tandem promote {copy.name} {copy.of}, if it was to go live; and delete the copy in MLflow",
        )


def examine_deleted(client: MlflowClient, name: str) -> Iterator[Trouble]:
    """Until `mlflow gc` runs there, the files of the versions are as they were."""
    gone = find_deleted(client, name)
    every = [f"the experiment {title}" for title in gone.experiments.values()]
    every += [f"the run of version {number}" for number in gone.runs]
    for what in every:
        told = f"{name}: {what} was deleted in MLflow, and `mlflow gc` would take the files of versions with it"
        yield Trouble(told, f"tandem mend {name}")


def is_nothing_live(client: MlflowClient, name: str) -> bool:
    """Whether a model has versions, none is live by itself or in a live release, and one should be.

    An index should always have one; of the others, those that had one before.
    """
    versions = list_versions(client, name)
    if not versions or pointers(client, name).champion is not None or is_part_of_live(client, name):
        return False
    was_live = any(entry.move.what == "champion" for entry in made(client, name))
    return was_live or kind_of_model(client, name) == "index"
