"""A run that was cancelled in Prefect says so in MLflow as well."""

import os
import subprocess
import sys
from pathlib import Path
from uuid import UUID

import pytest
from prefect import get_client
from prefect.client.schemas.objects import State
from prefect.states import Cancelling

from tasks.config.settings import Home
from tasks.registry.connection import connect
from tasks.registry.runs import CLOSED_TAG, reopen_run
from tasks.tracking import FLOW_RUN_TAG
from tests.homes import environment_of
from tests.waiting import wait_for

pytestmark = pytest.mark.usefixtures("prefect")
ROOT = Path(__file__).resolve().parents[1]


@pytest.mark.parametrize(
    ("state", "why"),
    [
        (Cancelling(message="ann: the wrong rows"), "cancelled in Prefect: ann: the wrong rows"),
        (Cancelling(), "cancelled in Prefect"),
        (None, "its process was told to end, and not by a cancellation in Prefect"),
    ],
    ids=["with a reason", "without", "not cancelled"],
)
def test_a_run_that_was_stopped_is_killed_in_mlflow_and_says_why(
    ready_home: Home, tmp_path: Path, state: State[None] | None, why: str
) -> None:
    code = f"from tests.toys import sleeps_with_mlflow; sleeps_with_mlflow({str(tmp_path)!r})"
    environment = environment_of(ready_home) | {"PYTHONPATH": os.pathsep.join([str(ROOT), *sys.path])}
    process = subprocess.Popen([sys.executable, "-c", code], env=environment, cwd=ROOT)
    started = tmp_path / "attempt-1"
    wait_for(lambda: started.exists() and bool(started.read_text()))
    flow_run = started.read_text().split()[0]
    if state:
        with get_client(sync_client=True) as client:
            client.set_flow_run_state(UUID(flow_run), state)
    process.terminate()  # what the worker does then
    process.wait(60)
    mlflow = connect(ready_home)
    experiment = mlflow.get_experiment_by_name("sleeping")
    [run] = mlflow.search_runs([experiment.experiment_id])
    assert (run.info.status, run.data.tags[CLOSED_TAG]) == ("KILLED", why)
    assert reopen_run(mlflow, "sleeping", FLOW_RUN_TAG, flow_run) == run.info.run_id
    assert CLOSED_TAG not in mlflow.get_run(run.info.run_id).data.tags
