"""``python -m tasks.supervise``: starts services of the home again that are gone, keeps their logs small, no more.

It asks no server and imports nothing heavy, so that little can happen to it. `tandem status` says whether it runs.
"""

import logging
import os
import subprocess
import time
from collections.abc import Callable
from contextlib import suppress
from dataclasses import dataclass, field, replace

from filelock import Timeout

from tasks import postgres
from tasks.config.services import Service, log_of, read_services, runs, write_services
from tasks.config.settings import Home, find_home
from tasks.errors import TandemError
from tasks.logs import log_to_standard_error, rotate
from tasks.processes import alone, descendants, kill
from tasks.programs import SUPERVISOR, addresses, start

log = logging.getLogger("tasks.supervise")
LOOK_SECONDS = 1.0
PAUSES = (1, 2, 4, 8, 16, 32)
"""Seconds before each try; a service that is gone again after the last of them is given up."""
STEADY_SECONDS = 120
"""A service that ran for so long begins with the first pause again."""


@dataclass(slots=True)
class Tries:
    """How often a service was started again of late."""

    count: int = 0
    due: float | None = None
    """When it is started next, by the monotonic clock; nothing where it runs."""


@dataclass(slots=True)
class Supervisor:
    """What it remembers from one look to the next."""

    home: Home
    tries: dict[str, Tries] = field(default_factory=dict)
    children: list[subprocess.Popen[bytes]] = field(default_factory=list)
    clock: Callable[[], float] = time.monotonic

    def look(self) -> bool:
        """Start again what is due; whether there is anything left to supervise, as `tandem down` ends that."""
        self.children = [child for child in self.children if child.poll() is None]  # or they would stay as zombies
        services = read_services(self.home)
        if services.get(SUPERVISOR) is None or services[SUPERVISOR].pid != os.getpid():
            return False
        for service in services.values():
            rotate(log_of(self.home, service.name))
        if any(_is_missing(service) for service in services.values()):
            with suppress(Timeout), alone(self.home, timeout=0):  # else an `up` or a `down` is at work
                self._start_what_is_due(read_services(self.home))
        return True

    def _start_what_is_due(self, services: dict[str, Service]) -> None:
        for service in list(services.values()):
            if _is_missing(service):
                self._attend_to(service, services)

    def _attend_to(self, gone: Service, services: dict[str, Service]) -> None:
        tries = self.tries.setdefault(gone.name, Tries())
        if tries.due is None:
            if time.time() - gone.started > STEADY_SECONDS:
                tries.count = 0
            if tries.count == len(PAUSES):
                self._give_up(gone, services)
                return
            tries.due = self.clock() + PAUSES[tries.count]
            log.warning("%s is gone: it is started again in %d s", gone.name, PAUSES[tries.count])
        if self.clock() >= tries.due:
            tries.due, tries.count = None, tries.count + 1
            self._start_again(gone, services)

    def _start_again(self, gone: Service, services: dict[str, Service]) -> None:
        if gone.port or gone.name == postgres.NAME:
            kill(descendants(self.home, gone.name))  # a helper that outlived it may hold the port
        try:
            self.children.append(start(self.home, services, gone.name, gone.port))
        except (OSError, TandemError) as error:
            log.error("%s cannot be started: %s", gone.name, error)
        here = replace(services[gone.name], note=gone.note, restarts=gone.restarts + 1, restarted=time.time())
        services[gone.name] = here
        write_services(self.home, services)

    def _give_up(self, gone: Service, services: dict[str, Service]) -> None:
        log.error("%s was started again %d times and ended each time: it is given up", gone.name, len(PAUSES))
        services[gone.name] = replace(gone, given_up=True)
        write_services(self.home, services)


def main() -> None:
    home = find_home()
    log_to_standard_error({"tasks.supervise": logging.INFO, "tasks.config.services": logging.WARNING})
    _forget(addresses(read_services(home)))
    supervisor = Supervisor(home)
    while supervisor.look():
        time.sleep(LOOK_SECONDS)


def _is_missing(service: Service) -> bool:
    return service.name != SUPERVISOR and not service.given_up and not runs(service)


def _forget(own: dict[str, str]) -> None:
    """A server is started as when nothing of the home ran, and is told no address of its own."""
    for variable, address in own.items():
        if os.environ.get(variable) == address:
            del os.environ[variable]


if __name__ == "__main__":
    main()
