"""The verdict on a night's version: scores, counts and safety go into the gate."""

from dataclasses import replace

from tasks.compare import Work
from tasks.config.index import ReindexConfig
from tasks.config.settings import Home
from tasks.evaluate import Evaluation
from tasks.evaluation.gate import decide
from tasks.maintain import Maintained
from tasks.records import Verdict
from tasks.registry.connection import connect
from tasks.registry.pointers import held


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
