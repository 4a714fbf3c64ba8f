"""MLflow runs: what was done, with which settings, and what came out."""

import json
import os
import socket
import tempfile
from collections.abc import Iterable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Literal

import psutil
from mlflow import MlflowClient
from mlflow.artifacts import download_artifacts
from mlflow.entities import Dataset, DatasetInput, InputTag, Metric, Param, Run, RunTag
from mlflow.store.artifact.artifact_repo import ArtifactRepository
from mlflow.store.artifact.artifact_repository_registry import get_artifact_repository
from mlflow.system_metrics.system_metrics_monitor import SystemMetricsMonitor
from mlflow.utils.time import get_current_time_millis

from tasks.figures import picture_of
from tasks.registry.connection import explained
from tasks.registry.marks import EXPERIMENT_TAG, experiment_id, own_experiments

MODEL_TAG = "tandem.model"
PROCESS_TAG = "tandem.process"
"""Of a run: the machine, the process that works on it there, and when that was started."""
_OPEN: set[str] = set()
"""The runs that this process works on."""
CLOSED_TAG = "tandem.closed"
DESCRIPTION_TAG = "mlflow.note.content"
"""What MLflow's UI shows as the description of a run."""
BATCH = 100
PAGE = 1000
DECISION_TAG, CHAMPION_TAG, CANDIDATE_TAG = "tandem.decision", "tandem.champion", "tandem.candidate"
"""Of a run that compares releases: what it came to, and which they were."""


@dataclass(frozen=True, slots=True)
class Ran:
    """A run that ended well, and what came out."""

    run_id: str
    experiment: str
    at: float
    """When it began, in seconds since the epoch."""
    metrics: Mapping[str, float]
    tags: Mapping[str, str]


@explained
def start_run(
    client: MlflowClient, experiment: str, run_name: str, model: str, tags: Mapping[str, Any] | None = None
) -> str:
    """Start a run that works on ``model``; returns its id. The caller finishes it."""
    own = {MODEL_TAG: model, PROCESS_TAG: _process(os.getpid())}
    every_tag = own | {key: str(value) for key, value in (tags or {}).items()}
    run = client.create_run(experiment_id(client, experiment), tags=every_tag, run_name=run_name)
    _OPEN.add(run.info.run_id)
    return run.info.run_id


@explained
def reopen_run(client: MlflowClient, experiment: str, tag: str, value: str) -> str | None:
    """The id of the newest run of an experiment with this tag, which is RUNNING again; None where there is none."""
    query = f"tags.`{tag}` = '{value}'"
    found = client.search_runs([experiment_id(client, experiment)], query, max_results=1)
    if not found:
        return None
    run_id = found[0].info.run_id
    client.set_tag(run_id, PROCESS_TAG, _process(os.getpid()))
    client.update_run(run_id, status="RUNNING")
    if CLOSED_TAG in found[0].data.tags:
        client.delete_tag(run_id, CLOSED_TAG)
    _OPEN.add(run_id)
    return run_id


@explained
def has_run(client: MlflowClient, experiment: str, tags: Mapping[str, str]) -> bool:
    """Whether a run of the experiment that is not deleted has these tags."""
    query = " and ".join(f"tags.`{tag}` = '{value}'" for tag, value in tags.items())
    return bool(client.search_runs([experiment_id(client, experiment)], query, max_results=1))


@explained
def last_tags(client: MlflowClient, experiment: str, tag: str) -> dict[str, str]:
    """The tags of the newest finished run of an experiment that has this one; none where there is none."""
    query = f"attributes.status = 'FINISHED' and tags.`{tag}` != ''"
    found = client.search_runs([experiment_id(client, experiment)], query, max_results=1)
    return dict(found[0].data.tags) if found else {}


