"""What Prometheus reads."""

from collections.abc import Callable, Iterator
from typing import Protocol

from prometheus_client import CollectorRegistry, Counter, Histogram, ProcessCollector
from prometheus_client.core import CounterMetricFamily, GaugeMetricFamily, Metric

from tasks.answering.service.live import LiveRelease
from tasks.answering.service.trial import Trial
from tasks.records import Answer

BUCKETS = (0.005, 0.01, 0.025, 0.05, 0.1, 0.25, 0.5, 1, 2.5, 5, 10, 30, 60)


class Kept(Protocol):
    """What is counted of traces."""

    written: int
    lost: int

    @property
    def waiting(self) -> int: ...


class Metrics:
    """Counts of what happened, in a registry of the service's own; no label grows with what callers send."""

    def __init__(self) -> None:
        self.registry = CollectorRegistry()
        ProcessCollector(registry=self.registry)
        self.requests = Counter(
            "tandem_requests_total", "Requests by route and status", ["route", "status"], registry=self.registry
        )
        self.seconds = Histogram(
            "tandem_request_seconds",
            "From a request to the end of its answer",
            ["route"],
            buckets=BUCKETS,
            registry=self.registry,
        )
        self.limited = Counter(
            "tandem_limited_total",
            "Requests of keys that asked for more than they may, by limit",
            ["limit"],
            registry=self.registry,
        )
        self._steps = Histogram(
            "tandem_step_seconds", "Time of the steps of an answer", ["step"], buckets=BUCKETS, registry=self.registry
        )
        self._answers = Counter(
            "tandem_answers_total", "Answers by release, refused or not", ["release", "refused"], registry=self.registry
        )
        self._alone = Counter(
            "tandem_answers_alone_total", "Answers without a search, by release", ["release"], registry=self.registry
        )
        self._tokens = Counter(
            "tandem_tokens_total", "Tokens of language models, read and written", ["direction"], registry=self.registry
        )

    def answered(self, answer: Answer) -> None:
        for step, lasted in answer.seconds.items():
            self._steps.labels(step).observe(lasted)
        self._answers.labels(answer.versions["release"], str(answer.refused).lower()).inc()
        if answer.alone:
            self._alone.labels(answer.versions["release"]).inc()
        self._tokens.labels("read").inc(answer.tokens_in)
        self._tokens.labels("written").inc(answer.tokens_out)

    def watch(self, live: LiveRelease, taken: Callable[[], int], traces: Kept, trial: Trial | None) -> None:
        """Let what is live, what is under way, what is kept and what is tried be read at every scrape."""
        self.registry.register(_State(live, taken, traces))
        if trial:
            self.registry.register(_Tried(trial))


class _State:
    def __init__(self, live: LiveRelease, taken: Callable[[], int], traces: Kept) -> None:
        self._live, self._taken, self._traces = live, taken, traces

    def collect(self) -> Iterator[Metric]:
        live, traces = self._live, self._traces
        versions = dict(live.assistant.versions)
        info = GaugeMetricFamily("tandem_live_release", "1 for the versions that answer now", labels=list(versions))
        info.add_metric(list(versions.values()), 1)
        yield info
        for name, text, value in (
            ("tandem_registry_up", "Whether the registry answers", live.registry_answers),
            ("tandem_target_failing", "Whether what shall be live is not", live.failed is not None),
            ("tandem_swap_seconds", "From seeing a moved alias to the swap, the last time", live.swap_seconds),
            ("tandem_requests_taken", "Requests that are answered now or wait", self._taken()),
            ("tandem_traces_waiting", "Traces that are not written yet", traces.waiting),
        ):
            yield GaugeMetricFamily(name, text, value=float(value))
        for name, text, count in (
            ("tandem_swaps", "Times that another version went live", live.swaps),
            ("tandem_load_failures", "Times that a version did not load", live.failures),
            ("tandem_traces_written", "Traces written", traces.written),
            ("tandem_traces_lost", "Traces lost", traces.lost),
        ):
            yield CounterMetricFamily(name, text, value=float(count))


class _Tried:
    def __init__(self, trial: Trial) -> None:
        self._trial = trial

    def collect(self) -> Iterator[Metric]:
        trial = self._trial
        running = GaugeMetricFamily("tandem_trial_running", "Whether a candidate is tried now", labels=["mode"])
        running.add_metric([trial.mode], float(trial.contest is not None))
        yield running
        for name, text, count in (
            ("tandem_trial_compared", "Answers, or pairs of a shadow, that were compared", trial.compared),
            ("tandem_trial_dropped", "Answers left out because too many waited", trial.dropped),
            ("tandem_trial_failures", "Times that the candidate failed to answer", trial.failures),
        ):
            family = CounterMetricFamily(name, text, labels=["mode"])
            family.add_metric([trial.mode], float(count))
            yield family
