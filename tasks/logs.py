"""What a long-running command writes to standard error, and the errors in what services wrote."""

import logging
import os
import re
import shutil
from collections.abc import Iterator
from dataclasses import dataclass
from datetime import datetime
from pathlib import Path

LOG_BYTES = 5_000_000
"""A larger log begins anew."""
OLDER_LOGS = 2
READ_BYTES = 2_000_000
"""Of the end of a log: a service that fails at every turn writes much."""
ERROR = re.compile(r"^(\d{4})[-/](\d\d)[-/](\d\d) (\d\d:\d\d:\d\d).*?\b(?:ERROR|CRITICAL)\b[\s|:]*(.*)$")
"""A line as Prefect, MLflow and Tandem write it: when, and how bad; in local time."""


@dataclass(frozen=True, slots=True)
class LoggedError:
    """The first line of an error in a log."""

    at: datetime
    text: str


def log_to_standard_error(levels: dict[str, int]) -> None:
    """Lines of these loggers, from these levels on: other libraries might log the texts that they handle."""
    handler = logging.StreamHandler()
    handler.setFormatter(logging.Formatter("%(asctime)s %(levelname)s %(message)s"))
    for name, level in levels.items():
        logger = logging.getLogger(name)
        logger.addHandler(handler)
        logger.setLevel(level)
        logger.propagate = False


def rotate(log: Path) -> None:
    """Let a log that has grown begin anew, with what it held in older files beside it.

    Whoever writes it goes on without noticing: it only ever appends.
    """
    if not log.exists() or log.stat().st_size < LOG_BYTES:
        return
    for number in range(OLDER_LOGS, 1, -1):
        if (younger := _older(log, number - 1)).exists():
            younger.replace(_older(log, number))
    shutil.copyfile(log, _older(log, 1))
    os.truncate(log, 0)


def read_errors(log: Path, since: datetime) -> Iterator[LoggedError]:
    """The errors that a service wrote into its log after a time, the oldest first."""
    for found in filter(None, map(ERROR.match, _last_lines(log))):
        year, month, day, clock, text = found.groups()
        at = datetime.fromisoformat(f"{year}-{month}-{day} {clock}").astimezone()
        if at > since:
            yield LoggedError(at, text)


def _last_lines(log: Path) -> list[str]:
    """Also of the file before, as a log may have begun anew a moment ago."""
    lines: list[str] = []
    for file in (_older(log, 1), log):
        if file.exists():
            with file.open("rb") as opened:
                opened.seek(max(0, file.stat().st_size - READ_BYTES))
                lines += opened.read().decode(errors="replace").splitlines()
    return lines


def _older(log: Path, number: int) -> Path:
    return log.with_name(f"{log.name}.{number}")
