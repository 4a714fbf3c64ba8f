"""Progress where people look: a bar on the terminal, an artifact in the Prefect UI."""

import sys
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from typing import cast
from uuid import UUID

from prefect.artifacts import create_progress_artifact, update_progress_artifact
from prefect.context import TaskRunContext

SECONDS_BETWEEN_UPDATES = 2.0


@contextmanager
def progress(step: str, name: str, total: int) -> Iterator[Callable[[int], None]]:
    """Show the progress of `total` steps; yields a function to call with the number of steps just done.

    Outside of a task run only the terminal shows anything.
    """
    with _terminal_bar(f"{step} {name}", total) as advance_bar:
        artifact = None
        if TaskRunContext.get():
            artifact = cast(
                UUID, create_progress_artifact(0.0, key=artifact_key(step, name), description=f"{step} {name}")
            )
        done, shown = 0, time.monotonic()
        started = shown

        def advance(steps: int = 1) -> None:
            nonlocal done, shown
            done += steps
            advance_bar(steps)
            now = time.monotonic()
            if artifact and now - shown > SECONDS_BETWEEN_UPDATES:
                left = (now - started) * (total - done) / max(done, 1)
                update_progress_artifact(
                    artifact, 100 * done / max(total, 1), description=f"{step} {name}: {_duration(left)} left"
                )
                shown = now

        yield advance
        if artifact:
            update_progress_artifact(artifact, 100.0)


def _duration(seconds: float) -> str:
    return f"{seconds / 60:.0f} min" if seconds >= 90 else f"{seconds:.0f} s"


def artifact_key(*parts: str) -> str:
    """A key as Prefect wants it: lower case, digits and dashes."""
    return "-".join(parts).lower().replace("_", "-")


@contextmanager
def _terminal_bar(title: str, total: int) -> Iterator[Callable[[int], None]]:
    if not sys.stderr.isatty():
        yield lambda steps: None
        return
    from rich.console import Console
    from rich.progress import BarColumn, MofNCompleteColumn, Progress, TextColumn, TimeRemainingColumn

    columns = (TextColumn("{task.description:<24}"), BarColumn(), MofNCompleteColumn(), TimeRemainingColumn())
    with Progress(*columns, console=Console(stderr=True)) as bar:
        step = bar.add_task(title, total=total)
        yield lambda steps: bar.advance(step, steps)
