"""Versions of a model: registered whole or not at all, found by number or by alias."""

import json
import tempfile
import warnings
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Literal

import mlflow.pyfunc
from mlflow import MlflowClient
from mlflow.artifacts import download_artifacts
from mlflow.entities.model_registry import ModelVersion
from mlflow.exceptions import MlflowException
from mlflow.models import ModelSignature
from mlflow.store.artifact.artifact_repository_registry import get_artifact_repository
from mlflow.types.schema import AnyType, ColSpec, DataType, ParamSchema, ParamSpec, Schema

from tasks.errors import RegistryError
from tasks.records import Version
from tasks.registry.connection import explained, registry
from tasks.registry.marks import (
    KIND_TAG,
    NAME_TAG,
    STATE_TAG,
    VERSION_TAG,
    check_ours,
    copied_from,
    find_model,
    is_ours,
    own_models,
    renamed,
    was_renamed,
)
from tasks.registry.prompts import ONLY_PROMPTS, Turn, is_prompt, turns_of
from tasks.registry.runs import read_artifact

LAST_NUMBER_TAG = "tandem.last_number"
PART_TAG = "tandem.part."
"""What the tags of a release begin with that name its parts: ``tandem.part.index`` = ``samples@3``."""
TYPES = {str: DataType.string, int: DataType.long, float: DataType.double, bool: DataType.boolean}


@dataclass(frozen=True, slots=True)
class Copy:
    """A version that is a copy of another one."""

    into: str
    number: int
    name: str
    """Of the model that it was copied from."""
    of: int


@explained
def next_number(client: MlflowClient, name: str) -> int:
    """The number the next registered version will get.

    MLflow's SQL store keeps the row of a deleted version and counts on from it without showing it, so the
    highest number ever given is kept as a tag of the model.
    """
    model = find_model(client, name)
    if model is None:
        return 1
    numbers = [int(version.version) for version in _newest(client, name)]
    return max(int(model.tags.get(LAST_NUMBER_TAG, 0)), *numbers, 0) + 1


@explained
def register(
    client: MlflowClient,
    name: str,
    run_id: str,
    manifest: Mapping[str, Any],
    *,
    kind: Literal["index", "adapter", "release"],
    number: int,
    entry_point: str,
    requirements: Sequence[str],
    params: Mapping[str, type] | None = None,
    tags: Mapping[str, Any] | None = None,
    description: str | None = None,
    files: Mapping[str, Path] | None = None,
) -> Version:
    """Register ``manifest`` as version ``number`` (see `next_number`) of ``name``, loadable as a pyfunc.

    ``files`` are folders or files that the version needs beside its manifest, by the name under which the entry
    point takes them. ``params`` names what ``predict`` takes beside the texts, and its types; what is not given is
    not handed on. The version appears in the last step, whole: a process that is killed leaves at most artifacts of
    its run. Raises RegistryError where the model is somebody else's, or somebody registered a version in between;
    nothing is left of it then.
    """
    _make_sure_model_exists(client, name, kind)
    _log_model(client, run_id, manifest, entry_point, requirements, params or {}, files or {})
    source = f"{client.get_run(run_id).info.artifact_uri}/model"
    every_tag = {KIND_TAG: kind} | {key: str(value) for key, value in (tags or {}).items()}
    version = client.create_model_version(name, source, run_id, tags=every_tag, description=description)
    for tag, value in ((LAST_NUMBER_TAG, version.version), (NAME_TAG, name)):
        registry(client).set_registered_model_tag(name, tag, value)
    if int(version.version) != number:
        registry(client).delete_model_version(name, version.version)
        raise RegistryError(
            f"MLflow gave {name} the version number {version.version} instead of {number}: somebody "
            "registered or deleted a version meanwhile. Nothing was registered: run again."
        )
    return _record(version)


@explained
def register_prompt(client: MlflowClient, name: str, turns: Sequence[Turn], description: str = "") -> Version:
    """The newest version of a prompt, if it has these turns; else a new one in MLflow's prompt registry.

    Raises RegistryError where the name is that of an index, an adapter or a release.
    """
    versions = search_versions(client, name)
    if versions and not is_prompt(versions[-1]):
        raise RegistryError(f"{name} is no prompt in MLflow: give the file under conf/prompts/ a name of its own")
    check_ours(client, name)
    if versions and turns_of(versions[-1]) == list(turns):
        return _record(versions[-1])
    mark = {KIND_TAG: "prompt", NAME_TAG: name}
    made = client.register_prompt(name, list(turns), commit_message=description or None, tags=mark)
    return get(client, name, int(made.version))


