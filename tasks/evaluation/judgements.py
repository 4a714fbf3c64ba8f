"""What language models say of answers, as scores and as a report reads it.

The score of a judge is named for the judge's version. What two versions say means different things, and is never
compared, because only scores with one name are.
"""

import json
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from hashlib import sha256
from importlib.metadata import version
from typing import Any

from tasks.config.evaluation import AnswersConfig, JudgeConfig
from tasks.evaluation.agreement import Agreement, Label, agree
from tasks.evaluation.scores import Score, make_score
from tasks.evaluation.stages import Row, said
from tasks.records import Judged, Judgement

Judgements = Mapping[str, Judgement]
"""By the id of the question."""
SHOWN = 5
"""Answers without a verdict that the report names."""
NEVER_COMPARED = (
    "A judge's score is named for the judge's version: scorer, instructions, model as configured and as the endpoint "
    "calls it, and MLflow's version. Scores of different judges or versions are never compared."
)


@dataclass(frozen=True, slots=True)
class Panel:
    """What the judges of a suite said."""

    by_release: Mapping[str, Mapping[str, Judgements]]
    """By release, as ``name@number``, then by the judge's name."""
    agreements: Sequence[Agreement] = ()
    labels: int = 0
    """What people said, whether of an answer that has a verdict or not."""


def to_judge(judge: JudgeConfig, rows: Sequence[Row]) -> dict[str, Judged]:
    """By question, the answers that the judge is asked about, as the release's filters left them; a refusal is none."""
    return {
        row.query.id: Judged(
            row.whole.question, said(row.whole), tuple(passage.text for passage in row.whole.passages), row.expected
        )
        for row in rows
        if not row.whole.refused and (row.expected or not judge.needs_expected)
    }


def describe(judge: JudgeConfig, model: str) -> dict[str, str]:
    """All that decides what a judge says, whose endpoint calls its model so."""
    return {
        "judge": judge.name,
        "scorer": judge.scorer,
        "instructions": judge.instructions,  # those of MLflow's scorers come with its version
        "model": judge.endpoint.model,
        "answering_model": model,
        "mlflow": version("mlflow"),
    }


def version_of(judge: JudgeConfig, model: str) -> str:
    """The judge as ``name@version``."""
    return f"{judge.name}@{sha256(json.dumps(describe(judge, model)).encode()).hexdigest()[:8]}"


def score_judgements(judgements: Judgements, confidence: float) -> dict[str, Score]:
    """The share of answers that pass, by version of the judge: an endpoint may change its model at any time.

    None where over half of the answers have no verdict.
    """
    if 2 * len(_without_verdict(judgements)) > len(judgements):
        return {}
    found: dict[str, dict[str, float]] = {}
    for question, judgement in judgements.items():
        if judgement.passed is not None:
            found.setdefault(judgement.judge, {})[question] = float(judgement.passed)
    return {
        name: make_score(name, list(passed), list(passed.values()), confidence=confidence)
        for name, passed in found.items()
    }


def hear(
    by_release: Mapping[str, Mapping[str, Judgements]],
    asked: Mapping[str, Sequence[Row]],
    labels: Sequence[Label],
    confidence: float,
) -> Panel:
    """The judgements with how far people agree; a label counts once, for the first release whose answer it is of."""
    pairs: dict[str, list[tuple[bool, bool]]] = {}
    for label in labels:
        for judgement in (
            by_release[release][label.judge].get(row.query.id)
            for release, rows in asked.items()
            for row in rows
            if label.is_of(row)
        ):
            if judgement and judgement.passed is not None:
                pairs.setdefault(judgement.judge, []).append((label.label, judgement.passed))
                break
    return Panel(by_release, [agree(name, of, confidence) for name, of in pairs.items()], len(labels))


def versions(config: AnswersConfig, panel: Panel) -> dict[str, dict[str, str]]:
    """By ``name@version``, what each judge is that gave a verdict."""
    return {
        judgement.judge: describe(judge, judgement.model)
        for of in panel.by_release.values()
        for judge in config.judges
        for judgement in of[judge.name].values()
        if judgement.passed is not None
    }


def tally(panel: Panel) -> list[dict[str, Any]]:
    """By release and judge: how many answers it was asked about, on how many it gave no verdict, and the tokens."""
    return [
        {
            "release": release,
            "judge": judge,
            "version": ", ".join(sorted({each.judge for each in judgements.values()} - {""})),
            "model": ", ".join(sorted({each.model for each in judgements.values()} - {""})),
            "answers": len(judgements),
            "without verdict": len(_without_verdict(judgements)),
            "tokens in": sum(each.tokens_in for each in judgements.values()),
            "tokens out": sum(each.tokens_out for each in judgements.values()),
        }
        for release, of in panel.by_release.items()
        for judge, judgements in of.items()
    ]


def judge_numbers(panel: Panel) -> dict[str, float]:
    """The tally by release and judge; by version of a judge κ, its interval, and the labels."""
    found = {
        f"{row['release'].replace('@', '_')}_{row['judge']}_{what.replace(' ', '_')}": float(row[what])
        for row in tally(panel)
        for what in ("without verdict", "tokens in", "tokens out")
    }
    for agreement in panel.agreements:
        found[f"{agreement.judge}_labels"] = agreement.counts.total()
        if kappa := agreement.kappa:
            ends = {"kappa": kappa.mean, "kappa_low": kappa.low, "kappa_high": kappa.high}
            found |= {f"{agreement.judge}_{name}": value for name, value in ends.items()}
    return found


def judge_notes(panel: Panel) -> list[str]:
    """What a reader must know of the judges' scores: what they are not compared with, and what is missing."""
    notes = [NEVER_COMPARED]
    for release, of in panel.by_release.items():
        for judge, judgements in of.items():
            if failed := _without_verdict(judgements):
                named = "; ".join(f"{question} ({judgement.why})" for question, judgement in failed[:SHOWN])
                more = f"; and {len(failed) - SHOWN} more" if len(failed) > SHOWN else ""
                score = " Its score is not reported." if 2 * len(failed) > len(judgements) else ""
                count = f"{len(failed)} of {len(judgements)} answers of {release}"
                notes.append(f"{judge} gave no verdict on {count}: {named}{more}.{score}")
    if unused := panel.labels - sum(agreement.counts.total() for agreement in panel.agreements):
        notes.append(f"{unused} of {panel.labels} labels are of no answer that has a verdict, and are left out.")
    return notes


def _without_verdict(judgements: Judgements) -> list[tuple[str, Judgement]]:
    return [(question, judgement) for question, judgement in judgements.items() if judgement.passed is None]
