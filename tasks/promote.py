"""Moves pointers: what the verdict says after a night, what a person says at any time.

A lock of their own, held for a moment, keeps two moves apart; a rollback never waits for a night that is under way.
"""

from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import replace

from prefect import runtime, task

from tasks.config.settings import Home, find_home
from tasks.errors import RefusedError
from tasks.lock import model_lock
from tasks.proof import prove
from tasks.records import Move, Verdict, Version
from tasks.registry import pointers
from tasks.registry.connection import MlflowClient, connect
from tasks.registry.deleted import restore_ledger
from tasks.registry.marks import check_ours

SECONDS_TO_WAIT = 60


@contextmanager
def moving(name: str, home: Home) -> Iterator[MlflowClient]:
    """MLflow, with nobody else of ours moving a pointer of this model.

    The ledger is there, restored if it was deleted. Raises RegistryError where the model was made by somebody else.
    """
    with model_lock(home.locks, f"{name}.pointers", SECONDS_TO_WAIT):
        client = connect(home)
        check_ours(client, name)
        restore_ledger(client)
        yield client


@task(name="follow verdict", task_run_name="{verdict.decision} {version.name} v{version.number}")
def follow_verdict(version: Version, verdict: Verdict) -> tuple[Verdict, int | None]:
    """Put the version live, or let it wait for approval, or leave it; the verdict as followed, and what is live now."""
    with moving(version.name, find_home()) as client:
        followed = follow(client, version, verdict)
        return followed, pointers.pointers(client, version.name).champion


def follow(client: MlflowClient, version: Version, verdict: Verdict) -> Verdict:
    """Move the pointers as verdict and configuration say. The caller holds the lock (`moving`).

    Returns the verdict that was followed: `hold` where somebody rolled back while the night was under way.
    """
    name, number, by = version.name, version.number, _flow()
    if verdict.decision == "promote" and verdict.promote == "auto":
        try:
            pointers.promote(client, name, number, by=by, reason=" ".join(verdict.reasons), prove=prove)
        except RefusedError as refusal:
            verdict = replace(verdict, decision="hold", reasons=(str(refusal), *verdict.reasons))
        else:
            return verdict
    if is_to_wait(verdict.decision, verdict.promote):
        pointers.propose(client, name, number, by=by, reason=" ".join(verdict.reasons))
    return verdict


def is_to_wait(decision: str, promote: str) -> bool:
    """Whether a version with this verdict becomes the candidate, for a person to approve, and does not go live."""
    return promote != "never" and (decision == "hold" or (decision, promote) == ("promote", "ask"))


def _flow() -> str:
    """Who moves the pointer, for the ledger; `tandem mend` follows what a killed flow left behind."""
    return f"flow {runtime.flow_run.flow_name}" if runtime.flow_run.id else "tandem mend"


def is_live(name: str, number: int, home: Home) -> bool:
    return pointers.pointers(connect(home), name).champion == number


def promote_by_hand(name: str, number: int, by: str, reason: str, home: Home) -> Move:
    """A person's promotion; it is made even while the model is held, and leaves the hold in place."""
    with moving(name, home) as client:
        return pointers.promote(client, name, number, by=by, reason=reason, prove=prove, force=True)


def approve(name: str, number: int | None, by: str, reason: str, home: Home) -> Move:
    """Put a version live that waits for approval, by default the candidate.

    Raises RefusedError where nothing waits.
    """
    number = number or pointers.pointers(connect(home), name).candidate
    if number is None:
        raise RefusedError(f"no version of {name} waits for approval: name one, or see `tandem status`")
    return promote_by_hand(name, number, by, reason, home)


def roll_back(name: str, to: int | None, by: str, reason: str, dry_run: bool, home: Home) -> Move:
    """Put an earlier version live and hold the model; with `dry_run` only prove that it could be done."""
    with moving(name, home) as client:
        return pointers.rollback(client, name, to, by=by, reason=reason, prove=prove, dry_run=dry_run)


def lift_hold(name: str, by: str, reason: str, home: Home) -> Move | None:
    with moving(name, home) as client:
        return pointers.unhold(client, name, by=by, reason=reason)
