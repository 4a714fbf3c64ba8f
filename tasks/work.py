"""``python -m tasks.work POOL NAME``: a Prefect worker that loads at once, and begins when its standard input ends."""

import sys

import prefect.workers.process  # noqa: F401  # what takes seconds to load
from prefect.cli import app


def main() -> None:
    pool, name = sys.argv[1:]
    sys.stdin.read()
    sys.argv[1:] = ["worker", "start", "--type", "process", "--pool", pool, "--name", name]
    app()


if __name__ == "__main__":
    main()
