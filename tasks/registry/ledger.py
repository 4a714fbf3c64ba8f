"""The ledger: every move of a pointer is a run in the MLflow experiment ``ledger``.

MLflow's aliases keep no history, so this is the only one. A move is written before it is made, as a run
that is RUNNING; it is FINISHED when the move is complete, and FAILED when it turns out that it never was.
"""

import json
import math
import time
from collections.abc import Iterator
from dataclasses import asdict, dataclass
from datetime import UTC, datetime
from typing import Any, Literal, cast

from mlflow import MlflowClient
from mlflow.entities import Run

from tasks.records import Move, known_fields
from tasks.registry.connection import explained
from tasks.registry.marks import experiment_id, find_experiment
from tasks.registry.runs import PAGE, search_runs

EXPERIMENT = "ledger"
VOID_TAG = "void"
LONGEST_REASON = 4000
What = Literal["champion", "candidate", "previous", "hold"]
ROLLED_BACK = "rolled back"
"""How the reason of a hold begins that a rollback left."""


@dataclass(frozen=True, slots=True)
class Pointers:
    """Where every pointer of a model stands, and why the model is held, if it is."""

    champion: int | None = None
    candidate: int | None = None
    previous: int | None = None
    hold: str | None = None

    @property
    def aliases(self) -> set[int]:
        """The versions that a pointer stands on."""
        return {number for number in (self.champion, self.candidate, self.previous) if number is not None}

    @property
    def is_rolled_back(self) -> bool:
        """Whether a rollback is the reason of the hold."""
        return (self.hold or "").startswith(ROLLED_BACK)


@dataclass(frozen=True, slots=True)
class Entry:
    """One run of the ledger: the move, and all pointers before and after it."""

    run_id: str
    finished: bool
    move: Move
    before: Pointers
    after: Pointers


@explained
def history(client: MlflowClient, name: str) -> list[Move]:
    """Every move of the model's pointers, oldest first."""
    return [entry.move for entry in made(client, name)][::-1]


@explained
def made(client: MlflowClient, name: str) -> list[Entry]:
    """Every move that was made, with the pointers before and after it, newest first."""
    return [entry for entry in entries(client, name, page_size=PAGE) if entry.finished]


@explained
def live_at(client: MlflowClient, name: str, when: float) -> int | None:
    """The version that was live at a time, in seconds since the epoch."""
    moves = (entry.move for entry in entries(client, name, until=when) if entry.finished)
    return next((move.after for move in moves if move.what == "champion" and move.at <= when), None)


@explained
def names(client: MlflowClient) -> set[str]:
    """Every model that a move was written of, whether it still exists or not."""
    runs = search_runs(client, _places(client), "attributes.status != 'FAILED'")
    return {run.data.tags["name"] for run in runs}


@explained
def was_ever_pointed_at(client: MlflowClient, name: str, number: int) -> bool:
    """Whether the version was ever live or waiting for approval."""
    moves = (entry.move for entry in entries(client, name))
    return any(move.after == number and move.what in ("champion", "candidate") for move in moves)


def entries(client: MlflowClient, name: str, until: float | None = None, page_size: int = 20) -> Iterator[Entry]:
    """The moves that were made or begun, newest first, read page by page as they are asked for."""
    query = f"tags.name = '{name}' and attributes.status != 'FAILED'"
    if until is not None:
        query += f" and attributes.start_time <= {math.ceil(until * 1000)}"
    experiments = _places(client)
    token = None
    while experiments:
        page = client.search_runs(
            experiments, query, max_results=page_size, order_by=["attributes.start_time DESC"], page_token=token
        )
        yield from map(_entry, page)
        token = page.token
        if not token:
            return


def _places(client: MlflowClient) -> list[str]:
    """The ledger's experiment; nothing before its first move, or where somebody deleted it."""
    found = find_experiment(client, EXPERIMENT)
    return [found.experiment_id] if found else []


def begin(client: MlflowClient, move: Move, before: Pointers, after: Pointers) -> str:
    """Write a move that is about to be made; returns its run's id."""
    tags = {
        "name": move.name,
        "what": move.what,
        "from": _text(move.before),
        "to": _text(move.after),
        "at": datetime.fromtimestamp(move.at, UTC).isoformat(timespec="microseconds"),
        "by": move.by,
        "reason": move.reason[:LONGEST_REASON],
        "before": json.dumps(asdict(before)),
        "after": json.dumps(asdict(after)),
    }
    title = f"{move.name} {move.what} {_text(move.before)} → {_text(move.after)}"
    run = client.create_run(
        experiment_id(client, EXPERIMENT), start_time=math.floor(move.at * 1000), tags=tags, run_name=title
    )
    return run.info.run_id


def complete(client: MlflowClient, run_id: str) -> None:
    """The move was made."""
    client.set_terminated(run_id, "FINISHED")


def void(client: MlflowClient, run_id: str, why: str) -> None:
    """The move was never made."""
    client.set_tag(run_id, VOID_TAG, why)
    client.set_terminated(run_id, "FAILED")


def time_of_next(last: Entry | None) -> float:
    """Now, but always later than the last move, so that the order holds even where a clock is set back.

    MLflow orders runs by the millisecond of their start (ordering by the tag takes a second at 5,000 moves).
    """
    now = max(time.time(), last.move.at + 0.002) if last else time.time()
    return round(now, 6)


def _entry(run: Run) -> Entry:
    tags = run.data.tags
    move = Move(
        name=tags["name"],
        what=cast(What, tags["what"]),
        before=_number(tags["from"]),
        after=_number(tags["to"]),
        at=datetime.fromisoformat(tags["at"]).timestamp(),
        by=tags["by"],
        reason=tags["reason"],
    )
    before, after = (_pointers(json.loads(tags[key])) for key in ("before", "after"))
    return Entry(run.info.run_id, run.info.status == "FINISHED", move, before, after)


def _pointers(values: dict[str, Any]) -> Pointers:
    return Pointers(**known_fields(Pointers, values, "an entry of the ledger"))


def _text(number: int | None) -> str:
    return "none" if number is None else str(number)


def _number(text: str) -> int | None:
    return None if text == "none" else int(text)
