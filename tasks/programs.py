"""What each service of a home runs, and with which variables: it follows from its name, its port and the others."""

import os
import socket
import subprocess
import sys
from collections.abc import Mapping
from importlib.util import find_spec
from pathlib import Path

from tasks import postgres
from tasks.config.services import ADDRESSES, Service, write_services
from tasks.config.settings import Home
from tasks.processes import end_together, launch, started_at

HOST = "127.0.0.1"
WATCHER = "watcher"
SUPERVISOR = "supervisor"
SUPERVISOR_SECONDS = 5
WORKER = "worker-"
"""Begins the names of those that run the flows of a work pool."""


def start(
    home: Home, services: dict[str, Service], name: str, port: int = 0, stdin: int = subprocess.DEVNULL
) -> subprocess.Popen[bytes]:
    """Start a service, which knows the servers of the home, and record it at once among the others."""
    if name == postgres.NAME:
        postgres.clear_the_way(home)
    command, variables = program_of(home, services, name, port)
    environment = {**os.environ, **addresses(services), **_common(home), **variables}
    return _launch(home, services, name, command, environment, port, stdin)


def start_supervisor(home: Home, services: dict[str, Service], environment: Mapping[str, str]) -> None:
    """Start it with what was set before any server ran: by it the services are started again."""
    if SUPERVISOR in services:
        end_together([services.pop(SUPERVISOR)], SUPERVISOR_SECONDS)
    _launch(home, services, SUPERVISOR, _python("tasks.supervise"), {**environment, "TANDEM_HOME": str(home.root)})


def _launch(
    home: Home,
    services: dict[str, Service],
    name: str,
    command: list[str],
    environment: Mapping[str, str],
    port: int = 0,
    stdin: int = subprocess.DEVNULL,
) -> subprocess.Popen[bytes]:
    process = launch(home, name, command, environment, stdin)
    services[name] = Service(name, process.pid, started_at(process), port)
    write_services(home, services)
    return process


def addresses(services: dict[str, Service]) -> dict[str, str]:
    """The variables that name the servers of the home to every program."""
    return {variable: services[name].address + path for name, (variable, path) in ADDRESSES.items() if name in services}


def worker_name(pool: str) -> str:
    return f"{pool} on {socket.gethostname()}"


def program_of(home: Home, services: dict[str, Service], name: str, port: int) -> tuple[list[str], dict[str, str]]:
    """The command of a service, and the variables that it alone has."""
    if name == postgres.NAME:
        return postgres.command_of(home), {}
    if name == "prefect":
        database = {postgres.URL: postgres.url_of(home)} if postgres.NAME in services else {}
        return _python("tasks.prefect_server", str(port)), database
    if name == "mlflow":
        return _mlflow(home, port)
    if name == WATCHER:
        return [str(Path(sys.executable).with_name("tandem")), "watch"], {}
    pool = name.removeprefix(WORKER)
    return _python("tasks.work", pool, worker_name(pool)), {}


def _mlflow(home: Home, port: int) -> tuple[list[str], dict[str, str]]:
    """What `mlflow server` runs in the end, and its variables: the command itself imports as much again before it.

    It serves the home's own database, and has artifacts where commands find them also when no server runs.
    """
    spec = find_spec("mlflow")
    assert spec
    assert spec.origin
    log_config = Path(spec.origin).parent / "server" / "uvicorn_log_config.yaml"
    command = _python("uvicorn", "--host", HOST, "--port", str(port), "--log-config", str(log_config))
    return [*command, "--no-access-log", "mlflow.server.fastapi_app:app"], {
        "_MLFLOW_SERVER_FILE_STORE": home.tracking_uri,
        "_MLFLOW_SERVER_ARTIFACT_ROOT": (home.mlruns / "artifacts").as_uri(),
        "_MLFLOW_SGI_NAME": "uvicorn",
        "MLFLOW_SERVER_ENABLE_JOB_EXECUTION": "false",  # of no use here
    }


def _python(*arguments: str) -> list[str]:
    return [sys.executable, "-m", *arguments]


def _common(home: Home) -> dict[str, str]:
    return {
        "TANDEM_HOME": str(home.root),
        # started runs wait for the worker's next look, by default up to 10 s
        "PREFECT_WORKER_QUERY_SECONDS": os.environ.get("PREFECT_WORKER_QUERY_SECONDS", "1"),
        # its pages ask the server they came from; by default they would ask port 4200, whatever its port is
        "PREFECT_SERVER_UI_API_URL": os.environ.get("PREFECT_SERVER_UI_API_URL", "/api"),
        "PREFECT_SERVER_UI_SHOW_PROMOTIONAL_CONTENT": "false",
        # the command that starts it prints no log lines, and a service that fails must say so in its log
        "PREFECT_LOGGING_HANDLERS_CONSOLE_LEVEL": "WARNING",
        "PREFECT_LOGGING_FORMATTERS_STANDARD_DATEFMT": "%Y-%m-%d %H:%M:%S",
        # flow runs older than 90 days go, as events do, or its database would grow for ever
        "PREFECT_SERVER_SERVICES_DB_VACUUM_ENABLED": os.environ.get(
            "PREFECT_SERVER_SERVICES_DB_VACUUM_ENABLED", "events,flow_runs"
        ),
    }
