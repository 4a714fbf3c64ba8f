"""What is kept of every answer and search: made after it was given, and written by somebody else, later.

The answer's thread only puts a record into a bounded queue. Where the queue is full, or MLflow does not take a
record, the trace is lost and counted; the answer has been given long before.
"""

import logging
import random
import time
import uuid
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import contextmanager, suppress
from dataclasses import asdict
from queue import Empty, Full, Queue
from threading import Thread
from typing import Any, Protocol

from tasks.config.service import TracingConfig
from tasks.errors import RegistryError
from tasks.records import Answer, Passage, Searched
from tasks.registry.traces import ANSWER, PREFIX, SpanRecord, TraceRecord, new_trace_id

log = logging.getLogger(__name__)

BATCH = 50
GATHER_SECONDS = 0.5
"""So long a batch waits for more: one trace by itself costs the writer half as much again."""
WAIT_SECONDS, END_SECONDS = 15.0, 5.0
TENANT_TAG = "tandem.tenant"
RELEASE_TAG = "tandem.release"
SEARCH = "passages"
"""Name of the traces of searches without an answer."""
KEY_TAG = "tandem.key"
KINDS = {"filters": "GUARDRAIL", "alone": "LLM", "search": "RETRIEVER", "grounding": "EVALUATOR", "generation": "LLM"}
TEXTS = ("none", "questions", "answers", "passages")
"""Each with those before it."""
NOTHING: Mapping[str, str] = {}
Step = tuple[Any, Any, tuple[int, int] | None]
"""Inputs, outputs, and tokens read and written."""


class Writer(Protocol):
    """Where traces go. Writing may take its time, and may fail."""

    def start(self) -> None: ...

    def write(self, records: Sequence[TraceRecord]) -> None: ...

    def close(self) -> None: ...


class Traces:
    """Hands records to a writer, in batches and in a thread of its own; without a writer nothing is traced."""

    def __init__(self, config: TracingConfig, writer: Writer | None) -> None:
        self._config, self._writer = config, writer
        self._queue: Queue[TraceRecord | None] = Queue(config.waiting)
        self._waiting: set[str] = set()
        self._thread = Thread(target=self._run, name="traces", daemon=True)
        self.written = self.lost = 0

    @property
    def enabled(self) -> bool:
        return self._writer is not None

    @property
    def waiting(self) -> int:
        """Records that are not written yet."""
        return len(self._waiting)

    def start(self) -> None:
        if self._writer:
            self._writer.start()
            self._thread.start()

    def new_id(self, untraced: str) -> str:
        """The id of the next response: that of its trace, or one that begins otherwise where there is none."""
        if self.enabled and random.random() < self._config.sample:
            return new_trace_id()
        return f"{untraced}-{uuid.uuid4().hex}"

    def keep(self, record: TraceRecord) -> None:
        """Never waits."""
        self._waiting.add(record.trace_id)
        try:
            self._queue.put_nowait(record)
        except Full:
            self._lose([record], "more traces wait than may")

    @contextmanager
    def failures(
        self, trace_id: str, name: str, versions: Mapping[str, str], tags: Mapping[str, str]
    ) -> Iterator[None]:
        """Keep the kind of what is raised meanwhile, where the response of this id is traced."""
        started = time.time_ns()
        try:
            yield
        except Exception as error:
            if is_traced(trace_id):
                whole = SpanRecord(name, "CHAIN", started, time.time_ns(), attributes=versions)
                told = {RELEASE_TAG: versions["release"], **tags}
                self.keep(TraceRecord(trace_id, whole, (), told, type(error).__name__))
            raise

    def wait_for(self, trace_id: str) -> None:
        """Return once a trace does not wait any more, whether it was written or lost. Raises RegistryError if it does.

        Feedback may come sooner than its trace.
        """
        end = time.monotonic() + WAIT_SECONDS
        while trace_id in self._waiting:
            if time.monotonic() > end:
                raise RegistryError(f"the trace {trace_id} is not written yet: try again")
            time.sleep(0.02)

    def stop(self) -> None:
        """Write what waits, as far as it can be done in a few seconds."""
        if self._writer is None:
            return
        with suppress(Full):
            self._queue.put(None, timeout=END_SECONDS)
            self._thread.join(END_SECONDS)
        self._writer.close()
        if self._waiting:
            log.warning("%d traces were lost at the end", self.waiting)

    def _run(self) -> None:
        assert self._writer
        records: list[TraceRecord] | None = []
        while records is not None:
            records = self._batch()
            if records:
                try:
                    self._writer.write(records)
                    self.written += len(records)
                    self._waiting.difference_update(record.trace_id for record in records)
                except Exception as error:
                    self._lose(records, type(error).__name__)

    def _batch(self) -> list[TraceRecord] | None:
        """What waits, at least one; None at the end."""
        found = [self._queue.get()]
        end = time.monotonic() + GATHER_SECONDS
        while len(found) < BATCH and found[-1] is not None:
            try:
                found.append(self._queue.get(timeout=max(0.0, end - time.monotonic())))
            except Empty:
                break
        if found[-1] is None:
            self._queue.put(None)  # for the next call
            return [record for record in found if record is not None] or None
        return [record for record in found if record is not None]

    def _lose(self, records: Sequence[TraceRecord], reason: str) -> None:
        if not self.lost:
            log.warning("traces are lost: %s", reason)
        self.lost += len(records)
        self._waiting.difference_update(record.trace_id for record in records)


