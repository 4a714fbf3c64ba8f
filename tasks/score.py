"""Scores a new adapter beside its base model and the champion: on held-out rows, and on what is not the task."""

from collections.abc import Mapping
from contextlib import ExitStack
from dataclasses import dataclass
from pathlib import Path

from prefect import task

from tasks.config.choices import load_choice
from tasks.config.settings import Home
from tasks.config.training import BaseModelConfig, DpoConfig, ScoringConfig, SftConfig
from tasks.contenders import Beside
from tasks.errors import TrainingError
from tasks.evaluation.answers import measure_answers
from tasks.evaluation.scores import (
    GENERAL_ACCURACY,
    GENERAL_LOSS,
    HELD_OUT_LOSS,
    PREFERENCE_ACCURACY,
    PREFERENCE_MARGIN,
    SUITE,
    Score,
    make_score,
)
from tasks.progress import progress
from tasks.records import PreparedData, Trained
from tasks.training.process import run_job
from tasks.training.scoring_job import Scored, ScoredAll, ScoringJob

SCORER = "tasks.training.scorer"
Contenders = Mapping[str, Mapping[str, Score]]


@dataclass(frozen=True, slots=True)
class Scoring:
    """Every score of every contender, and the rows they were scored on."""

    contenders: Contenders
    labels: dict[str, str]
    """By row, where it has one."""
    texts: dict[str, dict[str, str]]
    """The reference, and the answer of each contender that was asked, by row."""


def scoring_job(
    config: SftConfig | DpoConfig, data: PreparedData, trained: Trained, beside: Beside, folder: Path, home: Home
) -> ScoringJob:
    """The job of a fine-tune's scoring process, in the precision that was trained in."""
    return ScoringJob(
        folder=folder / "scoring",
        base=load_choice("models", config.base, BaseModelConfig),
        adapters=beside.adapters,
        held_out=data.held_out,
        train=data.train,
        scoring=config.scoring,
        max_length=config.training.max_length,
        seed=config.training.seed,
        machine=config.machine.model_copy(update={"processes": 1, "precision": trained.precision}),
        kept=home.cache / "scored",
    )


@task(name="score", task_run_name="score {name}")
def score(name: str, job: ScoringJob, confidence: float) -> Scoring:
    """Score every contender on every row.

    Raises:
        TrainingError: a contender could not be loaded, or memory did not suffice.
    """
    with ExitStack() as stack:
        for event in run_job(SCORER, job):
            match event["event"]:
                case "begin":
                    advance = stack.enter_context(progress("score", name, event["steps"]))
                case "step":
                    advance(1)
                case "failed":
                    raise TrainingError(event["reason"])
    scored = ScoredAll.read(job.folder)
    return Scoring(
        contenders=measure(scored, job.scoring, confidence),
        labels={row: label for row, label in zip(scored.ids, scored.labels, strict=True) if label is not None},
        texts={
            column: dict(zip(scored.ids, texts, strict=False))
            for column, texts in [
                ("reference", scored.references),
                *((who, found.answers) for who, found in scored.contenders.items() if found.answers),
            ]
        },
    )


def measure(scored: ScoredAll, scoring: ScoringConfig, confidence: float) -> Contenders:
    """What the answers and likelihoods of the contenders come to."""
    return {who: dict(_measure(scored, found, scoring, confidence)) for who, found in scored.contenders.items()}


def _measure(all_: ScoredAll, found: Scored, scoring: ScoringConfig, confidence: float) -> dict[str, Score]:
    count = len(found.answers)
    scores = (
        measure_answers(all_.ids[:count], found.answers, all_.references[:count], scoring, confidence) if count else {}
    )
    texts = [f"text {number}" for number in range(len(found.general_nats))]
    questions = [f"question {number}" for number in range(len(found.general_right))]
    suites = {SUITE + name: ([f"{name} {n}" for n in range(len(of))], of, None) for name, of in found.suites.items()}
    given = {
        HELD_OUT_LOSS: (all_.ids, found.nats, found.tokens),
        PREFERENCE_ACCURACY: (all_.ids, [float(margin > 0) for margin in found.margins], None),
        PREFERENCE_MARGIN: (all_.ids, found.margins, None),
        GENERAL_LOSS: (texts, found.general_nats, found.general_tokens),
        GENERAL_ACCURACY: (questions, [float(right) for right in found.general_right], None),
        **suites,
    }
    return scores | {
        name: make_score(name, rows, values, beside, confidence)
        for name, (rows, values, beside) in given.items()
        if values
    }
