"""The verdict on a new version of an index, an adapter or a release: scores, counts and safety go into the gate."""

from collections.abc import Mapping
from dataclasses import replace

from tasks.compare import Work
from tasks.config.answering import ReleaseConfig
from tasks.config.index import ReindexConfig
from tasks.config.settings import Home
from tasks.config.training import DpoConfig, SftConfig
from tasks.evaluate import Evaluation
from tasks.evaluation.adapters import decide_adapter
from tasks.evaluation.gate import decide
from tasks.evaluation.guardrails import judge_guardrails
from tasks.evaluation.releases import decide_release
from tasks.evaluation.scores import HELD_OUT_LOSS, PREFERENCE_ACCURACY, Score
from tasks.examine import Examined
from tasks.guard import Guarded
from tasks.maintain import Maintained
from tasks.records import ReleaseManifest, Verdict
from tasks.registry.connection import MlflowClient, connect
from tasks.registry.pointers import held, pointers
from tasks.registry.versions import load_manifest


def judge(config: ReindexConfig, work: Work, maintained: Maintained, evaluation: Evaluation, home: Home) -> Verdict:
    verdict = decide(
        gate=config.gate,
        promote=config.promote,
        golden=config.golden,
        scores=evaluation.candidate,
        champion=evaluation.champion_number,
        comparison=evaluation.comparison,
        documents=len(maintained.documents),
        passages=maintained.health.passages,
        quarantined=len(maintained.quarantined),
        index_problems=maintained.problems,
        safety=work.changes.held,
        held=held(connect(home), config.name),
    )
    return replace(verdict, reasons=(*verdict.reasons, *evaluation.notes))


def judge_adapter(
    config: SftConfig | DpoConfig, contenders: Mapping[str, Mapping[str, Score]], champion: int | None, home: Home
) -> Verdict:
    """The verdict on a trained adapter."""
    return decide_adapter(
        gate=config.gate,
        promote=config.promote,
        compared=compared_score(config),
        contenders=contenders,
        champion=champion,
        held=held(connect(home), config.name),
    )


def judge_release(
    config: ReleaseConfig, manifest: ReleaseManifest, examined: Examined, guarded: Guarded, home: Home
) -> Verdict:
    """The verdict on a release."""
    client = connect(home)
    verdict = decide_release(
        config.gate,
        config.promote,
        examined.contenders,
        examined.champion,
        held(client, config.name),
        judge_guardrails(
            guarded.suite, guarded.outcomes, examined.contenders, examined.champion, config.gate.confidence
        )
        if guarded.suite
        else (),
        _brought_back(client, manifest, examined.champion),
    )
    return replace(verdict, reasons=(*verdict.reasons, *examined.notes))


def _brought_back(client: MlflowClient, manifest: ReleaseManifest, champion: int | None) -> str | None:
    """The part of a release that a person rolled back, and why, where the live one still has what it was before."""
    if champion is None:
        return None
    live = ReleaseManifest.from_json(load_manifest(client, manifest.release, champion)).parts
    for kind, part in manifest.parts.items():
        name, _, number = part.partition("@")
        now = pointers(client, name)
        if part != live.get(kind) and now.champion == int(number) and now.is_rolled_back:
            return f"{part} was {now.hold}"
    return None


def compared_score(config: SftConfig | DpoConfig) -> str:
    """The score that decides: for pairs the preference accuracy, else the first that is configured, else the loss."""
    if isinstance(config, DpoConfig):
        return PREFERENCE_ACCURACY
    return next(iter(config.scoring.scores), HELD_OUT_LOSS)
