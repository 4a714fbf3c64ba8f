"""Waiting for what another process does, as long as a loaded machine may need and no longer."""

import time
from collections.abc import Callable


def wait_for(condition: Callable[[], bool], seconds: float = 180) -> None:
    """Fails if it has not come true by then."""
    end = time.monotonic() + seconds
    while not condition():
        assert time.monotonic() < end, f"still waiting after {seconds:g} s"
        time.sleep(0.05)
