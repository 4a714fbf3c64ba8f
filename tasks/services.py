"""Starts and ends what Tandem needs on this machine.

That is MLflow, Prefect and its PostgreSQL, a worker for each work pool, the watcher, and what supervises them all.
"""

import os
import socket
import subprocess
import time
import urllib.request
from collections.abc import Callable, Iterable
from dataclasses import replace
from datetime import UTC, datetime
from pathlib import Path

from tasks import postgres
from tasks.config.deployments import DeploymentsConfig
from tasks.config.health import forget_health
from tasks.config.servers import reach
from tasks.config.services import (
    ADDRESSES,
    Service,
    keep_ports,
    log_of,
    read_ports,
    read_services,
    runs,
    services_file,
    write_services,
)
from tasks.config.settings import Home
from tasks.databases import newer_than, prepare_prefect_home
from tasks.errors import ConfigError, ServerError
from tasks.processes import alone, descendants, end_together, kill
from tasks.programs import HOST, SUPERVISOR, WATCHER, WORKER, addresses, start, start_supervisor, worker_name
from tasks.records import Trouble

PORTS = {"mlflow": 5000, "prefect": 4200}
HEALTH = {"mlflow": "/health", "prefect": "/api/health"}
FOUND = {
    "gone": "is gone",
    "given up": "ended each time that it was started again, and is not started any more",
    "does not answer": "does not answer",
}
START_SECONDS = 180
"""Longest wait for a service on a machine that is busy with other things."""
WORKER_SECONDS, SERVER_SECONDS, DATABASE_SECONDS = 15, 5, 15
"""How long workers (which end their runs first), servers and their database may take to be gone."""


def up(
    home: Home, config: DeploymentsConfig, root: Path, ports: dict[str, int | None], tell: Callable[[str], None]
) -> dict[str, Service]:
    """Start what does not run yet, register the deployments, and return once everything answers; all services by name.

    `ports` may name another port for a server; by default it is the one it had before. A server that
    MLFLOW_TRACKING_URI or PREFECT_API_URL names is used and not started. Afterwards both variables name the servers.
    What people set in Prefect's page and is kept goes to `tell`, a sentence at a time.

    Raises:
        ServerError: a port is taken, or a service ended while starting; then nothing that this call started is left.
        ConfigError: a running server was asked for on another port.
    """
    environment = dict(os.environ)
    with alone(home):
        services = {name: service for name, service in read_services(home).items() if runs(service)}
        if not services:
            kill(descendants(home))  # what a record that was lost named
        before = dict(services)
        try:
            _start_servers(home, services, ports)
            for line in _deploy(home, services, config, root):
                tell(line)
            for service in services.values():
                _wait_until_ready(home, service)
            if WATCHER not in services:
                start(home, services, WATCHER)
            keep_ports(home, services)
            start_supervisor(home, services, environment)
        except BaseException:
            _end([service for name, service in services.items() if name not in before])
            write_services(home, before)
            raise
        return services


def down(home: Home) -> list[str]:
    """End every service of the home with all that it started, workers first; the names of those that ran."""
    with alone(home):
        services = read_services(home)
        names = [name for name, service in services.items() if runs(service)]
        _end_workers(home, services)
        _end(services.values())
        kill(descendants(home))
        postgres.remove_socket_folder(home)
        services_file(home).unlink(missing_ok=True)
        forget_health(home)
        return names


def condition(service: Service) -> str:
    """``running``, ``gone``, ``given up``, or ``does not answer`` for a server that hangs."""
    if service.given_up:
        return "given up"
    if not runs(service):
        return "gone"
    try:
        reach(service.address)
    except OSError:
        return "does not answer"
    return "running"


def examine_services(home: Home) -> list[Trouble]:
    """Every service that was started and not stopped, and that does not work."""
    services = read_services(home)
    conditions = {name: condition(service) for name, service in services.items()}
    notes = [Trouble(service.note, "tandem down && tandem up") for service in services.values() if service.note]
    return notes + [
        Trouble(f"the service {name} {FOUND[state]}: see {log_of(home, name)}", "tandem up")
        for name, state in conditions.items()
        if state != "running"
    ]


