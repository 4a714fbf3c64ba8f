"""Starts training processes, follows their events, and makes sure that none outlives whoever started it."""

import ctypes
import os
import signal
import subprocess
import sys
import time
from collections.abc import Iterator
from contextlib import suppress
from pathlib import Path
from typing import Protocol

import psutil

from tasks.config.training import BaseModelConfig, MachineConfig
from tasks.errors import ProcessDiedError
from tasks.training.job import FAILURES, LOG_FILE, Event, EventReader

PARENT = "TANDEM_PARENT_PROCESS"
SECONDS_BETWEEN_READS = 0.2
PR_SET_PDEATHSIG = 1
LAST_LINES = 15
SHARED_CORES = {"OMP_WAIT_POLICY": "PASSIVE"}
"""Threads that wait for one another sleep: beside another process on two cores a step takes half as long. Where there
is none they do not, for it would take a third longer."""
BUSY_PERCENT = 20
"""Share of the cores' time from which on others are at work here, measured over …"""
BUSY_SECONDS = 0.5
KEPT_MEMORY = {"MALLOC_MMAP_THRESHOLD_": str(2**30), "MALLOC_TRIM_THRESHOLD_": str(2**32)}
"""What a step gave back, the next one would ask for again: without, a quarter of the time goes to clearing pages."""


def die_with_parent() -> None:
    """Let the kernel kill this process when the one that started it is gone, even by SIGKILL."""
    if sys.platform == "linux":
        ctypes.CDLL(None, use_errno=True).prctl(PR_SET_PDEATHSIG, signal.SIGKILL)
    if os.getppid() == 1 and os.environ.get(PARENT, "1") != "1":
        os._exit(1)  # it was gone before the kernel was told


def begin(job: "Job") -> None:
    """Die with whoever started this process, and load no more than the job needs."""
    die_with_parent()
    if not job.base.four_bit:
        sys.modules["bitsandbytes"] = None  # type: ignore[assignment]  # peft would load it, for three seconds


def speedy() -> dict[str, str]:
    """Variables by which libraries compute faster on a CPU, and which a user's own override."""
    busy = psutil.cpu_percent(BUSY_SECONDS) >= BUSY_PERCENT
    return KEPT_MEMORY | (SHARED_CORES if busy else {})


class Job(Protocol):
    """What a process can be started for."""

    @property
    def folder(self) -> Path: ...

    @property
    def base(self) -> BaseModelConfig: ...

    @property
    def machine(self) -> MachineConfig: ...

    def save(self) -> Path: ...


def run_job(module: str, job: Job) -> Iterator[Event]:
    """Run `python -m module JOB_FILE` and yield the job's events as they come.

    The process is gone, with all it started, when the iterator ends, is closed or raises.

    Raises:
        ProcessDiedError: it ended otherwise than with an event that says so; the message has its last lines.
    """
    file = job.save()
    events = EventReader(job.folder)
    log = job.folder / LOG_FILE
    with log.open("ab") as output:
        process = subprocess.Popen(
            _command(module, file, job.machine),
            stdout=output,
            stderr=subprocess.STDOUT,
            stdin=subprocess.DEVNULL,
            env=speedy() | os.environ | {PARENT: str(os.getpid())},
            start_new_session=True,
        )
    ended = False
    try:
        while process.poll() is None:
            for event in events.read():
                ended = ended or is_end(event)
                yield event
            time.sleep(SECONDS_BETWEEN_READS)
        for event in events.read():
            ended = ended or is_end(event)
            yield event
    finally:
        _kill(process)
    if not ended:
        raise ProcessDiedError(_how_it_died(process.returncode, log))


def is_end(event: Event) -> bool:
    """Whether the process says nothing more after this event."""
    return event["event"] in ("done", *FAILURES)


def _command(module: str, file: Path, machine: MachineConfig) -> list[str]:
    if machine.processes == 1:
        return [sys.executable, "-m", module, str(file)]
    launch = ["--standalone", "--nproc-per-node", str(machine.processes), "--module"]
    return [sys.executable, "-m", "tasks.training.launch", *launch, module, str(file)]


def _kill(process: "subprocess.Popen[bytes]") -> None:
    """The process and all of its session; what has ended already does not mind."""
    with suppress(ProcessLookupError):
        os.killpg(process.pid, signal.SIGKILL)
    process.wait()


def _how_it_died(code: int, log: Path) -> str:
    lines = log.read_text(encoding="utf-8", errors="replace").splitlines()[-LAST_LINES:]
    how = f"was killed by {signal.Signals(-code).name}" if code < 0 else f"ended with status {code}"
    return f"the process {how}; its last lines ({log}):\n" + "\n".join(lines)
