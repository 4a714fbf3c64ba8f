"""Processes forked from one that has imported everything already: a start costs a fraction of a second, not ten.

The process they are forked from only imports. It opens no database, no table and no model, so a forked one begins as
a new one would, with its environment, and its standard error in a file. LanceDB makes the thread that its import
starts again after a fork.
"""

import multiprocessing
import os
import sys
from collections.abc import Callable
from multiprocessing.context import ForkServerContext
from pathlib import Path
from typing import Any

IMPORTS = [
    "flows.reindex",
    "tasks.index.minilm",
    "mlflow.pyfunc",
    "mlflow.store.tracking.sqlalchemy_store",
    "mlflow.store.model_registry.sqlalchemy_store",
    "prefect.flow_engine",
    "prefect.task_engine",
    "scipy.stats",
    "matplotlib.figure",
    "pytrec_eval",
]


def run_preloaded(
    function: Callable[..., Any], *arguments: Any, environment: dict[str, str], errors: Path, timeout: float
) -> int:
    """Call the function in a process of its own; returns the exit status, negative where a signal ended it."""
    context: ForkServerContext = multiprocessing.get_context("forkserver")
    context.set_forkserver_preload(IMPORTS)
    process = context.Process(target=_begin, args=(environment, str(errors), function, *arguments))
    process.start()
    try:
        process.join(timeout)
        assert process.exitcode is not None, f"still running after {timeout:g} s"
        return process.exitcode
    finally:
        process.kill()
        process.join()


def _begin(environment: dict[str, str], errors: str, function: Callable[..., Any], *arguments: Any) -> None:
    from prefect.context import refresh_global_settings_context

    os.environ.clear()
    os.environ.update(environment)
    refresh_global_settings_context()  # Prefect read the environment as it was imported
    with open(errors, "ab") as file:
        os.dup2(file.fileno(), sys.stderr.fileno())
    function(*arguments)
