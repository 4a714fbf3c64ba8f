"""The MLflow run of a flow run: one, however often Prefect starts it again."""

from collections.abc import Iterator
from contextlib import contextmanager, suppress
from uuid import UUID

import httpx
from prefect import get_client, runtime
from prefect.client.schemas.objects import StateType
from prefect.exceptions import PrefectException, TerminationSignal

from tasks.config.settings import find_home
from tasks.errors import RegistryError
from tasks.registry.connection import connect
from tasks.registry.runs import DESCRIPTION_TAG, finish, reopen_run, start_run

FLOW_RUN_TAG = "prefect.flow_run_id"
STOPPED = (TerminationSignal, KeyboardInterrupt)
"""How a flow hears that its process is to end."""
LONGEST = 2000
"""Characters of a reason."""


@contextmanager
def mlflow_run(experiment: str, model: str, reason: str = "") -> Iterator[str]:
    """A run that ends with the block: FINISHED, FAILED by an error, or KILLED by whoever cancelled it.

    One whose process was killed is closed by the next run.

    The reason, if there is one, is its description.

    A flow run that was killed and that Prefect starts again goes on in the MLflow run it had.
    """
    client = connect(find_home())
    flow_run = str(runtime.flow_run.id)
    run_id = reopen_run(client, experiment, FLOW_RUN_TAG, flow_run)
    if run_id is None:
        tags = {FLOW_RUN_TAG: flow_run, "prefect.flow_run": runtime.flow_run.ui_url}
        tags |= {DESCRIPTION_TAG: reason} if reason else {}
        run_id = start_run(client, experiment, str(runtime.flow_run.name), model, tags)
    try:
        yield run_id
    except STOPPED:
        with suppress(RegistryError):
            finish(client, run_id, "KILLED", _who_stopped(flow_run))
        raise
    except BaseException as error:
        with suppress(RegistryError):  # where it is MLflow that failed, the next run closes this one
            finish(client, run_id, "FAILED", f"{type(error).__name__}: {error}"[:LONGEST])
        raise
    finish(client, run_id)


def _who_stopped(flow_run: str) -> str:
    """Why the process was told to end, as far as Prefect knows."""
    try:
        with get_client(sync_client=True) as client:
            state = client.read_flow_run(UUID(flow_run)).state
    except (httpx.HTTPError, PrefectException, ValueError):
        state = None
    if state and state.type in (StateType.CANCELLING, StateType.CANCELLED):
        return f"cancelled in Prefect{f': {state.message}' if state.message else ''}"
    return "its process was told to end, and not by a cancellation in Prefect"