@explained
def resolve_champion(client: MlflowClient, name: str) -> Version | None:
    """The live version, or None. One query: cheap enough to ask before every answer."""
    version = _find(client, name, "champion")
    return _record(version) if version else None


@explained
def get(client: MlflowClient, name: str, which: int | str) -> Version:
    """The version with this number or alias. Raises RegistryError where there is none."""
    return _record(_get(client, name, which))


def pin(client: MlflowClient, named: str) -> str:
    """``samples@3`` for ``samples@champion``. Raises RegistryError where there is no such version."""
    name, _, which = named.partition("@")
    return f"{name}@{get(client, name, int(which) if which.isdigit() else which).number}"


@explained
def list_versions(client: MlflowClient, name: str) -> list[Version]:
    """Every version of ours that exists, oldest first."""
    aliases = _aliases(client, name)
    versions = [_record(version) for version in own_versions(client, name)]
    return [
        Version(known.name, known.number, known.run_id, known.created, tuple(aliases.get(known.number, ())))
        for known in versions
    ]


@explained
def load_manifest(client: MlflowClient, name: str, which: int | str) -> dict[str, Any]:
    """The manifest of the version with this number or alias."""
    version = _get(client, name, which)
    if is_prompt(version):
        return {"prompt": name, "tag": f"v{version.version}", "turns": turns_of(version)}
    source = client.get_model_version_download_uri(name, version.version)
    try:
        return json.loads(read_artifact(client, f"{source}/artifacts/manifest.json"))
    except (OSError, ValueError, MlflowException) as error:
        raise RegistryError(
            f"the manifest of {name} version {version.version} cannot be read from {source}: {error}"
        ) from error


@explained
def fetch_file(client: MlflowClient, name: str, number: int, file: str, folder: Path) -> Path:
    """Download one of a version's `files` into a folder."""
    source = client.get_model_version_download_uri(name, str(number))
    return Path(
        download_artifacts(f"{source}/artifacts/{file}", dst_path=str(folder), tracking_uri=client.tracking_uri)
    )


@explained
def has_file(client: MlflowClient, name: str, number: int, file: str) -> bool:
    """Whether one of a version's `files` is there, with anything in it."""
    source = client.get_model_version_download_uri(name, str(number))
    return bool(get_artifact_repository(source, tracking_uri=client.tracking_uri).list_artifacts(f"artifacts/{file}"))


@explained
def newest_tags(client: MlflowClient, name: str) -> dict[str, str]:
    """The tags of the newest version of ours; none where there is no version."""
    return next((dict(version.tags) for version in reversed(own_versions(client, name))), {})


@explained
def list_names(client: MlflowClient) -> list[str]:
    """The name of every model and prompt that Tandem registered, in alphabetical order."""
    return sorted(model.name for model in own_models(client))


def own_versions(client: MlflowClient, name: str) -> list[ModelVersion]:
    """Every version that Tandem registered, as MLflow gives it, oldest first."""
    return [version for version in search_versions(client, name) if is_ours(version)]


def search_versions(client: MlflowClient, name: str) -> list[ModelVersion]:
    """Every version of a model or prompt, whoever registered it, oldest first, over all pages."""
    for query in _queries(name):
        if versions := _search(client, query):
            return versions
    return []


def _search(client: MlflowClient, query: str) -> list[ModelVersion]:
    order = ["version_number ASC"]
    page = client.search_model_versions(query, order_by=order)
    versions = list(page)
    while page.token:
        page = client.search_model_versions(query, order_by=order, page_token=page.token)
        versions += page
    return versions


@explained
def tags_in(client: MlflowClient, table: str) -> set[str]:
    """The Lance tags of all versions in a table, under whatever name they are registered now."""
    index = table.rpartition("-")[0]
    named = _search(client, f"tag.`{STATE_TAG}` LIKE '{table}@%'")
    unsaid = [version for version in own_versions(client, index) if STATE_TAG not in version.tags]
    return {version.tags.get(VERSION_TAG, f"v{version.version}") for version in (*named, *unsaid)}


