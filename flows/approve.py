"""Approval from the Prefect UI: a version that waits goes live, once it is proven to load."""

from prefect import flow
from prefect.artifacts import create_markdown_artifact
from pydantic import Field

from tasks.config.environment import user_name
from tasks.config.fields import Name, Strict
from tasks.config.settings import find_home
from tasks.progress import artifact_key
from tasks.promote import approve as approve_version
from tasks.records import Move


class ApproveConfig(Strict):
    """Put the version live that waits for approval."""

    name: Name
    """Name of the index or adapter in the MLflow registry."""
    version: int | None = Field(None, ge=1)
    """Version to put live; the candidate, if empty."""
    reason: str = Field(min_length=3)
    """Why, for the ledger."""
    by: str = Field("", max_length=200)
    """Who approves; the worker's user, if empty."""


@flow(name="approve", flow_run_name="approve {config.name}")
def approve(config: ApproveConfig) -> Move:
    """Prove that the candidate loads, and move `champion` to it."""
    move = approve_version(config.name, config.version, config.by or user_name(), config.reason, find_home())
    create_markdown_artifact(
        f"**{move.name}**: version {move.after} is live (before: {move.before}).\n\n{config.reason} ({move.by})",
        key=artifact_key("approve", config.name),
    )
    return move
