"""Pointers: promotion, rollback, holds, protection, and what is put right after a crash or a move by hand."""

import contextlib
import functools
import itertools
import time
import uuid
from pathlib import Path

import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st
from mlflow import MlflowClient
from mlflow.exceptions import MlflowException

from tasks.config.settings import Home
from tasks.errors import RefusedError, RegistryError, StoreError
from tasks.records import Move
from tasks.registry.connection import connect
from tasks.registry.ledger import Pointers, begin, history, live_at
from tasks.registry.pointers import (
    BY_HAND,
    delete_version,
    held,
    hold,
    keep,
    pointers,
    promote,
    propose,
    protected,
    rollback,
    settle,
    unhold,
)
from tasks.registry.versions import list_versions
from tests.registry_fixtures import add_version, connected, empty_home, loads
from tests.registry_killed import killed_homes

ME = {"by": "me", "reason": "because"}


@functools.cache
def prepared() -> Home:
    home = Home(empty_home().root.with_name("prepared"))
    client = connected(home)
    for number in (1, 2, 3):
        add_version(client)
        if number < 3:
            promote(client, "docs", number, **ME, prove=loads)
    propose(client, "docs", 3, **ME)
    return home


@pytest.fixture
def client(home: Home) -> MlflowClient:
    """Three versions: 1 was live, 2 is live, 3 waits."""
    return connected(home, prepared())


def test_promotion_moves_champion_and_previous_and_ends_the_wait(client: MlflowClient) -> None:
    assert pointers(client, "docs") == Pointers(champion=2, candidate=3, previous=1)
    move = promote(client, "docs", 3, by="flow reindex", reason="no worse", prove=loads)
    assert pointers(client, "docs") == Pointers(champion=3, previous=2)
    assert (move.before, move.after, move.by, move.reason) == (2, 3, "flow reindex", "no worse")
    assert history(client, "docs")[-1] == move


def test_a_promotion_that_is_tried_again_changes_nothing(client: MlflowClient) -> None:
    first = promote(client, "docs", 3, **ME, prove=loads)
    before = history(client, "docs")
    assert promote(client, "docs", 3, **ME, prove=loads) == first
    assert history(client, "docs") == before


def test_a_newer_candidate_goes_on_waiting_and_an_older_one_does_not(client: MlflowClient) -> None:
    add_version(client)
    propose(client, "docs", 4, **ME)
    promote(client, "docs", 3, **ME, prove=loads)
    assert pointers(client, "docs").candidate == 4
    add_version(client)
    promote(client, "docs", 5, **ME, prove=loads)
    assert pointers(client, "docs").candidate is None


def test_nothing_moves_when_the_target_does_not_load(client: MlflowClient) -> None:
    def missing(manifest: dict[str, object]) -> None:
        raise StoreError(f"table of {manifest['number']} is gone")

    def broken(manifest: dict[str, object]) -> None:
        raise KeyError("uri")

    before, moves = pointers(client, "docs"), history(client, "docs")
    with pytest.raises(StoreError, match="table of 3 is gone"):
        promote(client, "docs", 3, **ME, prove=missing)
    with pytest.raises(RegistryError, match="version 1 of docs does not load, so no pointer moved"):
        rollback(client, "docs", **ME, prove=broken)
    with pytest.raises(RegistryError, match="docs has no version 9: it has 1, 2, 3"):
        rollback(client, "docs", 9, **ME, prove=loads)
    with pytest.raises(RegistryError, match="Registered Model with name=dcos not found"):
        hold(client, "dcos", **ME)
    assert history(client, "dcos") == []
    with pytest.raises(RegistryError, match="nothing is registered under that name"):
        promote(client, "dcos", 1, **ME, prove=loads)
    assert (pointers(client, "docs"), history(client, "docs")) == (before, moves)


def test_a_rollback_goes_to_the_version_before_and_holds_the_model(client: MlflowClient) -> None:
    rollback(client, "docs", by="ann", reason="wrong prices", prove=loads)
    assert pointers(client, "docs") == Pointers(1, 3, 2, "rolled back by ann: wrong prices")
    assert held(client, "docs") == "rolled back by ann: wrong prices"
    with pytest.raises(RefusedError, match=r"docs is held \(rolled back by ann: wrong prices\)"):
        promote(client, "docs", 3, **ME, prove=loads)
    promote(client, "docs", 3, **ME, prove=loads, force=True)
    assert pointers(client, "docs").champion == 3
    assert held(client, "docs") is not None
    unhold(client, "docs", **ME)
    assert held(client, "docs") is None
    assert unhold(client, "docs", **ME) is None


def test_a_second_rollback_never_brings_back_what_was_rolled_back_from(client: MlflowClient) -> None:
    rollback(client, "docs", **ME, prove=loads)
    with pytest.raises(RefusedError, match=r"docs was moved back from version 2 already.* --to 2$"):
        rollback(client, "docs", **ME, prove=loads)
    rollback(client, "docs", 2, **ME, prove=loads)
    assert pointers(client, "docs").champion == 2


