"""Marks, once, what Tandem made in MLflow before there was a mark.

That it was done is kept in MLflow: a server full of others' models is not searched by every command.
"""

from mlflow import MlflowClient
from mlflow.entities import Experiment, ViewType
from mlflow.entities.model_registry import ModelVersion, RegisteredModel
from mlflow.tracing.client import TracingClient

from tasks.errors import RegistryError, StoreError
from tasks.records import kind_of
from tasks.registry.connection import explained, registry
from tasks.registry.ledger import EXPERIMENT, names
from tasks.registry.marks import (
    EXPERIMENT_TAG,
    KIND_TAG,
    NAME_TAG,
    artifact_location,
    copied_from,
    experiment_id,
    search_experiments,
    search_models,
)
from tasks.registry.prompts import ONLY_PROMPTS
from tasks.registry.runs import MODEL_TAG, own_places
from tasks.registry.versions import load_manifest, parts_of, search_versions

MARKED_TAG = "tandem.marked"
"""Of the experiment ``ledger``: what is older has its mark."""
LEDGER_TAGS = "tags.what != '' and tags.name != '' and tags.before != '' and tags.after != ''"
TRACE_TAG = "tandem.release"
_DONE: set[str] = set()
"""The addresses of which this process knows that it was done there."""
OURS = "tandem."
"""How every tag of ours begins."""


@explained
def adopt(client: MlflowClient) -> None:
    """Mark the experiments, models and versions of an older Tandem, if that was not done yet."""
    if client.tracking_uri in _DONE:
        return
    if not client.search_experiments(ViewType.ALL, max_results=1, filter_string=f"tags.`{MARKED_TAG}` != ''"):
        _mark_all(client)
    _DONE.add(client.tracking_uri)


def _mark_all(client: MlflowClient) -> None:
    for experiment in search_experiments(client, None):
        if EXPERIMENT_TAG not in experiment.tags and _is_own_experiment(client, experiment):
            client.set_experiment_tag(experiment.experiment_id, EXPERIMENT_TAG, experiment.name)
    _adopt_models(client)
    client.set_experiment_tag(experiment_id(client, EXPERIMENT), MARKED_TAG, "true")


def _is_own_experiment(client: MlflowClient, experiment: Experiment) -> bool:
    """Tandem's lie at a place of their own, or hold runs or traces that only Tandem makes."""
    places = [experiment.experiment_id]
    if experiment.artifact_location == artifact_location(client, experiment.name):
        return True
    own = LEDGER_TAGS if experiment.name == EXPERIMENT else f"tags.`{MODEL_TAG}` != ''"
    if client.search_runs(places, own, max_results=1):
        return True
    query = f"tags.`{TRACE_TAG}` != ''"
    return bool(TracingClient(client.tracking_uri).search_traces(locations=places, filter_string=query, max_results=1))


def _adopt_models(client: MlflowClient) -> None:
    """Prompts are ours where the ledger has moves of them, or a release of ours names them."""
    models = [model for model in search_models(client, "") if KIND_TAG not in model.tags]
    parts = {part.partition("@")[0] for model in models for part in _adopt_model(client, model)}
    prompts = {model.name for model in search_models(client, ONLY_PROMPTS) if KIND_TAG not in model.tags}
    for name in prompts & (parts | names(client)):
        _mark_model(client, name, "prompt", name)


def _adopt_model(client: MlflowClient, model: RegisteredModel) -> list[str]:
    """Mark a model and its versions if they are ours; the parts of those that are releases."""
    read = [
        (version, _manifest(client, version))
        for version in search_versions(client, model.name)
        if copied_from(version) is None
    ]
    own = [version for version, manifest in read if manifest or _has_own_tag(version.tags)]
    if not own and not _has_own_tag(model.tags) and (read or not _is_known(client, model.name)):
        return []
    known = next((manifest for _, manifest in read[::-1] if manifest), {"index": model.name})
    kind = kind_of(known)
    for version in own:
        registry(client).set_model_version_tag(model.name, version.version, KIND_TAG, kind)
    _mark_model(client, model.name, kind, str(known[kind]))
    return [part for version in own for part in parts_of(version)]


def _mark_model(client: MlflowClient, name: str, kind: str, configured: str) -> None:
    registry(client).set_registered_model_tag(name, NAME_TAG, configured)
    registry(client).set_registered_model_tag(name, KIND_TAG, kind)


def _manifest(client: MlflowClient, version: ModelVersion) -> dict[str, object]:
    """The manifest of a version; empty where it has none of ours."""
    try:
        manifest = load_manifest(client, version.name, int(version.version))
        kind_of(manifest)
    except (RegistryError, StoreError, TypeError):
        return {}
    return manifest


def _has_own_tag(tags: dict[str, str]) -> bool:
    return any(tag.startswith(OURS) for tag in tags)


def _is_known(client: MlflowClient, name: str) -> bool:
    """Whether a run of ours worked on a model without versions: they may be gone, or it was killed before the first."""
    places = own_places(client)
    return bool(places and client.search_runs(places, f"tags.`{MODEL_TAG}` = '{name}'", max_results=1))
