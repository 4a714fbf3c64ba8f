"""What the report of an evaluation says of language models that judged: their versions, failures, costs, and κ."""

from collections.abc import Iterator

from tasks.config.evaluation import AnswersConfig, JudgeConfig
from tasks.evaluation.judgements import (
    Judgements,
    Panel,
    by_version,
    describe,
    is_reported,
    version_of,
    without_verdict,
)
from tasks.evaluation.statistics import say_interval

SHOWN = 5
"""Answers without a verdict that are named."""
NEVER_COMPARED = (
    "A judge's score is named for the judge's version: scorer, instructions, model as configured and as the endpoint "
    "calls it, and MLflow's version. Scores of different judges or versions are never compared."
)


def versions(config: AnswersConfig, panel: Panel) -> dict[str, dict[str, str]]:
    """By ``name@version``, what each judge is that gave a verdict."""
    return {
        version_of(judge, judgement.model): describe(judge, judgement.model)
        for _, judge, judgements in _each(config, panel)
        for judgement in judgements.values()
        if judgement.passed is not None
    }


def judge_numbers(config: AnswersConfig, panel: Panel) -> dict[str, float]:
    """By release and judge the answers without a verdict and the tokens; by judge's version κ and its labels."""
    found: dict[str, float] = {}
    for release, judge, judgements in _each(config, panel):
        found |= {
            f"{release}_{judge.name}_without_verdict": len(without_verdict(judgements)),
            f"{release}_{judge.name}_tokens_in": sum(each.tokens_in for each in judgements.values()),
            f"{release}_{judge.name}_tokens_out": sum(each.tokens_out for each in judgements.values()),
        }
    for agreement in panel.agreements:
        found[f"{agreement.judge}_labels"] = sum(agreement.counts.values())
        if kappa := agreement.kappa:
            ends = {"kappa": kappa.mean, "kappa_low": kappa.low, "kappa_high": kappa.high}
            found |= {f"{agreement.judge}_{name}": value for name, value in ends.items()}
    return found


def judge_notes(config: AnswersConfig, panel: Panel) -> list[str]:
    """What a reader must know of the verdicts: which are missing, and which scores stand alone."""
    notes = [NEVER_COMPARED]
    for judge in config.judges:
        names = {release: list(by_version(judge, of[judge.name])) for release, of in panel.by_release.items()}
        if len({name for of in names.values() for name in of}) > 1:
            listed = "; ".join(f"{', '.join(of) or 'none'} for {release}" for release, of in names.items())
            notes.append(f"The endpoint of {judge.name} changed its model on the way: {listed}.")
    for release, judge, judgements in _each(config, panel):
        if failed := without_verdict(judgements):
            said = [f"{question} ({judgement.why})" for question, judgement in list(failed.items())[:SHOWN]]
            more = f", and {len(failed) - SHOWN} more" if len(failed) > SHOWN else ""
            end = "" if is_reported(judgements) else " Its score is not reported."
            notes.append(
                f"{judge.name} gave no verdict on {len(failed)} of {len(judgements)} answers of {release}: "
                f"{'; '.join(said)}{more}.{end}"
            )
    if unused := panel.labels - sum(sum(agreement.counts.values()) for agreement in panel.agreements):
        notes.append(f"{unused} of {panel.labels} labels are of no answer that has a verdict, and are left out.")
    return notes


def judge_table(config: AnswersConfig, panel: Panel) -> list[dict[str, str]]:
    """By release and judge: its versions, verdicts and cost."""
    return [
        {
            "judge": ", ".join(by_version(judge, judgements)) or judge.name,
            "scorer": judge.scorer,
            "model": judge.endpoint.model,
            "answered by": ", ".join(sorted({each.model for each in judgements.values() if each.model})),
            "release": release,
            "answers": str(len(judgements)),
            "verdicts": str(len(judgements) - len(without_verdict(judgements))),
            "tokens read": f"{sum(each.tokens_in for each in judgements.values()):,}",
            "tokens written": f"{sum(each.tokens_out for each in judgements.values()):,}",
        }
        for release, judge, judgements in _each(config, panel)
    ]


def agreement_table(panel: Panel, confidence: float) -> list[dict[str, str]]:
    """By version of a judge: counts of what people and the judge say, and κ."""
    return [
        {
            "judge": agreement.judge,
            "labels": str(sum(agreement.counts.values())),
            "both yes": str(agreement.counts.get((True, True), 0)),
            "both no": str(agreement.counts.get((False, False), 0)),
            "only people yes": str(agreement.counts.get((True, False), 0)),
            "only the judge yes": str(agreement.counts.get((False, True), 0)),
            "Cohen's κ": f"{agreement.kappa.mean:.3f}" if agreement.kappa else agreement.note,
            f"{confidence:.0%} interval": say_interval(agreement.kappa) if agreement.kappa else "",
        }
        for agreement in panel.agreements
    ]


def _each(config: AnswersConfig, panel: Panel) -> Iterator[tuple[str, JudgeConfig, Judgements]]:
    return ((release, judge, of[judge.name]) for release, of in panel.by_release.items() for judge in config.judges)
