"""Trains an adapter in a process of its own, shows how it goes, and goes on where a killed training was."""

import os
import time
from contextlib import ExitStack
from dataclasses import replace
from pathlib import Path
from typing import Any

from prefect import Task, task

from tasks.config.choices import load_choice
from tasks.config.settings import find_home
from tasks.config.training import BaseModelConfig, DpoConfig, SftConfig
from tasks.contenders import Parent
from tasks.errors import DamagedCheckpointError, ProcessDiedError, TrainingError
from tasks.progress import progress
from tasks.records import PreparedData, Trained
from tasks.registry.checkpoints import fetch_checkpoint, forget_checkpoint, keep_checkpoint
from tasks.registry.connection import MlflowClient, connect
from tasks.registry.runs import log, log_points, read_tags, system_metrics
from tasks.telling import tell, warn
from tasks.training.job import CHECKPOINTS_FOLDER, Event, TrainingJob
from tasks.training.process import die_with_parent, run_job

WORKER = "tasks.training.worker"
SECONDS_BETWEEN_SENDS = 2.0
TOLD_LOSSES = 20
"""Lines about the loss in the log of one training, about."""
DECISION_TAG = "decision."
"""With the kind of decision behind it, a tag of the run in MLflow; its value is the sentence that tells of it."""


def die_with_worker() -> None:
    """Let a flow run die with the worker that started it: nobody else could cancel it, and another worker goes on."""
    if "PREFECT__FLOW_RUN_ID" in os.environ:  # not where a person started it, from a terminal that may be closed
        die_with_parent()


def _died(task: Task[..., Any], run: Any, state: Any) -> bool:
    """Only a process that was killed is worth another try: it goes on from its checkpoint."""
    return isinstance(state.result(raise_on_failure=False), ProcessDiedError)


def training_job(config: SftConfig | DpoConfig, data: PreparedData, parent: Parent, folder: Path) -> TrainingJob:
    """The job of a fine-tune's training process."""
    return TrainingJob(
        folder=folder / "training",
        base=load_choice("models", config.base, BaseModelConfig),
        sft=config if isinstance(config, SftConfig) else None,
        dpo=config if isinstance(config, DpoConfig) else None,
        train=data.train,
        parent=parent.folder,
        rows_at_once=config.training.rows_at_once,
    )


@task(name="train", task_run_name="train {name}", retries=2, retry_delay_seconds=1, retry_condition_fn=_died)
def train(name: str, job: TrainingJob, run_id: str) -> Trained:
    """Train until done. Where memory runs out, half the rows at once go on, and at last gradient checkpointing.

    Raises:
        TrainingError: the loss diverged, or one row at a time is too much for the memory.
        ProcessDiedError: the process was killed, three times.
    """
    client = connect(find_home())
    decisions = _decided(client, run_id)
    with system_metrics(client, run_id):
        while True:
            checkpoint = sound_checkpoint(client, run_id, job.folder / CHECKPOINTS_FOLDER, decisions)
            ended = _follow(name, replace(job, checkpoint=checkpoint), client, run_id, decisions)
            if ended["event"] == "done":
                return Trained(
                    ended["adapter"], ended["precision"], ended["steps"], ended["seconds"], tuple(decisions.values())
                )
            less, how = _with_less_memory(job)
            decisions[f"memory for {job.rows_at_once} rows at once"] = how
            warn(how)
            job = less


def sound_checkpoint(client: MlflowClient, run_id: str, folder: Path, decisions: dict[str, str]) -> Path | None:
    """What the training can go on from; a checkpoint that is damaged is forgotten, and told among the decisions."""
    try:
        return fetch_checkpoint(client, run_id, folder)
    except DamagedCheckpointError as error:
        forget_checkpoint(client, run_id)
        decisions["checkpoint"] = str(error)
        warn(str(error))
        return None


def _follow(name: str, job: TrainingJob, client: MlflowClient, run_id: str, decisions: dict[str, str]) -> Event:
    """Run the process, pass on what it tells, and add, by kind, what it is the first to decide.

    Returns its last event: done, or out of memory.
    """
    reached, told = 0, Losses()
    event: Event = {}
    with ExitStack() as stack:
        curve = stack.enter_context(_Curve(client, run_id))
        for event in run_job(WORKER, job):
            match event["event"]:
                case "decision":
                    decisions.setdefault(event["kind"], event["text"])  # a restart measures anew, and keeps the first
                case "begin":
                    log(client, run_id, tags={DECISION_TAG + kind: text for kind, text in decisions.items()})
                    reached, told = event["step"], Losses(event["steps"])
                    advance = stack.enter_context(progress("train", name, event["steps"] - reached))
                case "step":
                    advance(event["step"] - reached)
                    reached = event["step"]
                case "log":
                    curve.add(event)
                    told.add(event)
                case "checkpoint":
                    keep_checkpoint(client, run_id, Path(event["folder"]), event["step"])
                case "failed":
                    raise TrainingError(event["reason"])
    return event


def _decided(client: MlflowClient, run_id: str) -> dict[str, str]:
    """By kind, what the run decided before it was interrupted."""
    tags = read_tags(client, run_id)
    return {tag.removeprefix(DECISION_TAG): text for tag, text in tags.items() if tag.startswith(DECISION_TAG)}


class Losses:
    """Tells the loss as it goes, in so many lines that the log stays readable."""

    def __init__(self, steps: int = 0) -> None:
        self._steps = steps
        self._next = 0

    def add(self, event: Event) -> None:
        step = event["step"]
        if step >= self._next or step == self._steps:
            tell(f"step {step} of {self._steps}: loss {event['metrics']['loss']:.4g}")
            self._next = step + max(1, self._steps // TOLD_LOSSES)


class _Curve:
    """Sends points to MLflow as they come, several at once where they come fast."""

    def __init__(self, client: MlflowClient, run_id: str) -> None:
        self._client = client
        self._run_id = run_id
        self._points: list[tuple[int, float, dict[str, float]]] = []
        self._sent = 0.0

    def __enter__(self) -> "_Curve":
        return self

    def __exit__(self, *exception: object) -> None:
        self._send()

    def add(self, event: Event) -> None:
        self._points.append((event["step"], event["at"], event["metrics"]))
        if time.monotonic() - self._sent > SECONDS_BETWEEN_SENDS:
            self._send()

    def _send(self) -> None:
        log_points(self._client, self._run_id, self._points)
        self._points.clear()
        self._sent = time.monotonic()


def _with_less_memory(job: TrainingJob) -> tuple[TrainingJob, str]:
    """The job as it goes on where memory ran out, and a sentence that says so."""
    if job.rows_at_once > 1:
        fewer = replace(job, rows_at_once=job.rows_at_once // 2)
        return fewer, (
            f"memory ran out with {job.rows_at_once} rows at once: went on with {fewer.rows_at_once}, "
            "and more accumulation"
        )
    if not job.recompute:
        return replace(job, recompute=True), (
            "memory ran out with one row at once: went on with gradient checkpointing, which computes more"
        )
    raise TrainingError(
        "there is not enough memory for one row at a time: lower training.max_length, or take a smaller base model"
    )
