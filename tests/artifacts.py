"""What a flow left in Prefect for people to read."""

from typing import Any
from uuid import UUID

from prefect import get_client
from prefect.client.schemas.filters import ArtifactFilter, ArtifactFilterFlowRunId


def artifacts_of(flow_run: UUID) -> dict[str | None, Any]:
    """The artifacts of one flow run, those of its tasks included: by key, what they show."""
    of_run = ArtifactFilter(flow_run_id=ArtifactFilterFlowRunId(any_=[flow_run]))
    with get_client(sync_client=True) as client:
        return {artifact.key: artifact.data for artifact in client.read_artifacts(artifact_filter=of_run)}
