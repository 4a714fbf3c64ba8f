"""The ledger: which version was live when, however fast and however often the pointers moved."""

import math
import time
from datetime import UTC, datetime

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from mlflow import MlflowClient

from tasks.config.settings import Home
from tasks.records import Move
from tasks.registry import ledger
from tasks.registry.ledger import Entry, Pointers, begin, complete, history, live_at, time_of_next, void
from tasks.registry.pointers import hold, promote, propose
from tests.registry_fixtures import add_version, connected, loads

MIDNIGHT = datetime(2026, 3, 1, tzinfo=UTC).timestamp()


@pytest.fixture
def client(home: Home) -> MlflowClient:
    return connected(home)


def write(client: MlflowClient, at: float, after: int | None, before: int | None = None, name: str = "docs") -> Move:
    """A champion's move in the ledger, as if it had been made at that time."""
    move = Move(name, "champion", before, after, at, "me", f"to {after}")
    complete(client, begin(client, move, Pointers(before), Pointers(after)))
    return move


def test_a_move_is_read_as_it_was_written(client: MlflowClient) -> None:
    reason = 'ndcg@10 0.61 → 0.58: "worse"; don\'t\n' + "long " * 2000
    move = Move("docs", "candidate", None, 4, MIDNIGHT + 0.123457, "flow reindex", reason)
    complete(client, begin(client, move, Pointers(3), Pointers(3, 4)))
    [read] = history(client, "docs")
    assert reason.startswith(read.reason)
    assert len(read.reason) == ledger.LONGEST_REASON
    assert (read.what, read.before, read.after, read.by) == ("candidate", None, 4, "flow reindex")
    assert read.at == pytest.approx(move.at, abs=1e-6)


def test_what_was_live_at_a_time_changes_with_the_move_and_not_before(client: MlflowClient) -> None:
    write(client, MIDNIGHT, 1)
    write(client, MIDNIGHT + 0.002, 2, 1)
    write(client, MIDNIGHT + 86400, None, 2)
    at = [-1, 0, 0.001999, 0.002, 86399.999999, 86400, 1e6]
    assert [live_at(client, "docs", MIDNIGHT + later) for later in at] == [None, 1, 1, 2, 2, None, None]
    assert live_at(client, "other", MIDNIGHT) is None


def test_other_models_candidates_holds_and_unmade_moves_do_not_change_what_was_live(
    client: MlflowClient,
) -> None:
    for _ in range(2):
        add_version(client)
    promote(client, "docs", 1, by="me", reason="first", prove=loads)
    propose(client, "docs", 2, by="me", reason="look")
    hold(client, "docs", by="me", reason="audit")
    write(client, time.time(), 9, name="other")
    unmade = Move("docs", "champion", 1, 2, time.time(), "me", "never")
    void(client, begin(client, unmade, Pointers(1), Pointers(2)), "killed")
    begin(client, unmade, Pointers(1), Pointers(2))
    assert live_at(client, "docs", time.time() + 1) == 1
    assert [move.what for move in history(client, "docs")] == ["champion", "candidate", "hold"]


def test_many_moves_in_one_second_keep_their_order_over_pages(
    client: MlflowClient, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(ledger, "PAGE", 7)
    times = [MIDNIGHT + number * 0.002 for number in range(45)]
    for number in sorted(range(45), key=lambda number: number * 17 % 45):
        write(client, times[number], number)
    moves = history(client, "docs")
    assert [move.after for move in moves] == list(range(45))
    assert [live_at(client, "docs", move.at) for move in moves[::11]] == [0, 11, 22, 33, 44]


def test_a_clock_that_is_set_back_does_not_change_the_order(client: MlflowClient) -> None:
    add_version(client)
    add_version(client)
    write(client, time.time() + 3600, None)
    first = promote(client, "docs", 1, by="me", reason="one", prove=loads)
    second = promote(client, "docs", 2, by="me", reason="two", prove=loads)
    assert history(client, "docs")[1:] == [first, second]


@given(st.floats(min_value=-10, max_value=10))
@settings(max_examples=200, deadline=None)
def test_a_move_is_always_written_later_than_the_last(offset: float) -> None:
    last = Move("docs", "champion", None, 1, round(time.time() + offset, 6), "me", "")
    following = time_of_next(Entry("", True, last, Pointers(), Pointers(1)))
    assert math.floor(following * 1000) > math.floor(last.at * 1000)
