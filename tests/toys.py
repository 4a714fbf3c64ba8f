"""Flows for the tests of services and retries: each writes down what it does, and some kill themselves."""

import os
import signal
import subprocess
import sys
import time
from pathlib import Path

from prefect import flow, runtime

from tasks.config.training import SftConfig
from tasks.tracking import mlflow_run


@flow
def dies_once(folder: str) -> None:
    """Kills its own process in its first attempt, and ends well in the second."""
    attempt = _write_down(folder)
    if attempt == 1:
        os.kill(os.getpid(), signal.SIGKILL)


@flow
def dies_always(folder: str) -> None:
    _write_down(folder)
    os.kill(os.getpid(), signal.SIGKILL)


@flow
def sleeps_once(folder: str) -> None:
    """Sleeps in its first attempt until somebody ends it, and ends well in the second."""
    if _write_down(folder) == 1:
        time.sleep(600)


@flow
def writes_down(folder: str) -> None:
    """Ends well at once."""
    _write_down(folder)


@flow
def sleeps_with_mlflow(folder: str) -> None:
    """Sleeps in the middle of its MLflow run."""
    with mlflow_run("sleeping", "sleeping"):
        _write_down(folder)
        time.sleep(600)


@flow
def waits_for_child(folder: str) -> None:
    """Stands for a training: the work is done by a child that ends only when its time is over."""
    child = subprocess.Popen([sys.executable, "-c", "import time; time.sleep(600)"])
    Path(folder, "child").write_text(str(child.pid))
    _write_down(folder)
    child.wait()


@flow
def finetune(config: SftConfig) -> str:
    """Has the form of a fine-tune, and trains nothing."""
    return config.name


def _write_down(folder: str) -> int:
    attempt = int(runtime.flow_run.run_count)
    Path(folder, f"attempt-{attempt}").write_text(f"{runtime.flow_run.id} {os.getpid()}")
    return attempt
