"""Approval of drafted rows from the Prefect UI: the run pauses with a form of some rows at a time, until none waits."""

from collections.abc import Sequence
from typing import Any, Literal

from prefect import flow
from prefect.flow_runs import pause_flow_run
from prefect.input import RunInput
from pydantic import Field, create_model

from tasks.config.curation import ApproveRowsConfig
from tasks.config.settings import find_home
from tasks.environment import user_name
from tasks.outcome import Outcome, end_as
from tasks.records import Draft
from tasks.review import Desk, show_prompt

Choice = Literal["later", "approve", "reject"]
SECONDS_BETWEEN_LOOKS = 2
DECIDE = "What becomes of this row; `later` lets it wait."
EDIT = "The answer that is learnt: edit it here."


@flow(name="approve-rows", flow_run_name="approve rows of {config.name}")
def approve_rows(config: ApproveRowsConfig) -> dict[str, int]:
    """Show what waits, form by form, and keep each decision at once; returns how many rows are approved and rejected.

    The next run of `curate` makes data sets of them.
    """
    desk, by = Desk(config.name, find_home()), config.by or user_name()
    desk.read_file(by)
    counts = {"approve": 0, "reject": 0, "later": 0}
    waiting = desk.waiting()
    for start in range(0, len(waiting), config.rows):
        rows = waiting[start : start + config.rows]
        said = pause_flow_run(_form(rows), timeout=int(config.minutes * 60), poll_interval=SECONDS_BETWEEN_LOOKS)
        decided = [
            (row, getattr(said, f"decide_{row.id}"), getattr(said, f"answer_{row.id}", row.answer)) for row in rows
        ]
        desk.decide([(row.id, choice == "approve", answer) for row, choice, answer in decided if choice != "later"], by)
        for _, choice, _ in decided:
            counts[choice] += 1
    desk.write_file(by)
    told = ", ".join(f"{choice}: {count}" for choice, count in counts.items())
    return end_as(Outcome(f"Decided {counts['approve'] + counts['reject']} of {len(waiting)}", told), counts)


def _form(rows: Sequence[Draft]) -> type[RunInput]:
    """For each row a choice, and its answer to edit; golden queries have none."""
    fields: dict[str, Any] = {}
    for number, row in enumerate(rows, start=1):
        fields[f"decide_{row.id}"] = (Choice, Field("later", title=f"{number}. {row.question}", description=DECIDE))
        if row.kind != "golden":
            fields[f"answer_{row.id}"] = (
                str,
                Field(row.answer, title=f"{number}. Answer", description=EDIT, max_length=20_000),
            )
    form = create_model("Rows", __base__=RunInput, **fields)
    return form.with_initial_data("\n\n".join(_describe(number, row) for number, row in enumerate(rows, start=1)))


def _describe(number: int, row: Draft) -> str:
    parts = {
        "tenant": row.tenant,
        "answered by": ", ".join(row.relevant),
        "rejected": row.rejected,
        "read": show_prompt(row),
    }
    told = "\n".join(f"- {what}: {value}" for what, value in parts.items() if value)
    return f"### {number}. {row.question}\n\n{row.kind} row from {row.source}\n\n{told}"
