"""What `tandem up` started for a home: where it answers, and whether it still runs."""

import json
import logging
import os
from contextlib import suppress
from dataclasses import asdict, dataclass
from pathlib import Path

from tasks.config.settings import Home
from tasks.errors import StoreError
from tasks.records import known_fields

log = logging.getLogger(__name__)

ADDRESSES = {"mlflow": ("MLFLOW_TRACKING_URI", ""), "prefect": ("PREFECT_API_URL", "/api")}
"""For each server: the variable that names it to every program, and what follows the address there."""
CLOCK_SECONDS = 2.0
"""The system reckons the start of a process from its clock, which may be set meanwhile."""


@dataclass(frozen=True, slots=True)
class Service:
    """A process that `tandem up` started."""

    name: str
    """``mlflow``, ``prefect``, ``postgres``, ``worker-<work pool>`` or ``watcher``."""
    pid: int
    started: float
    """Seconds since the epoch; tells it from a later process with the same pid."""
    port: int = 0
    """Where it listens on this machine; 0 if it does not."""
    note: str = ""
    """What is not as it should be with it, though it runs."""
    restarts: int = 0
    """How often it was started again since `tandem up`, because it was gone."""
    restarted: float = 0.0
    """When that was last, in seconds since the epoch."""
    given_up: bool = False
    """Whether it ended again and again, and is not started any more."""

    @property
    def address(self) -> str:
        return f"http://127.0.0.1:{self.port}" if self.port else ""


def services_file(home: Home) -> Path:
    """Where the services of a home are recorded."""
    return home.data / "services.json"


def log_of(home: Home, name: str) -> Path:
    """Where a service writes what it has to say."""
    return home.data / "logs" / f"{name}.log"


def read_services(home: Home) -> dict[str, Service]:
    """All that was started and not stopped, by name, whether it still runs or not.

    A record that cannot be read is put aside, which is said: what it named is found by its mark at the next `up`.
    """
    file = services_file(home)
    try:
        services = [Service(**known_fields(Service, values, str(file))) for values in json.loads(file.read_text())]
    except FileNotFoundError:
        return {}
    except (ValueError, TypeError, AttributeError, StoreError) as error:
        aside = file.with_suffix(".unreadable")
        with suppress(OSError):
            file.replace(aside)
        log.warning(
            "%s cannot be read (%s) and was put aside as %s: run `tandem up`, which ends and starts anew what it named",
            file,
            error,
            aside,
        )
        return {}
    return {service.name: service for service in services}


def write_services(home: Home, services: dict[str, Service]) -> None:
    """Replace the record in one go."""
    replace_file(services_file(home), json.dumps([asdict(service) for service in services.values()], indent=2))


def read_ports(home: Home) -> dict[str, int]:
    """The ports that the servers of the home had when they were last started."""
    try:
        ports = json.loads(_ports_file(home).read_text())
        return {str(name): int(port) for name, port in ports.items()}
    except (FileNotFoundError, ValueError, AttributeError):  # the defaults then do
        return {}


def keep_ports(home: Home, services: dict[str, Service]) -> None:
    """For the next `tandem up`, also after a `tandem down`."""
    ports = {service.name: service.port for service in services.values() if service.port}
    if ports != read_ports(home):
        replace_file(_ports_file(home), json.dumps(read_ports(home) | ports, indent=2))


def replace_file(file: Path, text: str) -> None:
    """Write a small file so that after a power cut it holds either what it held or this."""
    file.parent.mkdir(parents=True, exist_ok=True)
    new = file.with_suffix(".new")
    with new.open("w") as opened:
        opened.write(text)
        opened.flush()
        os.fsync(opened.fileno())
    new.replace(file)
    folder = os.open(file.parent, os.O_RDONLY)
    try:
        os.fsync(folder)
    finally:
        os.close(folder)


def _ports_file(home: Home) -> Path:
    return home.data / "ports.json"


def runs(service: Service) -> bool:
    """Whether this very process is there: not ended, and no other that was given its pid."""
    import psutil

    try:
        process = psutil.Process(service.pid)
        same = abs(process.create_time() - service.started) < CLOCK_SECONDS
        return same and process.status() != psutil.STATUS_ZOMBIE
    except psutil.NoSuchProcess:
        return False


def use_services(home: Home) -> None:
    """Let this process use the servers of the home that run; what the environment names already stays."""
    for name, service in read_services(home).items():
        if name in ADDRESSES and runs(service):
            variable, path = ADDRESSES[name]
            os.environ[variable] = os.environ.get(variable) or service.address + path
