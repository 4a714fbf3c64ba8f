"""The release that waits, tried on live traffic: it answers a share of it, or is asked a copy, until it is judged.

A request never waits for the comparison: answers go into a bounded queue, and one thread compares them, asks the
candidate for its copies, and watches the registry. Where the queue is full an answer is left out and counted.
"""

import logging
import time
from collections.abc import Callable
from dataclasses import dataclass, field
from hashlib import sha256
from queue import Empty, Full, Queue
from threading import Event, Lock, Thread
from typing import Literal, Protocol

from tasks.answering.assistant import Assistant
from tasks.answering.generators import Turn
from tasks.answering.service.live import LiveRelease
from tasks.answering.structured import AnswerSchema
from tasks.config.service import TrialConfig
from tasks.records import Answer, Outcome

log = logging.getLogger(__name__)

Mode = Literal["canary", "shadow"]
END_SECONDS = 5.0


@dataclass(frozen=True, slots=True)
class Both:
    """Of a shadow: what both made of a question."""

    champion: Answer
    candidate: Answer | None
    """None where it failed, or came too late."""


@dataclass(frozen=True, slots=True)
class One:
    """Of a canary: what one of them made of a question."""

    answer: Answer | None
    """None where it failed, or came too late."""
    by_candidate: bool


@dataclass(frozen=True, slots=True)
class Thumb:
    """Of a canary: what a person said first of an answer."""

    answer_id: str
    up: bool
    by_candidate: bool


class Comparison(Protocol):
    """Champion and candidate beside each other."""

    @property
    def outcome(self) -> Outcome: ...

    @property
    def stopped(self) -> bool:
        """Whether it is judged, or will not be any more."""
        ...

    def take(self, observed: Both | One | Thumb) -> None:
        """Count one more."""
        ...

    def facts(self) -> dict[str, float]:
        """What it has come to, as numbers."""
        ...

    def say(self) -> str:
        """The same as a sentence that goes on after the names of the two."""
        ...


@dataclass(frozen=True, slots=True)
class Contest:
    """Which releases are compared, as ``name@number``, and how they fare."""

    champion: str
    candidate: str
    comparison: Comparison


@dataclass(frozen=True, slots=True)
class Conversation:
    """What a question belongs to: whatever is asked in it goes the same way."""

    mark: str
    """Who asks, and how the conversation began."""
    first: bool
    """Whether this is its first question: the next ones depend on it, and are not compared."""
    earlier: tuple[Turn, ...] = ()
    """Its turns before the question."""


@dataclass(frozen=True, slots=True)
class Asked:
    """What somebody wants to know."""

    question: str
    tenant: str | None
    cite: bool
    conversation: Conversation
    schema: AnswerSchema | None = None
    """Of the answer, where it is to be JSON."""

    def answer(self, assistant: Assistant) -> Answer:
        earlier = self.conversation.earlier
        return assistant.answer(self.question, self.tenant, cite=self.cite, earlier=earlier, schema=self.schema)


@dataclass(frozen=True, slots=True)
class _Running:
    assistant: Assistant
    contest: Contest
    seen: set[tuple[str, str | None]] = field(default_factory=set)
    """Questions of a shadow, and answers with a thumb: the same once more would say nothing new."""


@dataclass(frozen=True, slots=True)
class _Copy:
    asked: Asked
    champion: Answer


_Item = _Copy | One | Thumb