@explained
def log(
    client: MlflowClient,
    run_id: str,
    *,
    params: Mapping[str, Any] | None = None,
    metrics: Mapping[str, float] | None = None,
    tags: Mapping[str, Any] | None = None,
    texts: Mapping[str, str] | None = None,
    files: Iterable[Path] = (),
    figures: Mapping[str, Any] | None = None,
    step: int = 0,
) -> None:
    """Add to a run. ``texts`` and matplotlib ``figures`` are artifacts by file name, ``files`` keep their own names."""
    now = get_current_time_millis()
    all_params = [Param(key, str(value)) for key, value in (params or {}).items()]
    all_metrics = [Metric(key, float(value), now, step) for key, value in (metrics or {}).items()]
    all_tags = [RunTag(key, str(value)) for key, value in (tags or {}).items()]
    for start in range(0, max(len(all_params), len(all_metrics), len(all_tags)), BATCH):
        part = slice(start, start + BATCH)
        client.log_batch(run_id, metrics=all_metrics[part], params=all_params[part], tags=all_tags[part])
    for name, text in (texts or {}).items():
        client.log_text(run_id, text, name)
    for name, figure in (figures or {}).items():
        client.log_image(run_id, picture_of(figure), artifact_file=name)
    for file in files:
        client.log_artifact(run_id, str(file))


@explained
def log_table(client: MlflowClient, run_id: str, name: str, rows: Sequence[Mapping[str, Any]]) -> None:
    """Rows with the same columns as a table that MLflow's UI shows and compares; `name` ends in ``.json``."""
    client.log_table(run_id, {column: [row[column] for row in rows] for column in rows[0]}, name)


@explained
def read_table(client: MlflowClient, run_id: str, name: str) -> list[dict[str, Any]]:
    """The rows of a table as `log_table` wrote it."""
    table = json.loads(read_text(client, run_id, name))
    return [dict(zip(table["columns"], row, strict=True)) for row in table["data"]]


@explained
def finish(
    client: MlflowClient, run_id: str, status: Literal["FINISHED", "FAILED", "KILLED"] = "FINISHED", why: str = ""
) -> None:
    """End a run, with the reason where it ended early. Where MLflow does not take that, it counts as abandoned."""
    _OPEN.discard(run_id)
    if why:
        client.set_tag(run_id, CLOSED_TAG, why)
    client.set_terminated(run_id, status)


@explained
def read_text(client: MlflowClient, run_id: str, file: str) -> str:
    """A text artifact of a run, such as the scores by query of the version it registered."""
    return read_artifact(client, f"{client.get_run(run_id).info.artifact_uri}/{file}")


@explained
def read_tags(client: MlflowClient, run_id: str) -> dict[str, str]:
    """All tags of a run, MLflow's own among them."""
    return dict(client.get_run(run_id).data.tags)


@explained
def log_points(client: MlflowClient, run_id: str, points: Sequence[tuple[int, float, Mapping[str, float]]]) -> None:
    """Add points of curves to a run, each a step, its time in seconds since the epoch, and values by metric."""
    metrics = [
        Metric(name, value, int(at * 1000), step) for step, at, values in points for name, value in values.items()
    ]
    for start in range(0, len(metrics), PAGE):
        client.log_batch(run_id, metrics=metrics[start : start + PAGE])


@explained
def read_curve(client: MlflowClient, run_id: str, metric: str) -> tuple[list[int], list[float]]:
    """The steps of a metric and its values there; a step that was done twice has the later one."""
    points = {point.step: point.value for point in client.get_metric_history(run_id, metric)}
    return list(points), list(points.values())


@explained
def log_dataset(
    client: MlflowClient, run_id: str, name: str, version: str, sources: Sequence[str], profile: Mapping[str, Any]
) -> None:
    """Name the version of a data set as the run's input; `profile` are counts."""
    dataset = Dataset(
        name, version[:36], "files", json.dumps({"sources": list(sources)}), profile=json.dumps(dict(profile))
    )
    client.log_inputs(run_id, [DatasetInput(dataset, [InputTag("mlflow.data.context", "training")])])


@contextmanager
def system_metrics(client: MlflowClient, run_id: str) -> Iterator[None]:
    """Log the machine's processors, memory, disk and GPUs to the run while the block lasts."""
    monitor = SystemMetricsMonitor(run_id, resume_logging=True, tracking_uri=client.tracking_uri)
    monitor.start()
    try:
        yield
    finally:
        monitor.finish()


@explained
def read_metrics(client: MlflowClient, run_id: str) -> dict[str, float]:
    """The last value of every metric of a run."""
    return dict(client.get_run(run_id).data.metrics)


@explained
def read_run(client: MlflowClient, run_id: str) -> Ran:
    """What a run came to."""
    run = client.get_run(run_id)
    experiment = client.get_experiment(run.info.experiment_id)
    return _ran(run, experiment.tags.get(EXPERIMENT_TAG, experiment.name))


