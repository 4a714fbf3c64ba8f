"""The demo tells the story it promises: a first, a quiet, a changed and a damaged night, and a rollback."""

from pathlib import Path

import pytest

from flows.demo import REASON, run_demo
from tasks.config.settings import Home

ROOT = Path(__file__).resolve().parents[1]


@pytest.mark.usefixtures("prefect")
def test_the_demo_tells_of_four_nights_and_a_rollback_that_changes_the_answer(ready_home: Home) -> None:
    said: list[str] = []
    result = run_demo(ROOT, ready_home, said.append)
    story = result["story"]
    assert [step["decision"] for step in story] == ["promote", "unchanged", "promote", "reject", "rollback"]
    assert [step["version"] for step in story] == [1, None, 2, 3, None]
    assert [step["live"] for step in story] == [1, 1, 2, 2, 1]
    assert len(said) == 5
    assert "48 hours" in result["before_rollback"]
    assert "72 hours" in result["after_rollback"]
    assert result["held"] == f"rolled back by on call: {REASON}"
    assert result["ledger"][-1] == f"champion 2 → 1: {REASON} (on call)"
