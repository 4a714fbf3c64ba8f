"""Traces of answers in MLflow, and what people said about them.

A trace is written whole, after the answer was given: its times are in the record, not measured here. Its id is chosen
by whoever makes the record, so that a response can name its trace before that is written.
"""

import json
import secrets
from base64 import b64encode
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any

from mlflow import MlflowClient
from mlflow.entities import Expectation, Feedback, Span, Trace
from mlflow.entities.assessment_source import AssessmentSource, AssessmentSourceType
from mlflow.exceptions import MlflowException
from mlflow.tracing.client import TracingClient
from mlflow.tracing.constant import SpanAttributeKey, TokenUsageKey, TraceTagKey

from tasks.errors import RegistryError
from tasks.registry.connection import explained, failures_explained
from tasks.registry.marks import EXPERIMENT_TAG, experiment_id, find_experiment, own_experiments

PREFIX = "tr-"
PAGE = 100
NAME_TAG = TraceTagKey.TRACE_NAME
ANSWER = "answer"
"""Name of the traces of answers."""
THUMB = "thumb"
CORRECTION = "correction"


@dataclass(frozen=True, slots=True)
class SpanRecord:
    """A step of an answer. Times are nanoseconds since the epoch; everything else is JSON-safe."""

    name: str
    kind: str
    """A type that MLflow knows, such as RETRIEVER."""
    start: int
    end: int
    inputs: Any = None
    outputs: Any = None
    attributes: Mapping[str, Any] = field(default_factory=dict)
    tokens: tuple[int, int] | None = None
    """Read and written."""


@dataclass(frozen=True, slots=True)
class TraceRecord:
    """An answer, or a search: the whole, and its steps."""

    trace_id: str
    """As `new_trace_id` gives it."""
    whole: SpanRecord
    steps: Sequence[SpanRecord]
    tags: Mapping[str, str]
    error: str = ""
    """What went wrong, in a word; empty where nothing did."""


@dataclass(frozen=True, slots=True)
class Recorded:
    """A trace as it was written, and what people said of the answer; the last word counts."""

    trace_id: str
    tags: Mapping[str, str]
    inputs: Mapping[str, Any]
    outputs: Mapping[str, Any]
    """Of the whole, with the texts that were allowed to be kept."""
    thumb: bool | None = None
    correction: str = ""
    at: float = 0.0
    """When it began, in seconds since the epoch."""
    seconds: float = 0.0
    steps: Mapping[str, float] = field(default_factory=dict)
    """Seconds by step."""
    scores: tuple[float, ...] = ()
    """Of the passages that the search found, best first."""
    tokens: tuple[int, int] | None = None
    """Read and written, where a language model answered."""


def new_trace_id() -> str:
    """The id of a trace that is yet to be written."""
    return PREFIX + secrets.token_hex(16)


@explained
def experiment_of(client: MlflowClient, name: str) -> str:
    """The id of the experiment that traces go to, which is made where it is missing."""
    return experiment_id(client, name)


@explained
def write_traces(client: MlflowClient, experiment: str, records: Sequence[TraceRecord]) -> None:
    """Write traces into the experiment with this id, all in one go: MLflow makes each from its spans.

    One that is begun by `start_trace` first, with its tags, costs twice as much.
    """
    spans = [span for record in records for span in _spans(record)]
    TracingClient(client.tracking_uri).log_spans(experiment, spans)


def read_traces(client: MlflowClient, experiment: str, since: float, newest_first: bool = True) -> Iterator[Recorded]:
    """The traces of answers in the experiment of this name, from a time in seconds since the epoch on.

    They come in order of time, the newest or the oldest first; questions without an answer are left out. There are none
    where there is no such experiment.
    """
    order = f"attributes.timestamp_ms {'DESC' if newest_first else 'ASC'}"
    tracing, token = TracingClient(client.tracking_uri), None
    query = f"name = '{ANSWER}' AND timestamp_ms >= {int(since * 1000)} AND status = 'OK'"
    with failures_explained(client.tracking_uri):
        found = find_experiment(client, experiment)
    while found:
        with failures_explained(client.tracking_uri):
            page = tracing.search_traces(
                locations=[found.experiment_id],
                filter_string=query,
                max_results=PAGE,
                order_by=[order],
                page_token=token,
            )
        yield from map(_recorded, page)
        if not (token := page.token):
            return


@explained
def trace_tags(client: MlflowClient, trace_id: str) -> dict[str, str] | None:
    """The tags of a trace; None where there is no such trace."""
    try:
        return dict(TracingClient(client.tracking_uri).get_trace_info(trace_id).tags)
    except MlflowException as error:
        if error.error_code in ("RESOURCE_DOES_NOT_EXIST", "NOT_FOUND", "INVALID_PARAMETER_VALUE"):
            return None
        raise


@explained
def old_traces(client: MlflowClient, before: float) -> dict[str, list[str]]:
    """The ids of the traces that were begun before a time (seconds since the epoch), by the name of our experiment."""
    found = {}
    for experiment in own_experiments(client):
        if ids := _ids_before(client, experiment.experiment_id, int(before * 1000)):
            found[experiment.tags[EXPERIMENT_TAG]] = ids
    return found