def _choose_ports(home: Home, services: dict[str, Service], ports: dict[str, int | None]) -> dict[str, int]:
    """The servers to start, with their ports, each free."""
    chosen = {}
    kept = {**PORTS, **{name: port for name, port in read_ports(home).items() if name in PORTS}}
    for name, default in kept.items():
        wanted = ports.get(name)
        if name in services:
            if wanted and wanted != services[name].port:
                raise ConfigError(
                    f"{name} runs on port {services[name].port}, not {wanted}: run `tandem down` first to move it"
                )
        elif not os.environ.get(ADDRESSES[name][0], "").startswith("http"):
            chosen[name] = wanted or default
    if len(set(chosen.values())) < len(chosen):
        raise ConfigError(f"{' and '.join(chosen)} are to listen on one port, {chosen['prefect']}: give each its own")
    for name, port in chosen.items():
        _check_free(name, port)
    return chosen


def _check_free(name: str, port: int) -> None:
    try:
        socket.create_server((HOST, port)).close()
    except OSError as error:
        raise ServerError(
            f"port {port}, meant for {name}, cannot be had ({error.strerror}): end what listens there, or choose "
            f"another with --{name}-port or TANDEM_{name.upper()}_PORT"
        ) from None


def _start_servers(home: Home, services: dict[str, Service], ports: dict[str, int | None]) -> None:
    for name in {*PORTS, postgres.NAME} - services.keys():
        kill(descendants(home, name))  # a helper that outlived its server may hold the port
    chosen = _choose_ports(home, services, ports)
    if port := chosen.get("prefect"):
        _start_prefect(home, services, port)
    elif "prefect" in services and postgres.NAME in read_services(home):
        _start_database(home, services)
    if port := chosen.get("mlflow"):
        _check_mlflow(home)
        start(home, services, "mlflow", port)
    os.environ.update(addresses(services))


def _start_prefect(home: Home, services: dict[str, Service], port: int) -> None:
    """On PostgreSQL; where that cannot be, on SQLite, with a note."""
    note = ""
    if postgres.is_wanted():
        try:
            _start_database(home, services)
        except ServerError as error:
            note = (
                f"PostgreSQL cannot start ({error}): Prefect runs on SQLite, where presses in its page may be lost, "
                "and shows no run that it kept in PostgreSQL before"
            )
    prepare_prefect_home(with_database=postgres.NAME not in services)
    start(home, services, "prefect", port)
    services["prefect"] = replace(services["prefect"], note=note)
    write_services(home, services)


def _start_database(home: Home, services: dict[str, Service]) -> None:
    """Raises ServerError where it cannot; then nothing of it runs."""
    if postgres.NAME in services:
        return
    postgres.prepare(home)
    server = start(home, services, postgres.NAME)
    try:
        postgres.wait_until_ready(home, server)
    except ServerError:
        _end([services.pop(postgres.NAME)])
        raise


def _check_mlflow(home: Home) -> None:
    from tasks.registry.connection import connect, failures_explained

    client = connect(home)  # makes the database where it is missing
    with failures_explained(home.tracking_uri):
        client.search_experiments(max_results=1)  # names a database of another MLflow's, which the app would serve


def _deploy(home: Home, services: dict[str, Service], config: DeploymentsConfig, root: Path) -> list[str]:
    """Register work pools and deployments, and start the workers; what is kept as people set it, as sentences.

    They load while the server starts, and ask it nothing before the last deployment is there: where two write at once,
    Prefect on SQLite refuses one of them, and its clients wait for 2 s each time. What a reboot cut off is put right
    before a worker begins.
    """
    from tasks.automations import prepare_automations  # only now is it known which Prefect server it is for
    from tasks.deploy import prepare_all, register
    from tasks.interrupted import end_interrupted

    deployments = prepare_all(config, root)
    automations = prepare_automations(config, deployments, root)
    idle = [pool.name for pool in config.work_pools if f"{WORKER}{pool.name}" not in services]
    workers = _start_workers(home, services, config)
    if "prefect" in services:
        _wait_for_answer(home, services["prefect"])
        end_interrupted(addresses(services)["PREFECT_API_URL"], idle)
    installed = register(config, deployments, automations)[1]
    for worker in workers:
        assert worker.stdin
        worker.stdin.close()
    return list(installed.say_kept())


