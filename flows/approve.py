"""Approval from the Prefect UI: a version that waits goes live, once it is proven to load."""

from prefect import flow
from prefect.artifacts import create_markdown_artifact

from tasks.config.moves import ApproveConfig
from tasks.config.settings import find_home
from tasks.environment import user_name
from tasks.outcome import Outcome, end_as
from tasks.progress import artifact_key
from tasks.promote import approve as approve_version
from tasks.records import Move


@flow(name="approve", flow_run_name="approve {config.name}")
def approve(config: ApproveConfig) -> Move:
    """Prove that the candidate loads, and move `champion` to it."""
    move = approve_version(config.name, config.version, config.by or user_name(), config.reason, find_home())
    create_markdown_artifact(
        f"**{move.name}**: version {move.after} is live (before: {move.before}).\n\n{config.reason} ({move.by})",
        key=artifact_key("approve", config.name),
    )
    return end_as(Outcome(f"Promoted v{move.after}", f"Went from {move.before} to {move.after}. {config.reason}"), move)
