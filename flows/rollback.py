"""Rollback from the Prefect UI: a form, a proof, a move."""

from prefect import flow
from prefect.artifacts import create_markdown_artifact

from tasks.config.moves import RollbackConfig
from tasks.config.settings import find_home
from tasks.environment import user_name
from tasks.outcome import Outcome, end_as
from tasks.progress import artifact_key
from tasks.promote import roll_back
from tasks.records import Move


@flow(name="rollback", flow_run_name="roll back {config.name}")
def rollback(config: RollbackConfig) -> Move:
    """Prove that the target loads, move `champion` to it, and hold the model."""
    by = config.by or user_name()
    move = roll_back(config.name, config.to, by, config.reason, config.dry_run, find_home())
    if config.dry_run:
        told = f"Dry run: would go from {move.before} to {move.after}"
        then = "Nothing was moved: the version loads and answers."
    else:
        told = f"Went from {move.before} to {move.after}"
        then = f"Lift the hold with `tandem unhold {move.name}` when nightly versions may go live again."
    create_markdown_artifact(
        f"**{move.name}**: {told}.\n\n{config.reason} ({by})\n\n{then}", key=artifact_key("rollback", config.name)
    )
    name = told if config.dry_run else f"Rolled back to v{move.after}"
    return end_as(Outcome(name, f"{told}. {then}"), move)
