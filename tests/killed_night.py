"""A night that kills its own process with SIGKILL at a named step. test_crash.py starts a process for each."""

import importlib
import os
import signal
from pathlib import Path
from typing import Any

PASSAGES_BETWEEN_WRITES = 4


def die_at(point: str, when: str, count: int) -> None:
    """Replace a function by itself with a SIGKILL before or after its `count`-th call."""
    module_name, _, path = point.partition(":")
    owner: Any = importlib.import_module(module_name)
    *holders, name = path.split(".")
    for holder in holders:
        owner = getattr(owner, holder)
    original = getattr(owner, name)
    calls = 0

    def deadly(*args: Any, **kwargs: Any) -> Any:
        nonlocal calls
        calls += 1
        if calls == count and when == "before":
            os.kill(os.getpid(), signal.SIGKILL)
        result = original(*args, **kwargs)
        if calls == count:
            os.kill(os.getpid(), signal.SIGKILL)
        return result

    setattr(owner, name, deadly)


def killed_night(config_file: Path, point: str, when: str, count: int) -> None:
    """Re-index, and die at the point ``module:function`` or ``module:Class.method``."""
    from flows.reindex import reindex
    from tasks.config.index import ReindexConfig
    from tasks.index import cache

    cache.STORE_EVERY = PASSAGES_BETWEEN_WRITES
    die_at(point, when, count)
    reindex(ReindexConfig.model_validate_json(config_file.read_text()))
