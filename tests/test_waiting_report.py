"""The report on an adapter says how to approve it whenever it waits for a person, and only then."""

import pytest

from tasks.config.training import SftConfig
from tasks.evaluation.scores import BASE, CANDIDATE, make_score
from tasks.records import Finetune
from tasks.report_adapter import HOW_TO_APPROVE, write_report
from tasks.score import Scoring

ROWS = ["r1", "r2"]
SCORING = Scoring(
    {
        who: {"exact_match": make_score("exact_match", ROWS, [right] * 2)}
        for who, right in ((BASE, 0.0), (CANDIDATE, 1.0))
    },
    labels={},
    texts={},
)


@pytest.mark.parametrize(
    ("decision", "promote", "live", "is_told"),
    [
        ("promote", "ask", 3, True),
        ("hold", "ask", 3, True),
        ("hold", "auto", 3, True),
        ("hold", "ask", None, True),
        ("promote", "auto", 4, False),
        ("promote", "auto", None, False),  # about to go live
        ("promote", "never", 3, False),
        ("hold", "never", 3, False),
        ("reject", "ask", 3, False),
        ("promote", "ask", 4, False),  # approved since
    ],
)
def test_how_to_approve_is_told_where_a_version_waits(
    decision: str, promote: str, live: int | None, is_told: bool
) -> None:
    config = SftConfig.model_validate({"name": "tiny", "base": "tiny", "dataset": "support", "promote": promote})
    done = Finetune("tiny", "sft", decision, ("Because.",), 4, live=live)  # type: ignore[arg-type]
    assert (HOW_TO_APPROVE.format(name="tiny", version=4) in write_report(done, SCORING, config)) == is_told
