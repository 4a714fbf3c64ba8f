"""The demo tells its stories: of an index and an adapter, each refused once and rolled back, and of a release."""

import shutil
from pathlib import Path

import pytest

from flows.demo import (
    CARDS,
    RETENTION,
    SAMPLES,
    TOO_LONG,
    adapter_story,
    index_story,
    pointed_at,
    release_story,
    what_follows,
)
from flows.reindex import reindex
from tasks.config.settings import Home

ROOT = Path(__file__).resolve().parents[1]
pytestmark = pytest.mark.usefixtures("prefect")


def test_four_nights_and_a_rollback_that_changes_the_answer(ready_home: Home) -> None:
    said: list[str] = []
    story = index_story(ROOT, ready_home, said.append)
    steps = story["steps"]
    assert [step["decision"] for step in steps] == ["promote", "unchanged", "promote", "reject", "rollback"]
    assert [step["version"] for step in steps] == [1, None, 2, 3, None]
    assert [step["live"] for step in steps] == [1, 1, 2, 2, 1]
    assert len(said) == 5
    assert "48 hours" in story["before_rollback"]
    assert "72 hours" in story["after_rollback"]
    assert story["held"] == f"rolled back by on call: {RETENTION}"
    assert story["ledger"][-1] == f"champion 2 → 1: {RETENTION} (on call)"


@pytest.mark.timeout(1500)
def test_an_adapter_learns_the_form_then_the_preferences_and_one_that_forgets_is_refused(
    ready_home: Home, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.chdir(ROOT)
    story = adapter_story(ROOT, ready_home, print)
    examples, pairs, too_fast, rolled_back = story["steps"]
    assert [step["decision"] for step in story["steps"]] == ["promote", "promote", "reject", "rollback"]
    assert [step["live"] for step in story["steps"]] == [1, 2, 2, 1]
    assert examples["scores"]["base"]["schema_valid"] < 0.05
    assert min(examples["scores"]["candidate"][score] for score in ("valid_json", "schema_valid")) >= 0.95
    assert any(reason.startswith("Better, and it is no noise: preference_accuracy") for reason in pairs["reasons"])
    assert too_fast["why"].startswith("A rise of cross-entropy on general text of more than")
    assert story["held"] == f"rolled back by on call: {CARDS}"
    assert story["ledger"][-1] == f"champion 2 → 1: {CARDS} (on call)"
    assert rolled_back["live"] == 1
    assert story["before_rollback"] != story["after_rollback"]


def test_a_release_answers_with_sources_refuses_and_is_rolled_back_while_a_client_keeps_asking(
    ready_home: Home, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.chdir(ROOT)
    site = ready_home.root / "site"
    shutil.copytree(ROOT / SAMPLES / "night1", site)
    reindex(pointed_at(site, ROOT))
    story = release_story(ROOT, ready_home, print)
    assert [step["decision"] for step in story["steps"]] == ["promote", "promote", "rollback"]
    assert [step["live"] for step in story["steps"]] == [1, 2, 1]
    assert "72 hours" in story["answered"]["text"]
    assert story["answered"]["cited"][0].startswith("south/admin/retention.md:")
    assert story["refused"]["refused"]
    assert not story["refused"]["cited"]
    client = story["client"]
    assert (client["failed"], client["mixed"]) == (0, 0)
    assert len(story["before_rollback"]) > len(story["after_rollback"])
    assert story["ledger"][-1] == f"champion 2 → 1: {TOO_LONG} (on call)"
    assert "| injected_passages | 16 of 16 |" in story["guardrails"]
    follows = what_follows(ROOT, ready_home, print)
    assert follows["diagnosis"]["release"] == "helpdesk@1"
    assert follows["diagnosis"]["failed"] == sum(follows["diagnosis"]["causes"].values())
    assert all(follows["diagnosis"]["commands"].values())
    assert follows["advice"]["decision"] == "retrieval"
    measured = {field["field"] for field in follows["advice"]["fields"] if field["basis"] == "measured"}
    assert {"documents", "behaviour_share"} <= measured
    assert Path(follows["plot"]).read_bytes().startswith(b"\x89PNG")
