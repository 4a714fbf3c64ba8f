"""An approval as a person makes it in Prefect's form."""

import pytest

from flows.approve import approve
from tasks.config.moves import ApproveConfig
from tasks.config.settings import Home
from tasks.errors import RefusedError
from tasks.registry.connection import connect
from tasks.registry.ledger import Pointers
from tasks.registry.pointers import pointers, propose
from tests.artifacts import artifacts_of


def test_the_version_that_waits_goes_live(home_of_nights: Home) -> None:
    client = connect(home_of_nights)
    propose(client, "docs", 1, by="flow reindex", reason="no worse")
    state = approve(ApproveConfig(name="docs", reason="read it, and it is good", by="ann"), return_state=True)
    assert pointers(client, "docs") == Pointers(champion=1, previous=3)
    assert state.state_details.flow_run_id
    shown = artifacts_of(state.state_details.flow_run_id)["approve-docs"]
    assert "**docs**: version 1 is live (before: 3)." in shown
    assert "read it, and it is good (ann)" in shown


def test_where_nothing_waits_nothing_is_approved(home_of_nights: Home) -> None:
    with pytest.raises(RefusedError, match="no version of docs waits for approval"):
        approve(ApproveConfig(name="docs", reason="just so"))
    assert pointers(connect(home_of_nights), "docs").champion == 3
