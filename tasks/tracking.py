"""The MLflow run of a flow run: one, however often Prefect starts it again."""

from collections.abc import Iterator
from contextlib import contextmanager, suppress

from prefect import runtime

from tasks.config.settings import find_home
from tasks.errors import RegistryError
from tasks.registry.connection import connect
from tasks.registry.runs import DESCRIPTION_TAG, finish, reopen_run, start_run

FLOW_RUN_TAG = "prefect.flow_run_id"


@contextmanager
def mlflow_run(experiment: str, model: str, reason: str = "") -> Iterator[str]:
    """A run that ends with the block: FINISHED, or FAILED by an error. A killed one is closed by the next run.

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
    except BaseException:
        with suppress(RegistryError):  # where it is MLflow that failed, the next run closes this one
            finish(client, run_id, "FAILED")
        raise
    finish(client, run_id)
