"""Ends MLflow runs whose flow run has ended without them: its process was killed, and is not started again."""

import logging
from datetime import datetime
from typing import Any
from uuid import UUID

from prefect.client.orchestration import SyncPrefectClient
from prefect.client.schemas.objects import State
from prefect.exceptions import ObjectNotFound

from tasks.config.settings import Home
from tasks.recover import SETTLED, may_start_again
from tasks.registry.connection import connect
from tasks.registry.runs import close_run, running_with
from tasks.tracking import FLOW_RUN_TAG

log = logging.getLogger(__name__)


def close_ended(client: SyncPrefectClient, home: Home, now: datetime) -> None:
    """Set the RUNNING MLflow runs of ended flow runs to FAILED, or to KILLED where somebody cancelled them.

    Raises RegistryError where MLflow does not answer.
    """
    mlflow = connect(home)
    for run_id, flow_run in running_with(mlflow, FLOW_RUN_TAG).items():
        if ended := _end_of(client, flow_run, now):
            why = f"its flow run ended: {ended.name}{f': {ended.message}' if ended.message else ''}"
            close_run(mlflow, run_id, "KILLED" if ended.is_cancelled() else "FAILED", why)
            log.warning("closed the MLflow run %s: %s", run_id, why)


def _end_of(client: SyncPrefectClient, flow_run: str, now: datetime) -> State[Any] | None:
    """How the flow run ended, where it did for good and long enough ago for its process to have said so."""
    try:
        run = client.read_flow_run(UUID(flow_run))
    except (ObjectNotFound, ValueError):
        return None  # of another server, or of none
    state = run.state
    if not state or not state.is_final() or now - state.timestamp < SETTLED:
        return None
    return None if state.is_crashed() and may_start_again(client, run) else state