def test_a_second_rollback_never_names_a_version_that_is_gone(client: MlflowClient) -> None:
    rollback(client, "docs", **ME, prove=loads)
    for number, remedy in ((2, "--to 3$"), (3, "there is no other$")):
        client.delete_model_version("docs", str(number))
        with pytest.raises(RefusedError, match=remedy):
            rollback(client, "docs", **ME, prove=loads)


def test_a_rollback_without_previous_takes_the_last_version_that_was_live(client: MlflowClient) -> None:
    promote(client, "docs", 3, **ME, prove=loads)
    client.delete_model_version("docs", "2")
    assert rollback(client, "docs", **ME, prove=loads).after == 1


def test_a_rollback_of_what_never_had_another_version_is_refused(home: Home) -> None:
    client = connected(home)
    add_version(client)
    promote(client, "docs", 1, **ME, prove=loads)
    with pytest.raises(RefusedError, match="docs has nothing to roll back to"):
        rollback(client, "docs", **ME, prove=loads)
    with pytest.raises(RefusedError, match="version 1 of docs is live already"):
        rollback(client, "docs", 1, **ME, prove=loads)


def test_a_dry_run_proves_the_target_and_writes_nothing(client: MlflowClient) -> None:
    proven: list[dict[str, object]] = []
    before, moves = pointers(client, "docs"), history(client, "docs")
    move = rollback(client, "docs", **ME, prove=proven.append, dry_run=True)
    assert (move.before, move.after, proven) == (2, 1, [{"number": 1}])
    assert (pointers(client, "docs"), history(client, "docs")) == (before, moves)


def test_protected_versions_are_not_deleted(client: MlflowClient) -> None:
    for _ in range(2):
        add_version(client)
    keep(client, "docs", 4, by="ann", reason="audit of 2026")
    assert protected(client, "docs") == {
        1: "was live before the champion",
        2: "is live",
        3: "waits for approval",
        4: "is kept: audit of 2026 (ann)",
    }
    for number in (1, 2, 3, 4):
        with pytest.raises(RefusedError, match=f"version {number} of docs"):
            delete_version(client, "docs", number)
    delete_version(client, "docs", 5)
    assert [version.number for version in list_versions(client, "docs")] == [1, 2, 3, 4]


def test_a_hold_by_a_person_is_in_the_ledger(client: MlflowClient) -> None:
    hold(client, "docs", by="ann", reason="audit")
    assert held(client, "docs") == "held by ann: audit"
    unhold(client, "docs", by="ben", reason="done")
    moves = [(move.what, move.before, move.after, move.by) for move in history(client, "docs")[-2:]]
    assert moves == [("hold", 0, 1, "ann"), ("hold", 1, 0, "ben")]


def test_settling_does_nothing_where_nothing_is_to_be_done(client: MlflowClient) -> None:
    before = history(client, "docs")
    assert settle(client, "docs") == []
    assert settle(client, "unknown") == []
    assert history(client, "docs") == before


def test_an_alias_moved_forward_by_hand_is_found_and_written(client: MlflowClient) -> None:
    client.set_registered_model_alias("docs", "champion", "3")
    [move] = settle(client, "docs")
    assert (move.what, move.before, move.after, move.by) == ("champion", 2, 3, BY_HAND)
    assert pointers(client, "docs") == Pointers(champion=3, previous=2)
    assert settle(client, "docs") == []


def test_an_alias_moved_back_by_hand_is_a_rollback_by_a_person(client: MlflowClient) -> None:
    client.set_registered_model_alias("docs", "champion", "1")
    settle(client, "docs")
    assert pointers(client, "docs") == Pointers(1, 3, 2, "rolled back in MLflow itself")
    assert settle(client, "docs") == []
    with pytest.raises(RefusedError, match="is held"):
        promote(client, "docs", 3, **ME, prove=loads)


def test_a_champion_deleted_by_hand_is_found_and_can_be_rolled_back(client: MlflowClient) -> None:
    client.delete_model_version("docs", "2")
    [move] = settle(client, "docs")
    assert (move.what, move.before, move.after) == ("champion", 2, None)
    assert live_at(client, "docs", move.at) is None
    rollback(client, "docs", **ME, prove=loads)
    assert pointers(client, "docs") == Pointers(1, 3, None, "rolled back by me: because")


def test_every_other_change_by_hand_is_found_too(client: MlflowClient) -> None:
    client.delete_registered_model_alias("docs", "candidate")
    client.set_registered_model_alias("docs", "previous", "3")
    client.set_registered_model_tag("docs", "tandem.hold", "audit")
    found = [(move.what, move.before, move.after) for move in settle(client, "docs")]
    assert found == [("candidate", 3, None), ("previous", 1, 3), ("hold", 0, 1)]
    assert settle(client, "docs") == []


