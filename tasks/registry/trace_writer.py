"""Writes traces in a process of its own: one costs some 5 ms of Python, which no answer shall wait for."""

import os
import signal
from collections.abc import Sequence
from functools import cache
from multiprocessing import get_context

from mlflow import MlflowClient
from pebble import ProcessPool

from tasks.registry.traces import TraceRecord, write_traces

NICENESS = 19
"""The lowest: where processors are short, answers come first."""
SECONDS = 120.0
"""Longest time for one batch; MLflow's own retries take longer."""


class TraceWriter:
    """The process; a new one where it dies. Raises, for a batch, what went wrong there."""

    def __init__(self, uri: str, experiment: str) -> None:
        self._uri, self._experiment = uri, experiment
        self._pool = ProcessPool(1, initializer=_begin, context=get_context("spawn"))

    def start(self) -> None:
        """Let the process load what it needs."""
        self._pool.schedule(_client, args=[self._uri])

    def write(self, records: Sequence[TraceRecord]) -> None:
        """Return once they are written."""
        self._pool.schedule(_write, args=[self._uri, self._experiment, records], timeout=SECONDS).result()

    def close(self) -> None:
        """End the process, whatever it does."""
        self._pool.stop()
        self._pool.join()


def _begin() -> None:
    os.nice(NICENESS)
    signal.signal(signal.SIGINT, signal.SIG_IGN)  # Ctrl-C in a terminal is for the service, which ends this


@cache
def _client(uri: str) -> MlflowClient:
    return MlflowClient(uri, uri)


def _write(uri: str, experiment: str, records: Sequence[TraceRecord]) -> None:
    write_traces(_client(uri), experiment, records)
