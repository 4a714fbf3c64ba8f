"""The release that is live: followed in the registry, loaded beside the one that answers, swapped in whole."""

import logging
import time
from collections import OrderedDict
from collections.abc import Callable
from contextlib import suppress
from dataclasses import dataclass
from threading import Event, Lock, Thread

from tasks.answering.assistant import Assistant
from tasks.errors import ModelError, RegistryError, TandemError

log = logging.getLogger(__name__)

REGISTRY_SILENT_SECONDS = 15.0
"""A registry that has not answered for so long is reported, also where a question to it still hangs."""


@dataclass(frozen=True, slots=True)
class Target:
    """Where the release's aliases stand."""

    champion: int | None
    previous: int | None = None
    candidate: int | None = None
    held: bool = False


@dataclass(frozen=True, slots=True)
class Failed:
    """What the registry wants live and cannot be."""

    number: int | None
    """None where no version is wanted."""
    sentence: str
    again: float
    """When it is tried again, by the monotonic clock."""


class LiveRelease:
    """Always holds a release that works; a request takes it once and is answered by it from beginning to end.

    `resolve` asks the registry where the aliases stand; `load` proves and opens a version, and raises for one that is
    not fit. Both may block: they are called in a thread of their own. Safe to use from several threads.
    """

    def __init__(
        self,
        name: str,
        resolve: Callable[[], Target],
        load: Callable[[int], Assistant],
        *,
        keep: int = 2,
        retry_seconds: float = 10,
    ) -> None:
        """Open the live version, or the one before where that does not load. Raises a TandemError where none does."""
        self.name = name
        self._resolve, self._load = resolve, load
        self._keep, self._retry_seconds = keep, retry_seconds
        self._open: OrderedDict[int, Assistant] = OrderedDict()
        self._heard = time.monotonic()
        self._asked: float | None = None
        self._silence = ""
        self._failed: Failed | None = None
        self._lock = Lock()
        self.swaps = self.failures = 0
        self.swap_seconds = 0.0
        """From seeing that the alias had moved to the first request that the new version may get."""
        self._assistant, self._number = self._first(resolve())

    @property
    def assistant(self) -> Assistant:
        """What answers now."""
        return self._assistant

    @property
    def number(self) -> int:
        """The version that answers now."""
        return self._number

    @property
    def registry_answers(self) -> bool:
        asked = self._asked
        return not self._silence and (asked is None or time.monotonic() - asked < REGISTRY_SILENT_SECONDS)

    @property
    def failed(self) -> Failed | None:
        """The version that is wanted live and does not load; None where what is live is what is wanted."""
        return self._failed

    @property
    def problems(self) -> list[str]:
        """What keeps the service from following, in sentences; none where all is well."""
        found = []
        if failed := self._failed:
            found.append(failed.sentence)
        if not self.registry_answers:
            since = time.monotonic() - self._heard
            reason = self._silence or "MLflow does not answer"
            found.append(f"the registry was last heard {since:.0f} s ago, so a moved alias is not seen: {reason}")
        return found

    def follow(self) -> None:
        """Ask the registry once, and go where it points. Never raises: what fails is a problem, and the rest stays."""
        with self._lock:
            target = self._ask()
            if target is None:
                return
            if target.champion == self._number:
                self._failed = None
            elif self._failed and self._failed.number == target.champion and time.monotonic() < self._failed.again:
                pass
            elif target.champion is None:
                self._fail(None, f"no version of {self.name} is live in the registry any more")
            else:
                self._go_to(target.champion)

    def keep_ready(self) -> None:
        """Open the version before the live one too, so that going back to it loads nothing."""
        with suppress(Exception), self._lock:  # what does not open is reported when it shall be live
            previous = self._resolve().previous
            if self._keep > 1 and previous and previous not in self._open:
                self._open[previous] = self._load(previous)
                self._open.move_to_end(self._number)

    def _ask(self) -> Target | None:
        """Where the aliases stand; None where the registry does not say."""
        self._asked = time.monotonic()
        try:
            target = self._resolve()
        except Exception as error:
            if not self._silence:
                log.warning("the registry does not answer; %s goes on answering", self._label(self._number))
            self._silence = str(error)
            return None
        finally:
            self._asked = None
        if self._silence:
            log.warning("the registry answers again")
        self._heard, self._silence = time.monotonic(), ""
        return target

    def _first(self, target: Target) -> tuple[Assistant, int]:
        if target.champion is None:
            raise RegistryError(f"no version of {self.name} is live: run `tandem promote {self.name} N`")
        try:
            return self._opened(target.champion), target.champion
        except TandemError as error:
            if target.previous is None:
                raise
            self._fail(target.champion, self._not_live(target.champion, error))
            with suppress(TandemError):
                return self._opened(target.previous), target.previous
            raise

    def _go_to(self, number: int) -> None:
        try:
            assistant = self._opened(number)
        except TandemError as error:
            self._fail(number, self._not_live(number, error))
            return
        log.warning("%s is live, %s was", self._label(number), self._label(self._number))
        self._assistant, self._number, self._failed = assistant, number, None
        self.swaps += 1
        self.swap_seconds = time.monotonic() - self._heard

    def _opened(self, number: int) -> Assistant:
        """The version, open and shown to find passages; those not used for longest are let go.

        Whatever is wrong with it becomes a TandemError.
        """
        assistant = self._open.pop(number, None)  # what finds nothing is loaded anew at the next try
        try:
            assistant = assistant or self._load(number)
            assistant.search(self.name)
        except TandemError:
            raise
        except Exception as error:
            raise ModelError(f"it does not load: {type(error).__name__}: {error}") from error
        self._open[number] = assistant
        while len(self._open) > self._keep:
            self._open.popitem(last=False)
        return assistant

    def _fail(self, number: int | None, sentence: str) -> None:
        if self._failed is None or self._failed.sentence != sentence:
            log.error("%s", sentence)
        self.failures += 1
        self._failed = Failed(number, sentence, time.monotonic() + self._retry_seconds)

    def _not_live(self, number: int, reason: TandemError) -> str:
        return f"{self._label(number)} shall be live and is not: {reason}"

    def _label(self, number: int) -> str:
        return f"{self.name}@{number}"


class Follower:
    """Asks the registry every so often while it runs, in a thread."""

    def __init__(self, live: LiveRelease, seconds: float) -> None:
        self._live, self._seconds = live, seconds
        self._stop = Event()
        self._thread = Thread(target=self._run, name="follow the registry", daemon=True)

    def start(self) -> None:
        self._thread.start()

    def stop(self) -> None:
        """Waits for a question to the registry that is under way, but not for long."""
        self._stop.set()
        self._thread.join(timeout=5)

    def _run(self) -> None:
        self._live.keep_ready()
        while not self._stop.wait(self._seconds):
            self._live.follow()
