"""Starts and ends what Tandem needs on this machine: MLflow, Prefect, a worker for each work pool, and the watcher.

Every process that descends from a service carries the home's mark in its environment: by it `down` finds also the runs
that a killed worker left behind, and never a process that somebody else started.
"""

import os
import socket
import subprocess
import sys
import time
import urllib.request
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from contextlib import contextmanager, suppress
from datetime import datetime
from importlib.resources import files
from pathlib import Path
from types import MappingProxyType

import psutil
from filelock import FileLock

from tasks.config.deployments import DeploymentsConfig
from tasks.config.servers import reach
from tasks.config.services import ADDRESSES, Service, log_of, read_services, runs, services_file, write_services
from tasks.config.settings import Home
from tasks.databases import prepare_prefect_home
from tasks.errors import ConfigError, ServerError
from tasks.records import Trouble

MARK = "TANDEM_SERVICES_OF"
HOST = "127.0.0.1"
PORTS = {"mlflow": 5000, "prefect": 4200}
WATCHER = "watcher"
HEALTH = {"mlflow": "/health", "prefect": "/api/health"}
START_SECONDS = 180
"""Longest wait for a service on a machine that is busy with other things."""
WORKER_SECONDS, SERVER_SECONDS, KILL_SECONDS = 15, 5, 5
"""How long workers (which end their runs first), servers and what is killed may take to be gone."""


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
    with _alone(home):
        services = {name: service for name, service in read_services(home).items() if runs(service)}
        before = dict(services)
        try:
            _start_servers(home, services, ports)
            for line in _deploy(home, services, config, root):
                tell(line)
            for service in services.values():
                _wait_until_ready(home, service)
            _start_watcher(home, services)
        except BaseException:
            _end([service for name, service in services.items() if name not in before])
            write_services(home, before)
            raise
        return services


def down(home: Home) -> list[str]:
    """End every service of the home with all that it started, workers first; the names of those that ran."""
    with _alone(home):
        services = read_services(home)
        names = [name for name, service in services.items() if runs(service)]
        _end(services.values())
        _kill(_descendants(home))
        services_file(home).unlink(missing_ok=True)
        return names


def condition(service: Service) -> str:
    """``running``, ``gone``, or ``does not answer`` for a server that hangs."""
    if not runs(service):
        return "gone"
    try:
        reach(service.address)
    except OSError:
        return "does not answer"
    return "running"


def examine_services(home: Home) -> list[Trouble]:
    """Every service that was started and not stopped, and that does not work."""
    conditions = {name: condition(service) for name, service in read_services(home).items()}
    return [
        Trouble(f"the service {name} {'is gone' if state == 'gone' else state}: see {log_of(home, name)}", "tandem up")
        for name, state in conditions.items()
        if state != "running"
    ]


@contextmanager
def _alone(home: Home) -> Iterator[None]:
    """One `up` or `down` of a home at a time."""
    home.locks.mkdir(parents=True, exist_ok=True)
    with FileLock(home.locks / "services.lock"):
        yield


def _choose_ports(home: Home, services: dict[str, Service], ports: dict[str, int | None]) -> dict[str, int]:
    """The servers to start, with their ports, each free."""
    chosen = {}
    known = read_services(home)
    for name, default in PORTS.items():
        wanted = ports.get(name)
        if name in services:
            if wanted and wanted != services[name].port:
                raise ConfigError(
                    f"{name} runs on port {services[name].port}, not {wanted}: run `tandem down` first to move it"
                )
        elif not os.environ.get(ADDRESSES[name][0], "").startswith("http"):
            chosen[name] = wanted or (known[name].port if name in known else default)
            _check_free(name, chosen[name])
    return chosen


def _check_free(name: str, port: int) -> None:
    try:
        socket.create_server((HOST, port)).close()
    except OSError as error:
        raise ServerError(
            f"port {port}, meant for {name}, cannot be had ({error.strerror}): end what listens there, or choose "
            f"another with --{name}-port or TANDEM_{name.upper()}_PORT"
        ) from None


def _prefect_server(port: int) -> list[str]:
    return [sys.executable, "-m", "prefect", "server", "start", "--host", HOST, "--port", str(port)]


def _mlflow_server(home: Home, port: int) -> tuple[list[str], dict[str, str]]:
    """What `mlflow server` runs in the end, and its variables: the command itself imports as much again before it.

    It serves the home's own database, and has artifacts where commands find them also when no server runs.
    """
    from tasks.registry.connection import connect, failures_explained

    client = connect(home)  # makes the database where it is missing
    with failures_explained(home.tracking_uri):
        client.search_experiments(max_results=1)  # names a database of another MLflow's, which the app would serve
    log_config = files("mlflow") / "server" / "uvicorn_log_config.yaml"
    command = [sys.executable, "-m", "uvicorn", "--host", HOST, "--port", str(port), "--log-config", str(log_config)]
    return [*command, "--no-access-log", "mlflow.server.fastapi_app:app"], {
        "_MLFLOW_SERVER_FILE_STORE": home.tracking_uri,
        "_MLFLOW_SERVER_ARTIFACT_ROOT": (home.mlruns / "artifacts").as_uri(),
        "_MLFLOW_SGI_NAME": "uvicorn",
        "MLFLOW_SERVER_ENABLE_JOB_EXECUTION": "false",  # of no use here
    }


def _start_servers(home: Home, services: dict[str, Service], ports: dict[str, int | None]) -> None:
    for name in PORTS.keys() - services.keys():
        _kill(_descendants(home, name))  # a helper that outlived its server may hold the port
    chosen = _choose_ports(home, services, ports)
    if port := chosen.get("prefect"):
        prepare_prefect_home()
        _start(home, services, "prefect", _prefect_server(port), port)
    if port := chosen.get("mlflow"):
        command, variables = _mlflow_server(home, port)
        _start(home, services, "mlflow", command, port, variables)
    for name in services.keys() & ADDRESSES.keys():
        variable, path = ADDRESSES[name]
        os.environ[variable] = services[name].address + path


