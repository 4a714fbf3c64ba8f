"""What the watcher found at its last look at the whole installation, kept in a file for those who cannot look."""

import json
from collections.abc import Sequence
from contextlib import suppress
from dataclasses import asdict
from datetime import datetime, timedelta
from pathlib import Path

from tasks.config.services import replace_file
from tasks.config.settings import Home
from tasks.records import Trouble

LOOK = timedelta(minutes=1)
"""From one look at the whole installation to the next."""
STALE = timedelta(minutes=5)
"""A look that lies so far back says that nobody looks any more."""


def write_health(home: Home, troubles: Sequence[Trouble], at: datetime) -> None:
    """Replace what the look before found."""
    told = {"at": at.isoformat(), "troubles": [asdict(trouble) for trouble in troubles]}
    replace_file(_file(home), json.dumps(told, indent=2))


def read_health(home: Home, now: datetime) -> list[str]:
    """What is wrong by the last look, in sentences; nothing where no watcher looks after this home.

    That the look lies too far back, or cannot be read, is wrong itself.
    """
    try:
        told = json.loads(_file(home).read_text())
        at, found = datetime.fromisoformat(told["at"]), [str(trouble["what"]) for trouble in told["troubles"]]
    except FileNotFoundError:
        return []
    except (OSError, ValueError, KeyError, TypeError) as error:
        return [f"{_file(home)} cannot be read ({error}): run `tandem doctor`"]
    if now - at > STALE:
        return [f"the watcher looked at the installation last at {at.astimezone():%Y-%m-%d %H:%M}: run `tandem up`"]
    return found


def forget_health(home: Home) -> None:
    """Once `tandem down` has ended what looks."""
    with suppress(FileNotFoundError):
        _file(home).unlink()


def _file(home: Home) -> Path:
    return home.data / "health.json"