class Trial:
    """One candidate after the other, each against the release that is live, until it is judged.

    `candidate` asks the registry which version waits, `load` proves and opens it, `compare` begins a comparison,
    `judged` says whether the two have been compared before, and `keep` keeps a verdict. All may block and raise.
    An answer that takes more than `seconds`, for which nobody would wait, is as bad as none.
    """

    def __init__(
        self,
        mode: Mode,
        config: TrialConfig,
        live: LiveRelease,
        *,
        candidate: Callable[[], int | None],
        load: Callable[[int], Assistant],
        compare: Callable[[], Comparison],
        judged: Callable[[str, str], bool],
        keep: Callable[[Contest], None],
        seconds: float,
        poll_seconds: float,
        retry_seconds: float,
    ) -> None:
        self.mode = mode
        self._seconds = seconds
        self._config, self._live = config, live
        self._candidate, self._load, self._compare, self._judged, self._keep = candidate, load, compare, judged, keep
        self._poll_seconds, self._retry_seconds = poll_seconds, retry_seconds
        self._queue: Queue[tuple[_Running, _Item]] = Queue(config.waiting)
        self._stop = Event()
        self._thread = Thread(target=self._run, name="trial", daemon=True)
        self._lock = Lock()
        self._running: _Running | None = None
        self._over: tuple[str, str] | None = None
        self._unkept: Contest | None = None
        self._failed: tuple[int, float] | None = None
        self._silence = self._problem = ""
        self.compared = self.dropped = self.failures = 0

    @property
    def contest(self) -> Contest | None:
        """What is compared now."""
        return self._running.contest if self._running else None

    @property
    def problems(self) -> list[str]:
        """Why the candidate is not tried, or its verdict not kept, in sentences; none where all is well."""
        return [sentence for sentence in (self._silence, self._problem) if sentence]

    def start(self) -> None:
        self._thread.start()

    def stop(self) -> None:
        self._stop.set()
        self._thread.join(END_SECONDS)

    def answer(self, champion: Assistant, asked: Asked) -> Answer:
        """By the candidate, where it is a canary's turn and it does answer; else by the champion."""
        running, conversation = self._running, asked.conversation
        if running is None or running.contest.champion != champion.versions["release"]:
            return asked.answer(champion)
        picked = self._picks(conversation, running.contest.candidate)
        begun = time.monotonic()
        if self.mode == "shadow":
            answer = asked.answer(champion)
            if picked and not self._is_late(begun):
                self._put(running, _Copy(asked, answer), conversation)
            return answer
        try:
            answer = asked.answer(running.assistant if picked else champion)
        except Exception as error:
            self._put(running, One(None, picked), conversation)
            if not picked:
                raise
            self._fail(running, error)
            return asked.answer(champion)
        self._put(running, One(None if self._is_late(begun) else answer, picked), conversation)
        return answer

    def thumb(self, answer_id: str, release: str, up: bool) -> None:
        """What a person said of an answer of this release. A shadow's candidate has no readers."""
        running = self._running
        if self.mode == "canary" and running and release in (running.contest.champion, running.contest.candidate):
            self._put(running, Thumb(answer_id, up, release == running.contest.candidate))

    def _picks(self, conversation: Conversation, candidate: str) -> bool:
        """The same for a whole conversation, and other conversations for another candidate."""
        digest = sha256(f"{candidate}\0{conversation.mark}".encode()).digest()
        return int.from_bytes(digest[:8], "big") < self._config.share * 2**64

    def _is_late(self, begun: float) -> bool:
        return time.monotonic() - begun > self._seconds

    def _put(self, running: _Running, item: _Item, conversation: Conversation | None = None) -> None:
        """Never waits."""
        if conversation and not conversation.first:
            return
        try:
            self._queue.put_nowait((running, item))
        except Full:
            with self._lock:
                self.dropped += 1

    def _run(self) -> None:
        asked = -self._poll_seconds
        while not self._stop.is_set():
            if time.monotonic() - asked >= self._poll_seconds:
                self._follow()
                asked = time.monotonic()
            try:
                running, item = self._queue.get(timeout=self._poll_seconds)
            except Empty:
                continue
            if running is self._running:  # what is left of an earlier contest counts no more
                try:
                    self._take(running, item)
                except Exception as error:  # nobody would end it any more
                    self._give_up(running, error)

    def _follow(self) -> None:
        """Begin, or end, as the registry says. Never raises: what fails is a problem, and the champion answers."""
        try:
            number, champion = self._candidate(), self._live.number
        except Exception as error:
            self._silence = f"which candidate is to be tried is not known: {error}"
            return
        self._silence = ""
        if self._unkept:
            self._keep_verdict(self._unkept)
        labels = f"{self._live.name}@{champion}", f"{self._live.name}@{number}"
        if number is None or number == champion:
            self._running, self._problem = None, ""
        elif labels not in (self._over, self._compares) and not self._waits(number):
            self._running = None
            self._begin(number, *labels)

    @property
    def _compares(self) -> tuple[str, str] | None:
        contest = self.contest
        return (contest.champion, contest.candidate) if contest else None

    def _waits(self, number: int) -> bool:
        return self._failed is not None and self._failed[0] == number and time.monotonic() < self._failed[1]

    def _begin(self, number: int, champion: str, candidate: str) -> None:
        try:
            if self._judged(champion, candidate):
                self._over, self._problem = (champion, candidate), ""
                return
            assistant = self._load(number)
            assistant.search(self._live.name)
        except Exception as error:
            self._failed = number, time.monotonic() + self._retry_seconds
            self._problem = f"{candidate} shall be tried as {self.mode} and is not: {error}"
            log.error("%s", self._problem)
            return
        log.warning("%s is tried as %s beside %s", candidate, self.mode, champion)
        self._problem = ""
        self._running = _Running(assistant, Contest(champion, candidate, self._compare()))

    def _take(self, running: _Running, item: _Item) -> None:
        comparison = running.contest.comparison
        if isinstance(item, _Copy):
            if self._is_new(running, item.asked.question, item.asked.tenant):
                comparison.take(Both(item.champion, self._copy(running, item)))
                self.compared += 1
        elif isinstance(item, One):
            comparison.take(item)
            self.compared += 1
        elif self._is_new(running, item.answer_id, None):
            comparison.take(item)
        if comparison.stopped:
            self._end(running)

    def _is_new(self, running: _Running, what: str, tenant: str | None) -> bool:
        new = (what, tenant) not in running.seen
        running.seen.add((what, tenant))
        return new

    def _copy(self, running: _Running, item: _Copy) -> Answer | None:
        begun = time.monotonic()
        try:
            answer = item.asked.answer(running.assistant)
        except Exception as error:
            self._fail(running, error)
            return None
        return None if self._is_late(begun) else answer

    def _fail(self, running: _Running, error: Exception) -> None:
        log.error("%s, on trial, failed: %s", running.contest.candidate, type(error).__name__)
        with self._lock:
            self.failures += 1

    def _give_up(self, running: _Running, error: Exception) -> None:
        contest = running.contest
        self._running, self._over = None, (contest.champion, contest.candidate)
        self._problem = f"{contest.candidate} is tried no more: it cannot be compared: {type(error).__name__}: {error}"
        log.error("%s", self._problem)

    def _end(self, running: _Running) -> None:
        """The champion answers everything from here on; then the verdict is kept."""
        contest = running.contest
        self._running, self._over = None, (contest.champion, contest.candidate)
        log.warning("%s beside %s: %s", contest.candidate, contest.champion, contest.comparison.outcome)
        self._keep_verdict(contest)

    def _keep_verdict(self, contest: Contest) -> None:
        """Now, or when the registry is asked the next time."""
        try:
            self._keep(contest)
        except Exception as error:
            self._unkept = contest
            self._problem = f"the verdict on {contest.candidate}, {contest.comparison.outcome}, is not kept: {error}"
        else:
            self._unkept, self._problem = None, ""
