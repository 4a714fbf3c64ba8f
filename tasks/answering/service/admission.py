"""How many requests are taken on: some are worked on, some wait, and one more is told so at once.

Beyond that no key may take more than its share, neither at once nor over time.
"""

import asyncio
from collections import Counter
from collections.abc import Callable
from concurrent.futures import Future, ThreadPoolExecutor
from functools import lru_cache, partial
from math import ceil
from threading import Lock
from typing import Literal, TypeVar

from pyrate_limiter import Decision, Duration, Rate, RateItem, StateBucket

T = TypeVar("T")
Limit = Literal["requests_per_minute", "requests_at_once"]
"""Of a key; the name of its setting."""
RETRY_SECONDS = 1
"""When it may be worth trying again where nobody knows."""
REMEMBERED = 10_000
"""Keys whose pace is known; of more, those that have not asked for longest begin anew."""


class OverloadedError(Exception):
    """Nothing more is taken on now."""


class LimitedError(Exception):
    """A key asks for more than it may; others are still answered."""

    def __init__(self, limit: Limit, sentence: str, seconds: int) -> None:
        super().__init__(sentence)
        self.limit, self.sentence, self.seconds = limit, sentence, seconds


class Pace:
    """Requests over time: as many at once as a key may make in a minute, and then one after the other.

    By pyrate-limiter's generic cell rate algorithm, which keeps one number a key.
    """

    def __init__(self) -> None:
        self._bucket = lru_cache(REMEMBERED)(_bucket)

    def take(self, key_id: str, per_minute: int) -> None:
        """Raises LimitedError where a key has made more requests than that; 0 lets it make any number."""
        if not per_minute:
            return
        bucket = self._bucket(key_id, per_minute)
        decision = bucket.put_decision(RateItem(key_id, bucket.now()))
        assert isinstance(decision, Decision)  # as of every bucket in memory
        if decision.retry_after_ms is not None:
            seconds = ceil(decision.retry_after_ms / 1000)
            sentence = f"requests_per_minute is {per_minute}, and so many were made: try again in {seconds} s"
            raise LimitedError("requests_per_minute", sentence, seconds)


class Admission:
    """Runs blocking work in `workers` threads; at most `waiting` more calls wait for one of them.

    A call that ran out of time keeps its place until its thread is done with it, so that threads which hang cannot
    pile up work behind them.
    """

    def __init__(self, workers: int, waiting: int, name: str) -> None:
        self._threads = ThreadPoolExecutor(workers, thread_name_prefix=name)
        self._places = workers + waiting
        self._taken = 0
        self._by_key: Counter[str] = Counter()
        self._lock = Lock()

    @property
    def taken(self) -> int:
        """Calls that are worked on or wait."""
        return self._taken

    @property
    def full(self) -> bool:
        return self._taken >= self._places

    async def run(self, work: Callable[[], T], seconds: float, key_id: str, at_once: int) -> T:
        """Run it for a key that may take `at_once` places; 0 lets it take all.

        Raises LimitedError at once where they are taken, OverloadedError where no place is free, and TimeoutError
        after `seconds`.
        """
        with self._lock:
            if at_once and self._by_key[key_id] >= at_once:
                sentence = f"requests_at_once is {at_once}, and so many are not answered yet: try again in a moment"
                raise LimitedError("requests_at_once", sentence, RETRY_SECONDS)
            if self.full:
                raise OverloadedError
            self._taken += 1
            self._by_key[key_id] += 1
        try:
            future = self._threads.submit(work)
        except BaseException:
            self._free(key_id, None)
            raise
        future.add_done_callback(partial(self._free, key_id))
        async with asyncio.timeout(seconds):
            return await asyncio.wrap_future(future)

    def close(self) -> None:
        """Drop what waits; what is worked on goes on by itself."""
        self._threads.shutdown(wait=False, cancel_futures=True)

    def _free(self, key_id: str, _: Future[T] | None) -> None:
        with self._lock:
            self._taken -= 1
            self._by_key[key_id] -= 1
            if not self._by_key[key_id]:
                del self._by_key[key_id]


def _bucket(key_id: str, per_minute: int) -> StateBucket:
    """One for each pair of these, which a cache keeps."""
    return StateBucket([Rate(per_minute, Duration.MINUTE)])
