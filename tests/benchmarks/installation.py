"""An installation of its own for a measurement: an empty home and a real Prefect server."""

import os
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

from tasks.config.settings import find_home
from tasks.environment import prepare_environment


def new_home(root: Path, peers: Path | None = None) -> None:
    """Everything of this process and of those it starts lies below `root`; call it before Prefect is imported."""
    cache = root / "data" / "cache"
    cache.mkdir(parents=True)
    if peers:
        (cache / "peers-venv").symlink_to(peers)
    os.environ |= {"TANDEM_HOME": str(root), "PREFECT_LOGGING_LEVEL": "ERROR"}
    os.environ.pop("MLFLOW_TRACKING_URI", None)
    prepare_environment(find_home())


@contextmanager
def prefect_server() -> Iterator[dict[str, str]]:
    """A real Prefect server; yields the environment that lets another process use it."""
    from prefect.settings import PREFECT_API_URL
    from prefect.testing.utilities import prefect_test_harness

    with prefect_test_harness(server_startup_timeout=180):
        yield {"PREFECT_API_URL": str(PREFECT_API_URL.value())}
