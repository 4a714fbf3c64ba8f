"""How many requests are taken on at once: some are worked on, some wait, and one more is told so at once."""

import asyncio
from collections.abc import Callable
from concurrent.futures import Future, ThreadPoolExecutor
from threading import Lock
from typing import TypeVar

T = TypeVar("T")


class OverloadedError(Exception):
    """Nothing more is taken on now."""


class Admission:
    """Runs blocking work in `workers` threads; at most `waiting` more calls wait for one of them.

    A call that ran out of time keeps its place until its thread is done with it, so that threads which hang cannot
    pile up work behind them.
    """

    def __init__(self, workers: int, waiting: int, name: str) -> None:
        self._threads = ThreadPoolExecutor(workers, thread_name_prefix=name)
        self._places = workers + waiting
        self._taken = 0
        self._lock = Lock()

    @property
    def taken(self) -> int:
        """Calls that are worked on or wait."""
        return self._taken

    @property
    def full(self) -> bool:
        return self._taken >= self._places

    async def run(self, work: Callable[[], T], seconds: float) -> T:
        """Raises OverloadedError at once where no place is free, and TimeoutError after `seconds`."""
        with self._lock:
            if self.full:
                raise OverloadedError
            self._taken += 1
        try:
            future = self._threads.submit(work)
        except BaseException:
            self._free(None)
            raise
        future.add_done_callback(self._free)
        async with asyncio.timeout(seconds):
            return await asyncio.wrap_future(future)

    def close(self) -> None:
        """Drop what waits; what is worked on goes on by itself."""
        self._threads.shutdown(wait=False, cancel_futures=True)

    def _free(self, _: Future[T] | None) -> None:
        with self._lock:
            self._taken -= 1
