"""Tells a run's story in the Logs tab of its page; where no flow runs, nobody is told."""

import logging
from collections.abc import Iterator
from contextlib import contextmanager

from prefect.context import FlowRunContext, TaskRunContext
from prefect.logging import get_run_logger

from tasks.timing import timed


def tell(line: str, level: int = logging.INFO) -> None:
    """One line, as it is."""
    if FlowRunContext.get() or TaskRunContext.get():
        get_run_logger().log(level, "%s", line)


def warn(line: str) -> None:
    """One line about something that a person should look at."""
    tell(line, logging.WARNING)


@contextmanager
def step(seconds: dict[str, float], name: str) -> Iterator[None]:
    """A step of a flow: how long it took is added to `seconds`, and told."""
    before = seconds.get(name, 0.0)
    with timed(seconds, name):
        yield
    tell(f"{name}: {seconds[name] - before:.1f} s")
