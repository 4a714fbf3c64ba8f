"""The mark on everything that Tandem makes in MLflow, by which it knows its own among what others keep there.

A model, a version and an experiment without the mark belong to somebody else: they are neither listed nor changed.
"""

import re

from mlflow import MlflowClient
from mlflow.entities import Experiment, ViewType
from mlflow.entities.model_registry import ModelVersion, RegisteredModel
from mlflow.exceptions import MlflowException

from tasks.errors import RegistryError
from tasks.registry.connection import database_of, explained, registry
from tasks.registry.prompts import ONLY_PROMPTS, is_prompt

KIND_TAG = "tandem.kind"
"""Of a model and of its versions: index, adapter, release or prompt."""
NAME_TAG = "tandem.name"
"""Of a model: its name in the configuration. MLflow's page can rename a model."""
VERSION_TAG = "tandem.version"
"""Of a version: the Lance tag of its number. Versions had it before they had the mark."""
STATE_TAG = "tandem.state"
"""Of a version of an index: its table, its state there, and what it was made with. Of a release: its parts."""
EXPERIMENT_TAG = "tandem.experiment"
"""Of an experiment: the name by which Tandem knows it."""
COPIED = re.compile(r"models:/(?P<name>[^/]+)/(?P<number>\d+)")
ONLY_OURS = f"tag.`{KIND_TAG}` != ''"
BESIDE = "tandem-{}"
"""What an experiment of ours is called where somebody else has one of its name."""


def is_ours(version: ModelVersion) -> bool:
    """Whether Tandem made a version of a model of its own; people may write versions of our prompts in MLflow."""
    return is_prompt(version) or (has_mark(version) and copied_from(version) is None)


def has_mark(version: ModelVersion) -> bool:
    return KIND_TAG in version.tags or VERSION_TAG in version.tags


def copied_from(version: ModelVersion) -> tuple[str, int] | None:
    """Name and number of the version of which MLflow's "Promote model" made this one; None where it made none."""
    found = COPIED.fullmatch(version.source or "")
    return (found["name"], int(found["number"])) if found else None


def kind_of_model(client: MlflowClient, name: str) -> str:
    """What its mark says; empty where it has none."""
    model = find_model(client, name)
    return model.tags.get(KIND_TAG, "") if model else ""


def own_models(client: MlflowClient) -> list[RegisteredModel]:
    """Every model and prompt of Tandem's."""
    return search_models(client, ONLY_OURS) + search_models(client, f"{ONLY_OURS} AND {ONLY_PROMPTS}")


def search_models(client: MlflowClient, query: str) -> list[RegisteredModel]:
    """Every model that a query finds, over all pages; prompts only where it asks for them."""
    page = client.search_registered_models(query)
    models = list(page)
    while page.token:
        page = client.search_registered_models(query, page_token=page.token)
        models += page
    return models


def find_model(client: MlflowClient, name: str) -> RegisteredModel | None:
    """The model of this name, whoever made it; None where there is none."""
    try:
        return registry(client).get_registered_model(name)
    except MlflowException as error:
        if error.error_code != "RESOURCE_DOES_NOT_EXIST":
            raise
        return None


@explained
def check_ours(client: MlflowClient, name: str) -> None:
    """Raise RegistryError where a model of this name was made by somebody else, or has another name now."""
    model = find_model(client, name)
    if model is None and (now := renamed(client).get(name)):
        raise RegistryError(f"{was_renamed(name, now)}: {after_renaming(now)}")
    if model and KIND_TAG not in model.tags:
        raise RegistryError(
            f"the model {name} in MLflow was not made by Tandem, so it is left alone: give yours another name in its "
            "configuration"
        )


def renamed(client: MlflowClient) -> dict[str, str]:
    """What the models are called now that somebody renamed in MLflow, by the names that they had before."""
    names = {model.name: model.tags.get(NAME_TAG, model.name) for model in own_models(client)}
    return {before: now for now, before in names.items() if before not in names}


def was_renamed(name: str, now: str) -> str:
    return f"{name} was renamed {now} in MLflow"


def after_renaming(now: str) -> str:
    """What to do about it."""
    return f"rename it back there, or write `name: {now}` in its configuration"


def own_experiments(client: MlflowClient, names: str = "%", view: int = ViewType.ACTIVE_ONLY) -> list[Experiment]:
    """Tandem's experiments whose names are like this, with ``%`` for anything."""
    return search_experiments(client, f"tags.`{EXPERIMENT_TAG}` LIKE '{names}'", view)


def search_experiments(client: MlflowClient, query: str | None, view: int = ViewType.ACTIVE_ONLY) -> list[Experiment]:
    """Every experiment that a query finds, over all pages."""
    page = client.search_experiments(view, filter_string=query)
    experiments = list(page)
    while page.token:
        page = client.search_experiments(view, filter_string=query, page_token=page.token)
        experiments += page
    return experiments


def find_experiment(client: MlflowClient, name: str, view: int = ViewType.ACTIVE_ONLY) -> Experiment | None:
    """Tandem's experiment of this name, whatever it is called in MLflow; None where there is none."""
    query = f"tags.`{EXPERIMENT_TAG}` = '{name}'"
    return next(iter(client.search_experiments(view, max_results=1, filter_string=query)), None)


def experiment_id(client: MlflowClient, name: str) -> str:
    """The id of Tandem's experiment of this name, which is made where it is missing, and restored where deleted."""
    if found := find_experiment(client, name):
        return found.experiment_id
    if deleted := find_experiment(client, name, ViewType.DELETED_ONLY):
        client.restore_experiment(deleted.experiment_id)
        return deleted.experiment_id
    return _make_experiment(client, name, name) or _make_experiment(client, name, BESIDE.format(name)) or _taken(name)


def _make_experiment(client: MlflowClient, name: str, title: str) -> str | None:
    """Make it under this title; None where somebody else has an experiment of that title."""
    location = artifact_location(client, title)
    try:
        return client.create_experiment(title, artifact_location=location, tags={EXPERIMENT_TAG: name})
    except MlflowException as error:
        if error.error_code != "RESOURCE_ALREADY_EXISTS":
            raise
    found = find_experiment(client, name)  # another process may have been first
    return found.experiment_id if found else None


def _taken(name: str) -> str:
    raise RegistryError(
        f"MLflow has experiments {name} and {BESIDE.format(name)} that Tandem did not make: rename one of them"
    )


def artifact_location(client: MlflowClient, experiment: str) -> str | None:
    """Beside the embedded database (MLflow's default is the working directory); a server decides itself."""
    if not client.tracking_uri.startswith("sqlite:"):
        return None
    return (database_of(client.tracking_uri).parent / "artifacts" / experiment).as_uri()
