"""What `tandem up` started for a home: where it answers, and whether it still runs."""

import json
import os
from dataclasses import asdict, dataclass
from pathlib import Path

from tasks.config.settings import Home
from tasks.records import known_fields

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
    """All that was started and not stopped, by name, whether it still runs or not."""
    try:
        recorded = json.loads(services_file(home).read_text())
    except FileNotFoundError:
        return {}
    services = [Service(**known_fields(Service, values, str(services_file(home)))) for values in recorded]
    return {service.name: service for service in services}


def write_services(home: Home, services: dict[str, Service]) -> None:
    """Replace the record in one go."""
    file = services_file(home)
    file.parent.mkdir(parents=True, exist_ok=True)
    new = file.with_suffix(".new")
    new.write_text(json.dumps([asdict(service) for service in services.values()], indent=2))
    new.rename(file)


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
            os.environ.setdefault(variable, service.address + path)