def is_traced(response_id: str) -> bool:
    """Whether an id as `Traces.new_id` gives it is that of a trace."""
    return response_id.startswith(PREFIX)


def record_of(trace_id: str, answer: Answer, ended: int, texts: str, tags: Mapping[str, str] = NOTHING) -> TraceRecord:
    """What happened, from the answer's own times; `ended` in nanoseconds since the epoch.

    `texts` says which texts it may hold, as in `TracingConfig`.
    """
    allowed = TEXTS[: TEXTS.index(texts) + 1]
    steps = _steps(answer.seconds, ended, lambda name: _of_step(name, answer, allowed))
    told = {
        "refused": answer.refused,
        "alone": answer.alone,
        "confidence": round(answer.confidence, 4),
        "cited": [passage.id for passage in answer.cited],
    }
    if "answers" in allowed:
        told["answer"] = answer.text
    asked = _question(answer.question, allowed)
    whole = SpanRecord(ANSWER, "CHAIN", steps[0].start, ended, asked, told, answer.versions)
    return TraceRecord(trace_id, whole, steps, {RELEASE_TAG: answer.versions["release"], **tags})


def record_of_search(
    trace_id: str, query: str, found: Searched, ended: int, texts: str, tags: Mapping[str, str] = NOTHING
) -> TraceRecord:
    """As `record_of`, of a search without an answer; `query` without what a question's filter takes out of it."""
    allowed = TEXTS[: TEXTS.index(texts) + 1]
    asked = _question(query, allowed)
    of_step: Mapping[str, Step] = {
        "search": (asked, [_retrieved(passage, allowed) for passage in found.passages], None),
        "filters": (None, [asdict(each) for each in found.filtered], None),
    }
    steps = _steps(found.seconds, ended, of_step.__getitem__)
    told = {"found": [passage.id for passage in found.passages]}
    whole = SpanRecord(SEARCH, "CHAIN", steps[0].start, ended, asked, told, found.versions)
    return TraceRecord(trace_id, whole, steps, {RELEASE_TAG: found.versions["release"], **tags})


def _steps(seconds: Mapping[str, float], ended: int, of_step: Callable[[str], Step]) -> list[SpanRecord]:
    """One after the other, the last one ended then."""
    now = ended - int(sum(seconds.values()) * 1e9)
    steps = []
    for name, lasted in seconds.items():
        end = now + int(lasted * 1e9)
        inputs, outputs, tokens = of_step(name)
        steps.append(SpanRecord(name, KINDS.get(name, "CHAIN"), now, end, inputs, outputs, tokens=tokens))
        now = end
    return steps


def _of_step(name: str, answer: Answer, allowed: Sequence[str]) -> Step:
    if name == "search":
        return _question(answer.question, allowed), [_retrieved(passage, allowed) for passage in answer.passages], None
    if name == "filters":
        return None, [asdict(each) for each in answer.filtered], None
    if name == "grounding":
        return None, {"probability": round(answer.confidence, 4)}, None
    if name == "generation" or (name == "alone" and answer.alone):
        return None, answer.text if "answers" in allowed else None, (answer.tokens_in, answer.tokens_out)
    return None, None, None


def _question(question: str, allowed: Sequence[str]) -> dict[str, Any]:
    return {"question": question} if "questions" in allowed else {"characters": len(question)}


def _retrieved(passage: Passage, allowed: Sequence[str]) -> dict[str, Any]:
    """In the form in which MLflow shows what a retriever found."""
    place = {"document": passage.document, "start": passage.start, "end": passage.end, "score": passage.score}
    return {"id": passage.id, "page_content": passage.text if "passages" in allowed else "", "metadata": place}
