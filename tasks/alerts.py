"""Tells people and programs what is wrong with the installation: an event of Prefect's, the log, and a file."""

import logging
import os
from dataclasses import dataclass, field
from datetime import datetime

from prefect.events import emit_event

from tasks.config.health import LOOK, write_health
from tasks.config.settings import Home
from tasks.health import examine_health
from tasks.records import Trouble

log = logging.getLogger(__name__)
FOUND, OVER = "tandem.health.found", "tandem.health.over"
"""Names of the events."""


@dataclass(slots=True)
class Alerts:
    """What the last looks found; a trouble is told once, and once more when it is over."""

    home: Home
    told: set[Trouble] = field(default_factory=set)
    looked: datetime | None = None
    """When that was; the next look comes a minute later."""

    def look(self, now: datetime) -> None:
        """Look at the whole installation, if the last look lies back far enough. Raises nothing."""
        if self.looked and now - self.looked < LOOK:
            return
        self.looked = now
        try:
            found = examine_health(self.home).troubles
            write_health(self.home, found, now)
        except Exception:  # whatever it is, runs are to be recovered all the same
            log.exception("the health of %s cannot be examined", self.home.root)
            return
        for trouble in found:
            if trouble not in self.told:
                log.warning("%s: %s", trouble.what, trouble.remedy)
                _emit(FOUND, self.home, trouble)
        for trouble in self.told - set(found):
            log.info("over: %s", trouble.what)
            _emit(OVER, self.home, trouble)
        self.told = set(found)


def _emit(event: str, home: Home, trouble: Trouble) -> None:
    """Without a server there is nobody to tell."""
    if os.environ.get("PREFECT_API_URL"):
        emit_event(
            event,
            resource={"prefect.resource.id": f"tandem.home.{home.root}", "prefect.resource.name": str(home.root)},
            payload={"sentence": trouble.what, "remedy": trouble.remedy},
        )
