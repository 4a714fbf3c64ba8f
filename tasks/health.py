"""One truth about the health of an installation.

`tandem status` and `tandem doctor`, the watcher's alerts, the night's report and the service's `/readyz` go by it.
"""

import os
import shutil
from dataclasses import dataclass
from datetime import UTC, datetime

from tasks.config.services import log_of, read_services
from tasks.config.settings import Home
from tasks.doctor import examine_live
from tasks.errors import TandemError
from tasks.records import Trouble
from tasks.schedules import ScheduleState, examine_schedules
from tasks.services import examine_services

GIB = 1024**3
MIN_FREE_GB = 2.0
"""Less than this is told: a night writes what it changes anew beside what is live."""
FREE = "TANDEM_MIN_FREE_GB"
"""Names another number of GiB."""


@dataclass(frozen=True, slots=True)
class Health:
    """What was found at one look."""

    free_bytes: int
    """On the disk of the home."""
    schedules: tuple[ScheduleState, ...]
    """Those of the Prefect server that PREFECT_API_URL names; none where it names none."""
    troubles: tuple[Trouble, ...]
    """Of services, schedules, the disk and live versions. None where all is well."""


def examine_health(home: Home) -> Health:
    """Whether services live, the disk has room, nights came, and what should be live is there. Changes nothing."""
    around = examine_surroundings(home)
    try:
        live = examine_live(home)
    except TandemError as error:  # such as an MLflow that does not answer; it says itself what to do
        live = [Trouble(f"what is live cannot be examined: {error}", "tandem doctor, once that is done")]
    return Health(around.free_bytes, around.schedules, (*around.troubles, *live))


def examine_surroundings(home: Home) -> Health:
    """The same without the registry."""
    schedules: list[ScheduleState] = []
    troubles = examine_services(home)
    there = next(folder for folder in (home.root, *home.root.parents) if folder.exists())  # a new home is not yet
    free = shutil.disk_usage(there).free
    if free < (least := float(os.environ.get(FREE) or MIN_FREE_GB)) * GIB:
        troubles.append(
            Trouble(
                f"less than {least:g} GiB is free on the disk of {home.root}: a night that finds it full fails",
                "tandem maintain --apply, or free space there",
            )
        )
    if url := os.environ.get("PREFECT_API_URL"):
        own = read_services(home).get("prefect")
        log = log_of(home, "prefect") if own and url.startswith(own.address) else None
        schedules, issues = examine_schedules(url, log, datetime.now(UTC))
        troubles += issues
    return Health(free, tuple(schedules), tuple(troubles))
