"""Runs one operation on copies of a home, each killed by SIGKILL a step later; see `killed_homes`.

Forking after MLflow is imported saves seconds a step; the child opens its own database.
"""

import os
import signal
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path
from typing import Any

from mlflow import MlflowClient
from mlflow.tracking._model_registry.client import ModelRegistryClient

from tasks.config.settings import Home
from tasks.registry.connection import connect
from tasks.registry.pointers import promote, rollback, settle
from tests.homes import copy_home
from tests.registry_fixtures import add_version, loads

WRITES: dict[type, tuple[str, ...]] = {
    MlflowClient: (
        "create_experiment",
        "create_run",
        "log_batch",
        "log_artifacts",
        "create_registered_model",
        "create_model_version",
        "set_tag",
        "set_terminated",
    ),
    ModelRegistryClient: (
        "set_registered_model_alias",
        "delete_registered_model_alias",
        "set_registered_model_tag",
        "delete_registered_model_tag",
    ),
}
OPERATIONS: dict[str, Callable[[MlflowClient], object]] = {
    "register": add_version,
    "promote": lambda client: promote(client, "docs", 3, by="me", reason="better", prove=loads),
    "rollback": lambda client: rollback(client, "docs", by="me", reason="worse", prove=loads),
    "settle": lambda client: settle(client, "docs"),
}


def killed_homes(home: Home, operation: str, into: Path) -> list[Home]:
    """A home for each write of the operation, killed just before it; in the last one nothing was killed."""
    command = [sys.executable, __file__, str(home.root), operation, str(into)]
    repository = Path(__file__).resolve().parents[1]
    subprocess.run(command, check=True, env=os.environ | {"PYTHONPATH": str(repository)}, timeout=120)
    return [Home(path) for path in sorted(into.iterdir())]


class Countdown:
    """Counts MLflow's writes, and kills this process before the one that makes it zero."""

    def __init__(self) -> None:
        self.writes = 0
        self.deadly = -1
        for owner, names in WRITES.items():
            for name in names:
                setattr(owner, name, self.counted(getattr(owner, name)))

    def counted(self, write: Callable[..., Any]) -> Callable[..., Any]:
        def call(*args: Any, **kwargs: Any) -> Any:
            if self.writes == self.deadly:
                os.kill(os.getpid(), signal.SIGKILL)
            self.writes += 1
            return write(*args, **kwargs)

        return call


def main(home: Path, operation: str, into: Path) -> None:
    operate, countdown = OPERATIONS[operation], Countdown()
    # The whole operation once, here: it counts the writes, and does all lazy imports before the forks.
    whole = into / "whole"
    copy_home(Home(home), whole)
    operate(connect(Home(whole)))
    writes, countdown.writes = countdown.writes, 0
    for countdown.deadly in range(writes):
        copy = into / f"{countdown.deadly:02}"
        copy_home(Home(home), copy)
        child = os.fork()
        if child == 0:
            operate(connect(Home(copy)))
            os._exit(0)
        if not os.WIFSIGNALED(os.waitpid(child, 0)[1]):
            raise SystemExit(f"{operation} was not killed before its write {countdown.deadly}")


if __name__ == "__main__":
    main(Path(sys.argv[1]), sys.argv[2], Path(sys.argv[3]))
