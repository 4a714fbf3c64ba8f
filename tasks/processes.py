"""Processes of a home: each carries the home's mark in its environment, and ends with all that it started.

By the mark `down` finds also the runs that a killed worker left behind, and never a process that somebody else started.
"""

import os
import signal
import subprocess
import time
from collections.abc import Iterable, Iterator, Mapping, Sequence
from contextlib import contextmanager, suppress

import psutil
from filelock import FileLock

from tasks.config.services import Service, log_of, runs
from tasks.config.settings import Home

MARK = "TANDEM_SERVICES_OF"
KILL_SECONDS = 5
"""How long what is killed may take to be gone."""


@contextmanager
def alone(home: Home, timeout: float = -1) -> Iterator[None]:
    """One process at a time starts and ends services of a home. Raises filelock.Timeout after so many seconds."""
    home.locks.mkdir(parents=True, exist_ok=True)
    with FileLock(home.locks / "services.lock", timeout=timeout):
        yield


def launch(
    home: Home, name: str, command: Sequence[str], environment: Mapping[str, str], stdin: int
) -> subprocess.Popen[bytes]:
    """Start a service, in a session of its own, so that Ctrl-C in the terminal does not reach it later."""
    log = log_of(home, name)
    log.parent.mkdir(parents=True, exist_ok=True)
    with log.open("ab") as output:
        return subprocess.Popen(
            command,
            env={**environment, MARK: f"{home.root}#{name}"},
            stdin=stdin,
            stdout=output,
            stderr=output,
            start_new_session=True,
        )


def started_at(process: subprocess.Popen[bytes]) -> float:
    return psutil.Process(process.pid).create_time()


def end_together(services: Iterable[Service], seconds: float, ask: signal.Signals = signal.SIGTERM) -> None:
    """Ask, wait, and kill what is left."""
    mains = [psutil.Process(service.pid) for service in services if runs(service)]
    family = mains + [child for main in mains for child in main.children(recursive=True)]
    for main in mains:
        _signal(main, ask)
    _wait_for_end(family, seconds)
    kill(family)


def descendants(home: Home, service: str = "") -> list[psutil.Process]:
    """Every process that this service of the home, or any, started; also where its parent is gone."""
    mine = []
    for process in psutil.process_iter():
        with suppress(psutil.Error):
            root, _, name = process.environ().get(MARK, "").rpartition("#")
            if root == str(home.root) and service in ("", name) and process.pid != os.getpid():
                mine.append(process)
    return mine


def kill(processes: Sequence[psutil.Process]) -> None:
    for process in processes:
        _signal(process, signal.SIGKILL)
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


def _signal(process: psutil.Process, number: signal.Signals) -> None:
    with suppress(psutil.NoSuchProcess):
        process.send_signal(number)