def test_a_move_that_never_was_does_not_explain_one_by_hand(client: MlflowClient) -> None:
    now = pointers(client, "docs")
    never = Move("docs", "champion", 2, 3, time.time(), "flow reindex", "no worse")
    begin(client, never, now, Pointers(champion=3, previous=2))
    assert settle(client, "docs") == []
    client.set_registered_model_alias("docs", "champion", "3")
    assert [move.by for move in settle(client, "docs")] == [BY_HAND]


def test_a_model_deleted_by_hand_leaves_its_history(client: MlflowClient) -> None:
    client.delete_registered_model("docs")
    assert [move.what for move in settle(client, "docs")] == ["champion", "candidate", "previous"]
    assert settle(client, "docs") == []
    assert len(history(client, "docs")) == 6


@pytest.mark.parametrize(
    ("operation", "before", "after", "steps"),
    [
        ("promote", Pointers(2, 3, 1), Pointers(3, None, 2), 5),
        ("rollback", Pointers(2, 3, 1), Pointers(1, 3, 2, "rolled back by me: worse"), 5),
    ],
)
def test_a_move_that_is_killed_at_any_step_is_made_or_never_was(
    client: MlflowClient,
    home: Home,
    tmp_path: Path,
    operation: str,
    before: Pointers,
    after: Pointers,
    steps: int,
) -> None:
    moves = history(client, "docs")
    homes = killed_homes(home, operation, tmp_path / "killed")
    assert len(homes) == steps + 1
    outcomes = []
    for copy in homes:
        killed = connect(copy)
        settled = settle(killed, "docs")
        outcomes.append(pointers(killed, "docs"))
        made = history(killed, "docs")[len(moves) :]
        assert len(made) == (outcomes[-1] == after)
        assert settled in ([], made)
        assert live_at(killed, "docs", made[0].at if made else moves[-1].at) == outcomes[-1].champion
        assert settle(killed, "docs") == []
        assert running(killed) == []
    assert outcomes == [before] * 2 + [after] * (steps - 1)


def test_settling_that_is_killed_is_settled_by_the_next(client: MlflowClient, home: Home, tmp_path: Path) -> None:
    client.set_registered_model_alias("docs", "champion", "1")
    client.delete_registered_model_alias("docs", "candidate")
    for copy in killed_homes(home, "settle", tmp_path / "killed"):
        killed = connect(copy)
        settle(killed, "docs")
        assert pointers(killed, "docs") == Pointers(1, None, 2, "rolled back in MLflow itself")
        assert [move.what for move in history(killed, "docs")][-2:] == ["champion", "candidate"]
        assert running(killed) == []


STEPS = st.tuples(
    st.sampled_from(["promote", "rollback", "propose", "unhold", "hand moves", "hand deletes", "hand drops alias"]),
    st.integers(1, 4),
)


@settings(max_examples=8, deadline=None, derandomize=True, suppress_health_check=[HealthCheck.function_scoped_fixture])
@given(steps=st.lists(STEPS, min_size=3, max_size=7))
def test_pointers_and_ledger_agree_after_any_moves_by_command_and_by_hand(
    client: MlflowClient, steps: list[tuple[str, int]]
) -> None:
    name = f"model-{uuid.uuid4().hex}"
    client.create_registered_model(name)
    for _ in range(4):
        client.create_model_version(name, client.get_model_version("docs", "1").source)
    for step, number in steps:
        before = pointers(client, name)
        with contextlib.suppress(RefusedError, RegistryError, MlflowException):
            act(client, name, step, number)
        acted = pointers(client, name)
        settle(client, name)
        now, moves = pointers(client, name), history(client, name)
        assert settle(client, name) == []
        assert running(client) == []
        assert now.champion == acted.champion == live_at(client, name, time.time() + 1)
        lived = [(move.before, move.after) for move in moves if move.what == "champion"]
        assert all(earlier[1] == later[0] for earlier, later in itertools.pairwise(lived))
        if None not in (now.champion, before.champion) and now.champion != before.champion:
            assert now.previous == before.champion
        if step == "hand moves" and (now.champion or 0) < (before.champion or 0):
            assert now.hold is not None


def act(client: MlflowClient, name: str, step: str, number: int) -> None:
    match step:
        case "promote":
            promote(client, name, number, **ME, prove=loads)
        case "rollback":
            rollback(client, name, **ME, prove=loads)
        case "propose":
            propose(client, name, number, **ME)
        case "unhold":
            unhold(client, name, **ME)
        case "hand moves":
            client.set_registered_model_alias(name, "champion", str(number))
        case "hand deletes":
            client.delete_model_version(name, str(number))
        case "hand drops alias":
            client.delete_registered_model_alias(name, "champion")


def running(client: MlflowClient) -> list[str]:
    """The ledger's runs that were left open."""
    ids = [experiment.experiment_id for experiment in client.search_experiments()]
    return [run.info.run_id for run in client.search_runs(ids, "attributes.status = 'RUNNING'")]