def _ids_before(client: MlflowClient, experiment: str, milliseconds: int) -> list[str]:
    ids: list[str] = []
    token = None
    while True:
        page = TracingClient(client.tracking_uri).search_traces(
            locations=[experiment],
            filter_string=f"timestamp_ms < {milliseconds}",
            max_results=PAGE,
            include_spans=False,
            page_token=token,
        )
        ids += [trace.info.trace_id for trace in page]
        if not (token := page.token):
            return ids


@explained
def delete_traces(client: MlflowClient, experiment: str, ids: Sequence[str]) -> None:
    """Delete traces of the experiment of this name, and what was said of them."""
    found = experiment_id(client, experiment)
    for start in range(0, len(ids), PAGE):
        client.delete_traces(found, trace_ids=list(ids[start : start + PAGE]))


@explained
def assess(
    client: MlflowClient,
    trace_id: str,
    *,
    by: str,
    thumb: bool | None = None,
    correction: str = "",
    comment: str = "",
) -> list[str]:
    """Keep what a person said of an answer as assessments of its trace; returns their ids.

    The correction is an expectation: what the answer should have been. Raises RegistryError where there is no such
    trace.
    """
    source = AssessmentSource(AssessmentSourceType.HUMAN, by)
    said: list[Feedback | Expectation] = []
    if thumb is not None:
        said.append(Feedback(THUMB, thumb, source=source, rationale=comment or None))
    if correction:
        said.append(Expectation(name=CORRECTION, value=correction, source=source))
    if trace_tags(client, trace_id) is None:
        raise RegistryError(f"there is no trace {trace_id} in MLflow")
    tracing = TracingClient(client.tracking_uri)
    return [str(tracing.log_assessment(trace_id, one).assessment_id) for one in said]


def _recorded(trace: Trace) -> Recorded:
    whole = next((span for span in trace.data.spans if span.parent_id is None), None)
    assessments = sorted(trace.info.assessments, key=lambda one: one.create_time_ms or 0)
    thumbs = [one.value for one in assessments if isinstance(one, Feedback) and one.name == THUMB]
    corrections = [one.value for one in assessments if isinstance(one, Expectation) and one.name == CORRECTION]
    return Recorded(
        trace_id=trace.info.trace_id,
        tags=dict(trace.info.tags),
        inputs=(whole.inputs if whole else None) or {},
        outputs=(whole.outputs if whole else None) or {},
        thumb=bool(thumbs[-1]) if thumbs else None,
        correction=str(corrections[-1]) if corrections else "",
        at=trace.info.timestamp_ms / 1000,
        seconds=_lasted(whole) if whole else 0.0,
        steps={span.name: _lasted(span) for span in trace.data.spans if span is not whole},
        scores=tuple(passage["metadata"]["score"] for passage in _found(trace)),
        tokens=_tokens(trace),
    )


def _lasted(span: Span) -> float:
    return (span.end_time_ns - span.start_time_ns) / 1e9 if span.end_time_ns else 0.0


def _found(trace: Trace) -> list[dict[str, Any]]:
    return next((span.outputs for span in trace.data.spans if span.span_type == "RETRIEVER"), None) or []


def _tokens(trace: Trace) -> tuple[int, int] | None:
    usages = [span.get_attribute(SpanAttributeKey.CHAT_USAGE) for span in trace.data.spans]
    known = [usage for usage in usages if usage and usage[TokenUsageKey.TOTAL_TOKENS]]
    if not known:
        return None
    read, written = (
        sum(usage[key] for usage in known) for key in (TokenUsageKey.INPUT_TOKENS, TokenUsageKey.OUTPUT_TOKENS)
    )
    return read, written


def _spans(record: TraceRecord) -> list[Span]:
    ids = [secrets.token_hex(8) for _ in range(len(record.steps) + 1)]
    whole = _span(record, record.whole, ids[0], None)
    return [whole, *(_span(record, step, own, ids[0]) for step, own in zip(record.steps, ids[1:], strict=True))]


def _span(record: TraceRecord, step: SpanRecord, span_id: str, parent: str | None) -> Span:
    attributes = {
        SpanAttributeKey.REQUEST_ID: record.trace_id,
        SpanAttributeKey.SPAN_TYPE: step.kind,
        SpanAttributeKey.INPUTS: step.inputs,
        SpanAttributeKey.OUTPUTS: step.outputs,
        **step.attributes,
    }
    if parent is None:
        tags = {NAME_TAG: step.name, **record.tags}
        attributes |= {SpanAttributeKey.TRACE_TAG_PREFIX + key: value for key, value in tags.items()}
    if step.tokens:
        attributes[SpanAttributeKey.CHAT_USAGE] = _usage(*step.tokens)
    failed = record.error and parent is None
    return Span.from_dict(
        {
            "trace_id": _base64(record.trace_id.removeprefix(PREFIX)),
            "span_id": _base64(span_id),
            "parent_span_id": _base64(parent),
            "name": step.name,
            "start_time_unix_nano": step.start,
            "end_time_unix_nano": step.end,
            "status": {"code": "ERROR" if failed else "OK", "message": record.error if failed else ""},
            "attributes": {key: json.dumps(value) for key, value in attributes.items() if value is not None},
        }
    )


def _base64(hexadecimal: str | None) -> str:
    return b64encode(bytes.fromhex(hexadecimal or "")).decode()


def _usage(read: int, written: int) -> dict[str, int]:
    return {
        TokenUsageKey.INPUT_TOKENS: read,
        TokenUsageKey.OUTPUT_TOKENS: written,
        TokenUsageKey.TOTAL_TOKENS: read + written,
    }