@explained
def copies(client: MlflowClient) -> list[Copy]:
    """The versions that MLflow's "Promote model" copied of ours, into whichever model."""
    marked = _search(client, f"tag.`{KIND_TAG}` != ''")
    found = [(version, source) for version in marked if (source := copied_from(version))]
    return [Copy(version.name, int(version.version), *source) for version, source in found]


@explained
def is_registered(client: MlflowClient, run_id: str) -> bool:
    """Whether any version of any model has its files in this run, whoever registered it."""
    return bool(client.search_model_versions(f"run_id = '{run_id}'", max_results=1))


def parts_of(version: ModelVersion) -> list[str]:
    """The parts that a release names, as ``name@number``; none of another kind of version."""
    return [part for key, part in version.tags.items() if key.startswith(PART_TAG)]


def _newest(client: MlflowClient, name: str) -> list[ModelVersion]:
    """The newest version, if there is any."""
    for query in _queries(name):
        if found := client.search_model_versions(query, max_results=1, order_by=["version_number DESC"]):
            return list(found)
    return []


def _queries(name: str) -> tuple[str, str]:
    """For the versions of a model, and for those of a prompt of that name: there is only one of the two."""
    return f"name = '{name}'", f"name = '{name}' AND {ONLY_PROMPTS}"


def _get(client: MlflowClient, name: str, which: int | str) -> ModelVersion:
    version = _find(client, name, which)
    if version is None:
        numbers = [str(known.number) for known in list_versions(client, name)]
        now = renamed(client).get(name)
        unknown = was_renamed(name, now) if now else "nothing is registered under that name"
        known = f"it has {', '.join(numbers)}" if numbers else unknown
        raise RegistryError(f"{name} has no version {which}: {known}")
    return version


def _find(client: MlflowClient, name: str, which: int | str) -> ModelVersion | None:
    try:
        if isinstance(which, int):
            return registry(client).get_model_version(name, str(which))
        return registry(client).get_model_version_by_alias(name, which)
    except MlflowException as error:
        # MLflow says "invalid parameter" for an alias that is not set, and with authentication it denies whatever is
        # asked of a model that does not exist.
        if error.error_code in ("RESOURCE_DOES_NOT_EXIST", "INVALID_PARAMETER_VALUE"):
            return None
        if error.error_code == "PERMISSION_DENIED" and find_model(client, name) is None:
            return None
        raise


def _aliases(client: MlflowClient, name: str) -> dict[int, list[str]]:
    model = find_model(client, name)
    by_number: dict[int, list[str]] = {}
    for alias, number in sorted(model.aliases.items()) if model else ():
        by_number.setdefault(int(number), []).append(alias)
    return by_number


def _record(version: ModelVersion) -> Version:
    created = version.creation_timestamp / 1000
    return Version(version.name, int(version.version), version.run_id or "", created, tuple(version.aliases))


def _make_sure_model_exists(client: MlflowClient, name: str, kind: str) -> None:
    try:
        client.create_registered_model(name, tags={KIND_TAG: kind, NAME_TAG: name})
    except MlflowException as error:
        if error.error_code != "RESOURCE_ALREADY_EXISTS":
            raise
        check_ours(client, name)


def _log_model(
    client: MlflowClient,
    run_id: str,
    manifest: Mapping[str, Any],
    entry_point: str,
    requirements: Sequence[str],
    params: Mapping[str, type],
    files: Mapping[str, Path],
) -> None:
    signature = ModelSignature(
        inputs=Schema([ColSpec(DataType.string)]),
        outputs=Schema([ColSpec(AnyType())]),
        params=ParamSchema([ParamSpec(param, TYPES[kind], None) for param, kind in params.items()]),
    )
    with tempfile.TemporaryDirectory() as folder, warnings.catch_warnings():
        warnings.filterwarnings("ignore", message=".*An input example was not provided")
        manifest_file = Path(folder, "manifest.json")
        manifest_file.write_text(json.dumps(manifest, indent=1), encoding="utf-8")
        mlflow.pyfunc.save_model(
            f"{folder}/model",
            python_model=str(Path(__file__).with_name("pyfunc.py")),
            artifacts={"manifest": str(manifest_file)} | {name: str(path) for name, path in files.items()},
            model_config={"entry_point": entry_point},
            pip_requirements=list(requirements),
            signature=signature,
        )
        client.log_artifacts(run_id, f"{folder}/model", "model")
