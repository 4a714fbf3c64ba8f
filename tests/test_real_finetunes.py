"""Fine-tunes on public data: the whole way for a few steps; `tests.benchmarks.real_finetunes` goes it to the end."""

from pathlib import Path

import pytest

from flows.finetune_dpo import finetune_dpo
from flows.finetune_sft import finetune_sft
from tests.benchmarks.real_finetunes import banking77, preferences
from tests.realdata import needs_real_data

ROOT = Path(__file__).resolve().parents[1]
pytestmark = [
    pytest.mark.realdata,
    needs_real_data,
    pytest.mark.usefixtures("prefect", "ready_home"),
    pytest.mark.timeout(1500),
]


@pytest.fixture(autouse=True)
def in_the_repository(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(ROOT)


def test_questions_to_a_bank_are_read_checked_and_learned() -> None:
    config = banking77(max_steps=6)
    done = finetune_sft(config.model_copy(update={"scoring": config.scoring.model_copy(update={"max_rows": 50})}))
    assert done.counts["steps"] == 6
    assert done.counts["rows: held_out"] == 3080
    assert done.scores["candidate"]["held_out_loss"] < done.scores["base"]["held_out_loss"]


def test_transcripts_with_a_preference_are_read_checked_and_learned() -> None:
    config = preferences(max_steps=2, max_length=96)
    done = finetune_dpo(config.model_copy(update={"checks": config.checks.model_copy(update={"max_cut": 1.0})}))
    assert (done.counts["steps"], done.counts["rows: malformed"]) == (2, 13)
    assert 0 < done.scores["base"]["preference_accuracy"] < 1
