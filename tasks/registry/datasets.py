"""Data sets of approved rows in MLflow: a version is a run whose artifacts are the rows, and which never changes.

The experiment ``dataset-<name>`` holds the versions of one data set.
"""

import json
from collections.abc import Mapping, Sequence
from hashlib import sha256
from pathlib import Path
from typing import Any

from mlflow import MlflowClient
from mlflow.entities import Run, ViewType

from tasks.errors import RegistryError
from tasks.records import DataVersion
from tasks.registry.connection import explained
from tasks.registry.marks import experiment_id, find_experiment
from tasks.registry.runs import (
    DESCRIPTION_TAG,
    finish,
    log,
    log_dataset,
    read_artifact,
    search_runs,
    start_run,
)

NUMBER_TAG, DIGEST_TAG, PARENT_TAG = "tandem.dataset_version", "tandem.digest", "tandem.parent"
STARTED_TAG = "tandem.fine_tune"
"""What was started from a version."""
TRACES_AT_ONCE = 100
"""MLflow links no more to a run in one go."""

Rows = Sequence[Mapping[str, Any]]


def digest_of(train: Rows, held_out: Rows) -> str:
    """Hash over the rows and their sides, whatever their order: ``sha256:…``."""
    sides = (("train", train), ("held_out", held_out))
    lines = sorted(f"{side} {json.dumps(row, sort_keys=True)}\n" for side, rows in sides for row in rows)
    return "sha256:" + sha256("".join(lines).encode("utf-8", "surrogatepass")).hexdigest()


@explained
def keep_dataset(
    client: MlflowClient, name: str, train: Rows, held_out: Rows, traces: Sequence[str], source: str, why: str
) -> DataVersion:
    """The rows as the next version; the newest one, where it holds the same. The caller lets nobody else add one.

    It has its number in the last step: a process that is killed before that leaves a run that is no version.

    Args:
        traces: ids of the traces that the rows come from.
        source: id of the run that made it.
        why: its description.
    """
    digest, newest = digest_of(train, held_out), newest_dataset(client, name)
    if newest and newest.digest == digest:
        return newest
    number = _last_number(client, name) + 1
    parent = newest.pinned if newest else ""
    tags = {DIGEST_TAG: digest, PARENT_TAG: parent, "tandem.curation_run": source, DESCRIPTION_TAG: why}
    run_id = start_run(client, f"dataset-{name}", f"{name}@{number}", f"dataset-{name}", tags)
    counts = {"train": len(train), "held_out": len(held_out)}
    texts = {f"{side}.jsonl": _lines(rows) for side, rows in (("train", train), ("held_out", held_out))}
    log(client, run_id, texts=texts, metrics=counts)
    log_dataset(client, run_id, name, digest, [f"run {source}", parent] if parent else [f"run {source}"], counts)
    for start in range(0, len(traces), TRACES_AT_ONCE):
        client.link_traces_to_run(list(traces[start : start + TRACES_AT_ONCE]), run_id)
    log(client, run_id, tags={NUMBER_TAG: number})
    finish(client, run_id)
    return DataVersion(name, number, digest, counts["train"], counts["held_out"], run_id)


@explained
def newest_dataset(client: MlflowClient, name: str) -> DataVersion | None:
    """The newest version of a data set, if there is one."""
    return max(_versions(client, name), key=lambda version: version.number, default=None)


@explained
def find_dataset(client: MlflowClient, name: str, which: str) -> DataVersion:
    """The version with this number, or the ``newest``. Raises RegistryError where there is none."""
    versions = {str(version.number): version for version in _versions(client, name)}
    newest = max(versions, key=int, default="")
    found = versions.get(newest if which == "newest" else which)
    if found is None:
        known = f"it has {', '.join(sorted(versions, key=int))}" if versions else "`tandem curate` made none yet"
        raise RegistryError(f"the data set {name} has no version {which}: {known}")
    return found


@explained
def fetch_rows(client: MlflowClient, version: DataVersion, side: str, folder: Path) -> Path:
    """Write the rows of one side, ``train`` or ``held_out``, to a file in the folder."""
    folder.mkdir(parents=True, exist_ok=True)
    file = folder / f"{version.pinned}-{side}.jsonl"
    text = read_artifact(client, f"{client.get_run(version.run_id).info.artifact_uri}/{side}.jsonl")
    file.write_text(text, encoding="utf-8")
    return file


@explained
def started_from(client: MlflowClient, name: str) -> dict[DataVersion, str]:
    """By version, what was started from it, of those from which anything was."""
    runs = _runs(client, name)
    return {_version(name, run): run.data.tags[STARTED_TAG] for run in runs if STARTED_TAG in run.data.tags}


def _versions(client: MlflowClient, name: str) -> list[DataVersion]:
    return [_version(name, run) for run in _runs(client, name)]


def _runs(client: MlflowClient, name: str) -> list[Run]:
    experiment = find_experiment(client, f"dataset-{name}")
    return search_runs(client, [experiment.experiment_id], f"tags.`{NUMBER_TAG}` != ''") if experiment else []


def _version(name: str, run: Run) -> DataVersion:
    tags, metrics = run.data.tags, run.data.metrics
    counts = int(metrics["train"]), int(metrics["held_out"])
    return DataVersion(name, int(tags[NUMBER_TAG]), tags[DIGEST_TAG], *counts, run.info.run_id)


def _last_number(client: MlflowClient, name: str) -> int:
    """Of the versions that were ever made, those deleted since included."""
    experiment = experiment_id(client, f"dataset-{name}")
    runs = client.search_runs([experiment], f"tags.`{NUMBER_TAG}` != ''", ViewType.ALL)
    return max((int(run.data.tags[NUMBER_TAG]) for run in runs), default=0)


def _lines(rows: Rows) -> str:
    return "".join(json.dumps(row, ensure_ascii=False) + "\n" for row in rows)
