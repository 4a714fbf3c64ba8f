"""What a long-running command writes to standard error, and the errors in what services wrote."""

import logging
import re
from collections.abc import Iterator
from dataclasses import dataclass
from datetime import datetime
from pathlib import Path

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


def read_errors(log: Path, since: datetime) -> Iterator[LoggedError]:
    """The errors that a service wrote into its log after a time, the oldest first."""
    if not log.exists():
        return
    with log.open("rb") as file:
        file.seek(max(0, log.stat().st_size - READ_BYTES))
        lines = file.read().decode(errors="replace").splitlines()
    for found in filter(None, map(ERROR.match, lines)):
        year, month, day, clock, text = found.groups()
        at = datetime.fromisoformat(f"{year}-{month}-{day} {clock}").astimezone()
        if at > since:
            yield LoggedError(at, text)