@explained
def finished_runs(client: MlflowClient, experiments: str, query: str = "", limit: int | None = None) -> list[Ran]:
    """The runs that ended well, newest first; `limit` of them at most.

    Args:
        client: to ask.
        experiments: their names, with ``%`` for anything.
        query: which runs, as MLflow has it.
        limit: None for all.
    """
    names = {each.experiment_id: each.tags[EXPERIMENT_TAG] for each in own_experiments(client, experiments)}
    wanted = " and ".join(filter(None, ("attributes.status = 'FINISHED'", query)))
    order = ["attributes.start_time DESC"]
    if limit and names:
        runs = list(client.search_runs(list(names), wanted, max_results=limit, order_by=order))
    else:
        runs = search_runs(client, list(names), wanted, order)
    return [_ran(run, names[run.info.experiment_id]) for run in runs]


@explained
def close_abandoned(client: MlflowClient, model: str) -> list[str]:
    """Set the model's runs on which no process works any more to KILLED; returns their ids.

    The caller holds the model's lock, so what is RUNNING is alive only where it needs no lock, as an evaluation.
    """
    left = abandoned(client, model)
    for run_id in left:
        close_run(client, run_id, "KILLED", "no process works on it any more")
    return left


@explained
def close_run(client: MlflowClient, run_id: str, status: str, why: str) -> None:
    """End a run that did not end itself."""
    client.set_tag(run_id, CLOSED_TAG, why)
    client.set_terminated(run_id, status)


@explained
def running(client: MlflowClient, model: str) -> list[str]:
    """The ids of the model's runs that are RUNNING, whether their process is there or not."""
    return [run_id for run_id, of in running_with(client, MODEL_TAG).items() if of == model]


@explained
def abandoned(client: MlflowClient, model: str) -> list[str]:
    """The ids of the model's runs that are RUNNING, and on which no process of this machine works."""
    return [run_id for run_id in running(client, model) if not _lives(client.get_run(run_id))]


def _lives(run: Run) -> bool:
    process = run.data.tags.get(PROCESS_TAG, "")
    _, _, pid = process.partition(" ")[0].rpartition("#")
    if not pid.isdigit() or process != _process(int(pid)):
        return False
    return int(pid) != os.getpid() or run.info.run_id in _OPEN


def _process(pid: int) -> str:
    """Which process it is, for good: numbers are given again. Empty where there is none."""
    try:
        return f"{socket.gethostname()}#{pid} {psutil.Process(pid).create_time():.1f}"
    except psutil.NoSuchProcess:
        return ""


@explained
def running_with(client: MlflowClient, tag: str) -> dict[str, str]:
    """The ids of the runs that are RUNNING and have a tag, with its value."""
    found = search_runs(client, own_places(client), f"attributes.status = 'RUNNING' and tags.`{tag}` != ''")
    return {run.info.run_id: run.data.tags[tag] for run in found}


def own_places(client: MlflowClient) -> list[str]:
    """The ids of Tandem's experiments: runs in those of others are not ours, whatever their tags."""
    return [experiment.experiment_id for experiment in own_experiments(client)]


def search_runs(client: MlflowClient, experiments: list[str], query: str, order: list[str] | None = None) -> list[Run]:
    """Every run that a query finds in these experiments, over all pages."""
    if not experiments:
        return []
    page = client.search_runs(experiments, query, max_results=PAGE, order_by=order)
    runs = list(page)
    while page.token:
        page = client.search_runs(experiments, query, max_results=PAGE, order_by=order, page_token=page.token)
        runs += page
    return runs


def artifacts_of(client: MlflowClient, run_id: str) -> ArtifactRepository:
    """Where a run keeps its files; the only way to delete them."""
    return get_artifact_repository(client.get_run(run_id).info.artifact_uri, tracking_uri=client.tracking_uri)


def read_artifact(client: MlflowClient, uri: str) -> str:
    """The text behind an artifact address, wherever it is kept."""
    with tempfile.TemporaryDirectory() as folder:
        path = download_artifacts(artifact_uri=uri, dst_path=folder, tracking_uri=client.tracking_uri)
        return Path(path).read_text(encoding="utf-8")


def _ran(run: Run, experiment: str) -> Ran:
    return Ran(run.info.run_id, experiment, run.info.start_time / 1000, dict(run.data.metrics), dict(run.data.tags))
