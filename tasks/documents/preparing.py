"""Parsing and cutting in processes of their own, so that a hostile file costs itself and nothing else.

Every worker has a limit on its memory, every file one on its time. Work is handed out a little ahead of what
is collected: reading, parsing and embedding overlap, and memory stays bounded.
"""

import signal
import sys
import time
from collections import deque
from collections.abc import Iterable, Iterator
from concurrent.futures import wait
from concurrent.futures.process import BrokenProcessPool
from dataclasses import dataclass
from multiprocessing.context import SpawnContext, SpawnProcess
from pathlib import Path
from types import ModuleType, TracebackType

from pebble import ProcessExpired, ProcessFuture, ProcessPool

from tasks.config.index import ChunkingConfig, ParsingConfig
from tasks.documents.parsing import parse
from tasks.documents.worker import Parse, prepare_document, start_worker
from tasks.errors import EmbedderError, TandemError
from tasks.records import Chunk, ParsedDocument, Problem, SourceFile

AHEAD_PER_WORKER = 16
"""Files handed out before the first is collected; one that takes all its time holds up no more than these."""
AHEAD_BYTES = 128_000_000
FILES_PER_WORKER = 1_000
"""A worker is replaced after so many files: what converters leak stays small."""
GRACE_SECONDS = 30
"""How long after its time limit a file may still be without an answer, before the pool is taken for dead."""


@dataclass(frozen=True, slots=True)
class PrepareJob:
    """One document to prepare: from its bytes, or from the text it was converted to before."""

    file: SourceFile
    data: bytes | None = None
    parsed: ParsedDocument | None = None


@dataclass(frozen=True, slots=True)
class PreparedDocument:
    """One document's text and its passages."""

    file: SourceFile
    parsed: ParsedDocument
    chunks: tuple[Chunk, ...]


@dataclass(slots=True)
class _Pending:
    job: PrepareJob
    future: ProcessFuture | None
    again: bool = False


class _BareProcess(SpawnProcess):
    """A spawned process that does not import the program that started it, which may be all of Prefect."""

    def start(self) -> None:
        main = sys.modules["__main__"]
        sys.modules["__main__"] = ModuleType("__main__")
        try:
            super().start()
        finally:
            sys.modules["__main__"] = main


class _BareSpawn(SpawnContext):
    Process = _BareProcess


class Preparer:
    """A pool of worker processes that parse and cut documents; they start with the first document.

    `parse` replaces the converter; it must be a function of a module, so that a worker can import it.
    """

    def __init__(
        self,
        parsing: ParsingConfig,
        chunking: ChunkingConfig,
        tokenizer_file: Path,
        parse: Parse = parse,
    ) -> None:
        if not tokenizer_file.is_file():
            raise EmbedderError(f"the tokenizer {tokenizer_file} does not exist; install or download the model again")
        self.parsing = parsing
        self.work = (parse, chunking.max_tokens, chunking.overlap_tokens, str(tokenizer_file))
        self.pool: ProcessPool | None = None

    def __enter__(self) -> "Preparer":
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self._stop()

    def prepare(self, jobs: Iterable[PrepareJob]) -> Iterator[PreparedDocument | Problem]:
        """Results in the order of the jobs, which are drawn only a little ahead of what is collected."""
        pending: deque[_Pending] = deque()
        waiting = 0
        ahead = AHEAD_PER_WORKER * self.parsing.workers
        for job in jobs:
            size = len(job.data or b"")
            while pending and (len(pending) >= ahead or waiting + size > AHEAD_BYTES):
                waiting -= len(pending[0].job.data or b"")
                yield self._next(pending)
            pending.append(_Pending(job, self._schedule(job)))
            waiting += size
        while pending:
            yield self._next(pending)

    def _schedule(self, job: PrepareJob) -> ProcessFuture:
        if self.pool is not None and not self.pool.active:  # it broke: those it left behind are retried in turn
            self._stop()
        if self.pool is None:
            self.pool = ProcessPool(
                max_workers=self.parsing.workers,
                max_tasks=FILES_PER_WORKER,
                initializer=start_worker,
                initargs=(self.parsing.memory_mb,),
                context=_BareSpawn(),
            )
        arguments = (*self.work, job.file.path, job.data, job.parsed)
        return self.pool.schedule(prepare_document, args=arguments, timeout=self.parsing.timeout_seconds)

    def _next(self, pending: deque[_Pending]) -> PreparedDocument | Problem:
        """The first result, whatever becomes of its worker or of the whole pool."""
        first = pending[0]
        if first.future is None:
            first.future = self._schedule(first.job)
        try:
            parsed, chunks = self._answer(first.future)
        except Exception as error:
            if _has_no_answer(first) and not first.again:
                # Any file in the pool may have broken it: those without an answer are tried again one by one.
                self._stop()
                for item in filter(_has_no_answer, pending):
                    item.future = None
                first.again = True
                return self._next(pending)
            pending.popleft()
            return Problem(first.job.file.document, self._reason(error), first.job.file.revision)
        pending.popleft()
        return PreparedDocument(first.job.file, parsed, chunks)

    def _answer(self, future: ProcessFuture) -> tuple[ParsedDocument, tuple[Chunk, ...]]:
        deadline = time.monotonic() + self.parsing.timeout_seconds + GRACE_SECONDS
        while not future.done() and self.pool and self.pool.active and time.monotonic() < deadline:
            wait([future], timeout=0.5)
        if not future.done():
            raise BrokenProcessPool
        return future.result()

    def _stop(self) -> None:
        if self.pool is not None:
            self.pool.stop()
            self.pool.join()
            self.pool = None

    def _reason(self, error: Exception) -> str:
        if isinstance(error, TandemError):
            return str(error)
        if isinstance(error, TimeoutError):
            return f"took longer than {self.parsing.timeout_seconds:g} seconds to convert"
        if isinstance(error, MemoryError):
            return f"needs more than {self.parsing.memory_mb} MB to convert"
        if isinstance(error, BrokenProcessPool):
            return "it broke the pool of converters, and again when it was tried alone"
        if isinstance(error, ProcessExpired):
            return (
                f"its converter crashed ({_how(error.exitcode)}), as it does when it needs "
                f"more than {self.parsing.memory_mb} MB"
            )
        return f"its converter failed: {type(error).__name__}: {error}"[:500]


def _has_no_answer(item: _Pending) -> bool:
    if item.future is None or not item.future.done():
        return True
    return isinstance(item.future.exception(), BrokenProcessPool)


def _how(exit_code: int) -> str:
    if exit_code < 0:
        return signal.Signals(-exit_code).name
    return f"exit status {exit_code}"
