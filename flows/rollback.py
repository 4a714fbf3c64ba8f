"""Rollback from the Prefect UI: a form, a proof, a move."""

from prefect import flow
from prefect.artifacts import create_markdown_artifact
from pydantic import Field

from tasks.config.environment import user_name
from tasks.config.fields import Name, Strict
from tasks.config.settings import find_home
from tasks.progress import artifact_key
from tasks.promote import roll_back
from tasks.records import Move


class RollbackConfig(Strict):
    """Put an earlier version live, and hold the model until somebody lifts the hold."""

    name: Name
    """Name of the index, the adapter or the release in the MLflow registry."""
    to: int | None = Field(None, ge=1)
    """Version to go back to; the one that was live before, if empty."""
    reason: str = Field(min_length=3)
    """Why, for the ledger and for whoever lifts the hold."""
    by: str = Field("", max_length=200)
    """Who asks for it; the worker's user, if empty."""
    dry_run: bool = True
    """Only prove that the version loads and answers; move nothing."""


@flow(name="rollback", flow_run_name="roll back {config.name}")
def rollback(config: RollbackConfig) -> Move:
    """Prove that the target loads, move `champion` to it, and hold the model."""
    by = config.by or user_name()
    move = roll_back(config.name, config.to, by, config.reason, config.dry_run, find_home())
    if config.dry_run:
        done, then = "would go", "Nothing was moved: the version loads and answers."
    else:
        done, then = "went", f"Lift the hold with `tandem unhold {move.name}` when nightly versions may go live again."
    create_markdown_artifact(
        f"**{move.name}** {done} from version {move.before} to version {move.after}.\n\n"
        f"{config.reason} ({by})\n\n{then}",
        key=artifact_key("rollback", config.name),
    )
    return move
