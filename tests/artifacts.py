"""What a flow left in Prefect for people to read."""

from typing import Any
from uuid import UUID

from prefect import get_client
from prefect.client.schemas.filters import ArtifactFilter, ArtifactFilterFlowRunId, LogFilter, LogFilterFlowRunId
from prefect.client.schemas.objects import FlowRun, State

from tests.waiting import wait_for


def artifacts_of(flow_run: UUID) -> dict[str | None, Any]:
    """The artifacts of one flow run, those of its tasks included: by key, what they show."""
    of_run = ArtifactFilter(flow_run_id=ArtifactFilterFlowRunId(any_=[flow_run]))
    with get_client(sync_client=True) as client:
        return {artifact.key: artifact.data for artifact in client.read_artifacts(artifact_filter=of_run)}


def run_of(state: State[Any]) -> FlowRun:
    """The run as the server has it."""
    assert state.state_details.flow_run_id
    with get_client(sync_client=True) as client:
        return client.read_flow_run(state.state_details.flow_run_id)


def log_of(run: FlowRun) -> str:
    """What its Logs tab shows, once everything is sent."""
    of_run = LogFilter(flow_run_id=LogFilterFlowRunId(any_=[run.id]))

    def read() -> str:
        with get_client(sync_client=True) as client:
            return "\n".join(line.message for line in client.read_logs(of_run, limit=200))

    wait_for(lambda: f"Finished in state {run.state_name}(" in read(), 30)
    return read()
