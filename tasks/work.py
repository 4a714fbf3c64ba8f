"""``python -m tasks.work POOL NAME``: a Prefect worker that loads while the server starts; it begins at once after."""

import sys
import time

import prefect.workers.process  # what the worker will need, loaded before the server answers  # noqa: F401
from httpx import TransportError
from prefect import get_client
from prefect.cli import app
from prefect.exceptions import ObjectNotFound

LOOK_SECONDS = 0.2


def main() -> None:
    pool, name = sys.argv[1:]
    while not is_there(pool):
        time.sleep(LOOK_SECONDS)
    sys.argv[1:] = ["worker", "start", "--type", "process", "--pool", pool, "--name", name]
    app()


def is_there(pool: str) -> bool:
    """Whether the server answers and has the pool; a worker that came first would make one without its limit."""
    try:
        with get_client(sync_client=True) as client:
            client.read_work_pool(pool)
    except (TransportError, ObjectNotFound):
        return False
    return True


if __name__ == "__main__":
    main()
