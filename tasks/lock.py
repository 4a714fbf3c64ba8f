"""One run at a time on an index: a lock that the operating system lets go when its process dies."""

import os
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

from filelock import FileLock, Timeout

from tasks.errors import BusyError


@contextmanager
def model_lock(folder: Path, name: str, wait_seconds: float) -> Iterator[None]:
    """Hold the lock of one model, also against runs that Prefect does not know of, such as those of the command.

    Raises:
        BusyError: another process still holds it after `wait_seconds`; the message names the process.
    """
    folder.mkdir(parents=True, exist_ok=True)
    holder = folder / f"{name}.holder"
    try:
        with FileLock(folder / f"{name}.lock", timeout=wait_seconds):
            holder.write_text(f"process {os.getpid()}")
            yield
    except Timeout:
        whom = holder.read_text() if holder.exists() else "another process"
        raise BusyError(
            f"{name} is being worked on by {whom}, and still was after {wait_seconds:.0f} s: this run is skipped"
        ) from None
