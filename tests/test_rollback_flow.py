"""A rollback as whoever is on call makes it: from Prefect's form, and by the command."""

import shutil

import pytest
from pydantic import ValidationError

from flows.rollback import rollback
from tasks.config.moves import RollbackConfig
from tasks.config.settings import Home
from tasks.registry.connection import connect
from tasks.registry.ledger import Pointers
from tasks.registry.pointers import pointers
from tests.artifacts import artifacts_of
from tests.command import Tandem

TEA = "how long does green tea steep"
BEFORE = Pointers(champion=3, previous=2)


@pytest.fixture
def home(home_of_nights: Home) -> Home:
    return home_of_nights


def shown_after(config: RollbackConfig) -> str:
    """What the flow tells in Prefect."""
    state = rollback(config, return_state=True)
    assert state.is_completed()
    assert state.state_details.flow_run_id
    return artifacts_of(state.state_details.flow_run_id)["rollback-docs"]


def test_a_dry_run_says_so_and_moves_nothing(home: Home) -> None:
    shown = shown_after(RollbackConfig(name="docs", reason="too cold", by="ann", dry_run=True))
    assert "**docs**: Dry run: would go from 3 to 2." in shown
    assert "too cold (ann)" in shown
    assert pointers(connect(home), "docs") == BEFORE


def test_the_flow_puts_the_named_version_live_and_holds_the_index(home: Home) -> None:
    shown = shown_after(RollbackConfig(name="docs", to=1, reason="too cold", by="ann"))
    assert "**docs**: Went from 3 to 1." in shown
    assert "tandem unhold docs" in shown
    assert pointers(connect(home), "docs") == Pointers(1, None, 3, "rolled back by ann: too cold")


def test_the_flow_wants_a_reason() -> None:
    with pytest.raises(ValidationError, match="reason"):
        RollbackConfig(name="docs", reason="")


def test_the_command_goes_back_to_the_version_it_is_told(tandem: Tandem, home: Home) -> None:
    said = tandem("rollback", "docs", "--to", 1, "--reason", "too cold")
    assert (said.status, said.out) == (0, "docs: version 1 is live, and the index is held (before: 3)\n")
    assert pointers(connect(home), "docs").champion == 1
    assert "sixty" in tandem("search", "docs", TEA, "-k", 1).out


@pytest.mark.parametrize("more", [(), ("--dry-run",)])
def test_a_rollback_to_what_is_gone_moves_nothing_and_says_what_is_wrong(
    tandem: Tandem, home: Home, more: tuple[str, ...]
) -> None:
    [table] = home.lancedb.glob("docs-*.lance")
    shutil.rmtree(table)
    said = tandem("rollback", "docs", "--to", 1, *more)
    assert (said.status, said.out) == (1, "")
    assert said.err.startswith("tandem: ")
    assert "cannot open the table docs-" in said.err
    assert pointers(connect(home), "docs") == BEFORE
    assert tandem("history", "docs", "--json").json["moves"][-1]["after"] == 3