def _start_workers(
    home: Home, services: dict[str, Service], config: DeploymentsConfig
) -> list[subprocess.Popen[bytes]]:
    """Those that are missing; each begins when its standard input ends."""
    started = []
    for pool in config.work_pools:
        name = f"{WORKER}{pool.name}"
        if name not in services:
            started.append(start(home, services, name, stdin=subprocess.PIPE))
    return started


def _wait_until_ready(home: Home, service: Service) -> None:
    if service.port:
        _wait_for_answer(home, service)
    elif service.name.startswith(WORKER):
        _wait_for_worker(home, service)


def _wait_for_answer(home: Home, server: Service) -> None:
    def answers() -> bool:
        try:
            with urllib.request.urlopen(server.address + HEALTH[server.name], timeout=4) as response:
                return bool(response.status == 200)
        except OSError:
            return False

    _wait(home, server, answers)


def _wait_for_worker(home: Home, worker: Service) -> None:
    from prefect import get_client

    pool = worker.name.removeprefix(WORKER)
    with get_client(sync_client=True) as client:

        def is_online() -> bool:
            known = client.request(
                "POST", "/work_pools/{work_pool_name}/workers/filter", path_params={"work_pool_name": pool}
            )
            beats = [found["last_heartbeat_time"] for found in known.json() if found["name"] == worker_name(pool)]
            # one of before may have had the same name
            return any(datetime.fromisoformat(beat).timestamp() > worker.started for beat in beats)

        _wait(home, worker, is_online)


def _wait(home: Home, service: Service, ready: Callable[[], bool]) -> None:
    end = time.monotonic() + START_SECONDS
    while not (alive := runs(service)) or not ready():
        log = log_of(home, service.name)
        if not alive:
            said = log.read_text(errors="replace")
            last = "\n".join(said.splitlines()[-5:])
            if "Can't locate revision identified by" in last:
                raise ServerError(f"{service.name} has a database of {newer_than(service.name)}")
            raise ServerError(f"{service.name} ended while it was starting; see {log}, which ends with\n{last}")
        if time.monotonic() > end:
            raise ServerError(f"{service.name} does not answer after {START_SECONDS} s: see {log}")
        time.sleep(0.1)


def _end_workers(home: Home, services: dict[str, Service]) -> None:
    """With what they run, whose states are put right while the server is there."""
    began = datetime.now(UTC)
    workers = [service for service in services.values() if service.name.startswith(WORKER)]
    _end([service for service in services.values() if service.name in (SUPERVISOR, WATCHER)])
    _end(workers)
    for worker in workers:
        kill(descendants(home, worker.name))
    api = addresses(services).get("PREFECT_API_URL")
    if workers and api and condition(services["prefect"]) == "running":
        from tasks.interrupted import end_interrupted

        end_interrupted(api, [worker.name.removeprefix(WORKER) for worker in workers], began)


def _end(services: Iterable[Service]) -> None:
    """The supervisor first; then workers, so that runs can still report how they ended; what holds the data last."""
    here = [service for service in services if runs(service)]
    end_together([service for service in here if service.name == SUPERVISOR], SERVER_SECONDS)
    database = [service for service in here if service.name == postgres.NAME]
    end_together([service for service in here if not service.port and service not in database], WORKER_SECONDS)
    end_together([service for service in here if service.port], SERVER_SECONDS)
    end_together(database, DATABASE_SECONDS, postgres.STOP)
