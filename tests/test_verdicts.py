"""What becomes of a version once the gate has spoken: pointers, the report of the night, and of the nights after."""

from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

import flows.reindex
from flows.reindex import reindex
from tasks.config.index import ReindexConfig
from tasks.config.settings import Home
from tasks.promote import roll_back
from tasks.registry.connection import connect
from tasks.registry.pointers import pointers
from tests.nights import FACTS, golden_for_facts, page, write_facts


@pytest.fixture
def config(home_of_nights: Home, configure: Callable[..., ReindexConfig], site: Path, tmp_path: Path) -> ReindexConfig:
    """Four pages beside a home in which version 3 is live; one of them was edited since."""
    write_facts(site)
    page(site, "tea", f"{FACTS['tea']} Then the leaves are taken out.")
    return configure(golden=golden_for_facts(tmp_path), gate={"min_queries": 10})


def with_promote(config: ReindexConfig, promote: str) -> ReindexConfig:
    return ReindexConfig.model_validate(config.model_dump() | {"promote": promote})


def waiting(home: Home) -> int | None:
    return pointers(connect(home), "docs").candidate


def test_a_version_that_is_to_be_approved_waits_as_candidate(home_of_nights: Home, config: ReindexConfig) -> None:
    night = reindex(with_promote(config, "ask"))
    assert (night.decision, night.version, night.live) == ("promote", 4, 3)
    assert "waits as candidate for a person's approval" in night.reasons[0]
    assert waiting(home_of_nights) == 4


def test_a_version_that_is_only_registered_moves_no_pointer_that_night_or_the_next(
    home_of_nights: Home, config: ReindexConfig
) -> None:
    only_registered = with_promote(config, "never")
    before = pointers(connect(home_of_nights), "docs")
    night = reindex(only_registered)
    assert (night.decision, night.version, night.live) == ("promote", 4, 3)
    assert reindex(only_registered).decision == "unchanged"
    assert pointers(connect(home_of_nights), "docs") == before


def test_a_rollback_while_the_night_is_under_way_holds_its_version(
    home_of_nights: Home, config: ReindexConfig, monkeypatch: pytest.MonkeyPatch
) -> None:
    register = flows.reindex.register

    def after_a_rollback(*arguments: Any) -> Any:
        roll_back("docs", 2, "ann", "wrong tea", False, home_of_nights)
        return register(*arguments)

    monkeypatch.setattr(flows.reindex, "register", after_a_rollback)
    night = reindex(config)
    assert (night.decision, night.version, night.live) == ("hold", 4, 2)
    assert "is held (rolled back by ann: wrong tea)" in night.reasons[0]
    assert waiting(home_of_nights) == 4


def test_the_night_after_a_rejected_one_says_that_the_newest_version_is_not_live(
    config: ReindexConfig, site: Path
) -> None:
    for name in FACTS:
        (site / f"{name}.md").write_text("# Sign in\n\nYour session has expired.\n")
    assert reindex(config).decision == "reject"
    night = reindex(config)
    assert night.decision == "unchanged"
    assert night.reasons[-1] == "Live is version 3; the verdict on the newest version, 4, was reject."


def test_an_indexed_source_that_can_no_longer_be_listed_holds_the_index_and_loses_nothing(
    config: ReindexConfig, site: Path
) -> None:
    reindex(config)
    site.rename(site.with_name("elsewhere"))
    night = reindex(config)
    assert night.decision == "hold"
    assert "source docs failed" in night.reasons[0]
    assert (night.live, night.counts["documents deleted"]) == (4, 0)
