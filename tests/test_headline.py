"""The first words of a version in MLflow tell whether it is good; links lead to its very page."""

from pathlib import Path

import pytest

from tasks.config.settings import Home
from tasks.headline import of_finetune, of_night, of_release, page_of, today
from tasks.records import Finetune, Night, Released

SCORES = {"candidate": {"right": 0.91}, "champion": {"right": 0.9}}


def test_a_description_begins_with_verdict_score_contents_and_date() -> None:
    night = Night("docs", "hold", (), scores={"ndcg@10": 0.5}, counts={"passages in the index": 1200})
    assert of_night(night, 40, "ndcg@10").describe("# Report") == (
        f"Held for a person to decide. ndcg@10 0.500 (the first). 40 documents, 1,200 passages. {today()}.\n\n# Report"
    )
    unscored = Night("docs", "reject", ())
    assert of_night(unscored, 1, "mrr").describe("").startswith("Rejected. 1 document, 0 passages. ")
    assert len(of_night(night, 40, "ndcg@10").describe("x" * 9000)) == 5000


def test_the_tags_for_people_come_before_tandems_own() -> None:
    tuned = Finetune("tone", "sft", "promote", (), 3, scores=SCORES)
    tags = of_finetune(tuned, "right", "support").tags()
    assert tags["score"] == "right 0.910 (0.900 before)"
    assert (tags["result"], tags["made of"]) == ("passed the gate", "sft on support")
    assert max(tags) < "tandem."
    released = Released(
        "desk", "promote", (), 1, {"index": "docs@2", "adapter": "", "prompt": "answer@1"}, scores=SCORES
    )
    assert of_release(released, "right").tags()["made of"] == "docs@2, answer@1"


def test_links_lead_to_the_page_of_a_version(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    monkeypatch.setenv("MLFLOW_TRACKING_URI", "http://mlflow:5000/")
    assert page_of("docs", 3, Home(tmp_path)) == "http://mlflow:5000/#/models/docs/versions/3"
    assert page_of("docs", None, Home(tmp_path)) == ""
    monkeypatch.delenv("MLFLOW_TRACKING_URI")
    assert page_of("docs", 3, Home(tmp_path)) == ""