def _deploy(home: Home, services: dict[str, Service], config: DeploymentsConfig, root: Path) -> list[str]:
    """Register work pools and deployments, and start the workers; what is kept as people set it, as sentences.

    They load while the server starts, and ask it nothing before the last deployment is there: where two write at once,
    Prefect refuses one of them because of its SQLite, and its clients wait for 2 s each time.
    """
    from tasks.automations import prepare_automations  # only now is it known which Prefect server it is for
    from tasks.deploy import prepare_all, register

    deployments = prepare_all(config, root)
    automations = prepare_automations(config, deployments, root)
    workers = _start_workers(home, services, config)
    if "prefect" in services:
        _wait_for_answer(home, services["prefect"])
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
        name = f"worker-{pool.name}"
        if name not in services:
            command = [sys.executable, "-m", "tasks.work", pool.name, _worker_name(pool.name)]
            started.append(_start(home, services, name, command, stdin=subprocess.PIPE))
    return started


def _start_watcher(home: Home, services: dict[str, Service]) -> None:
    if WATCHER not in services:
        _start(home, services, WATCHER, [str(Path(sys.executable).with_name("tandem")), "watch"])


def _worker_name(pool: str) -> str:
    return f"{pool} on {socket.gethostname()}"


def _start(
    home: Home,
    services: dict[str, Service],
    name: str,
    command: list[str],
    port: int = 0,
    variables: Mapping[str, str] = MappingProxyType({}),
    stdin: int = subprocess.DEVNULL,
) -> subprocess.Popen[bytes]:
    """In a session of its own, so that Ctrl-C in the terminal does not reach it later; recorded at once."""
    log = log_of(home, name)
    log.parent.mkdir(parents=True, exist_ok=True)
    environment = {
        **os.environ,
        MARK: f"{home.root}#{name}",
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
        **variables,
    }
    with log.open("ab") as output:
        process = subprocess.Popen(
            command, env=environment, stdin=stdin, stdout=output, stderr=output, start_new_session=True
        )
    started = psutil.Process(process.pid).create_time()
    services[name] = Service(name, process.pid, started, port)
    write_services(home, services)
    return process


def _wait_until_ready(home: Home, service: Service) -> None:
    if service.port:
        _wait_for_answer(home, service)
    elif service.name != WATCHER:
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

    pool = worker.name.removeprefix("worker-")
    with get_client(sync_client=True) as client:

        def is_online() -> bool:
            known = client.request(
                "POST", "/work_pools/{work_pool_name}/workers/filter", path_params={"work_pool_name": pool}
            )
            beats = [found["last_heartbeat_time"] for found in known.json() if found["name"] == _worker_name(pool)]
            # one of before may have had the same name
            return any(datetime.fromisoformat(beat).timestamp() > worker.started for beat in beats)

        _wait(home, worker, is_online)


def _wait(home: Home, service: Service, ready: Callable[[], bool]) -> None:
    end = time.monotonic() + START_SECONDS
    while not (alive := runs(service)) or not ready():
        log = log_of(home, service.name)
        if not alive:
            last = "\n".join(log.read_text(errors="replace").splitlines()[-5:])
            raise ServerError(f"{service.name} ended while it was starting; see {log}, which ends with\n{last}")
        if time.monotonic() > end:
            raise ServerError(f"{service.name} does not answer after {START_SECONDS} s: see {log}")
        time.sleep(0.1)


def _end(services: Iterable[Service]) -> None:
    """Ask, wait, and kill what is left: workers first, so that runs can still report how they ended."""
    here = [service for service in services if runs(service)]
    _end_together([service for service in here if not service.port], WORKER_SECONDS)
    _end_together([service for service in here if service.port], SERVER_SECONDS)


def _end_together(services: Sequence[Service], seconds: float) -> None:
    mains = [psutil.Process(service.pid) for service in services]
    family = mains + [child for main in mains for child in main.children(recursive=True)]
    for main in mains:
        _signal(main, psutil.Process.terminate)
    _wait_for_end(family, seconds)
    _kill(family)


def _descendants(home: Home, service: str = "") -> list[psutil.Process]:
    """Every process that this service of the home, or any, started; also where its parent is gone."""
    mine = []
    for process in psutil.process_iter():
        with suppress(psutil.Error):
            root, _, name = process.environ().get(MARK, "").rpartition("#")
            if root == str(home.root) and service in ("", name) and process.pid != os.getpid():
                mine.append(process)
    return mine


def _kill(processes: Sequence[psutil.Process]) -> None:
    for process in processes:
        _signal(process, psutil.Process.kill)
    _wait_for_end(processes, KILL_SECONDS)


def _wait_for_end(processes: Sequence[psutil.Process], seconds: float) -> None:
    end = time.monotonic() + seconds
    while any(_is_alive(process) for process in processes) and time.monotonic() < end:
        time.sleep(0.1)


def _is_alive(process: psutil.Process) -> bool:
    """A zombie that nobody reaps, as in a container, has ended; unless a last thread still holds its ports."""
    try:
        is_zombie = process.status() == psutil.STATUS_ZOMBIE
        return process.is_running() and (not is_zombie or process.num_threads() > 1)
    except psutil.NoSuchProcess:
        return False


def _signal(process: psutil.Process, signal: Callable[[psutil.Process], None]) -> None:
    with suppress(psutil.NoSuchProcess):
        signal(process)
