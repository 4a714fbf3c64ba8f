"""What a person fills in to move a pointer: the forms of the flows `rollback` and `approve`.

A form's model never stands in the flow's own file: Prefect loads that by its path, and then a field's sentence, which
is read from the source of its class, may be lost.
"""

from pydantic import Field

from tasks.config.fields import Name, Strict


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
    dry_run: bool = False
    """Only prove that the version loads and answers; move nothing."""


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
