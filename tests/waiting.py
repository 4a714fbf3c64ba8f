"""Waiting for what another process does, as long as a loaded machine may need and no longer."""

import time
from collections.abc import Callable


def wait_for(condition: Callable[[], bool], seconds: float = 180, tell: Callable[[], str] = str) -> None:
    """Fails if it has not come true by then, with what is to be told of it."""
    end = time.monotonic() + seconds
    while not condition():
        assert time.monotonic() < end, f"still waiting after {seconds:g} s\n{tell()}"
        time.sleep(0.2)  # what is asked is often a server that has more to do
