"""Looks up in MLflow what Tandem has measured of a case's release, index and adapter."""

import time
from collections.abc import Iterator, Sequence
from itertools import islice
from pathlib import Path

import numpy as np
from prefect import task

from tasks.answering.service.tracing import RELEASE_TAG
from tasks.config import stored
from tasks.config.advice import CaseConfig
from tasks.config.loading import load_config
from tasks.config.service import ServiceConfig, TracingConfig
from tasks.config.settings import find_conf, find_home
from tasks.records import IndexManifest, Measured, ReleaseManifest
from tasks.register_release import ALONE_METRIC
from tasks.registry.connection import MlflowClient, connect
from tasks.registry.runs import finished_runs, read_run
from tasks.registry.traces import Recorded, read_traces
from tasks.registry.versions import get, list_versions, load_manifest

HOUR, DAY = 3_600, 86_400
MONTH = 365 / 12 * DAY
MOST_TRACES = 2_000
"""The newest ones; it takes two milliseconds to read one. So many tell about a month, however soon they came."""
LEAST_TRACES = 20
"""Of fewer, a 95th percentile is the slowest one."""
LEAST_DAYS_ASKED, LEAST_DAYS_INDEXED = 1, 7
"""From less, nothing is concluded about a month."""
LEAST_FAILURES = 10
"""Of fewer, a share says little."""
BEHAVIOUR = ("form",)
KNOWLEDGE = ("not_in_sources", "not_retrieved", "not_used", "contradicted")
"""Causes of failures, as a diagnosis counts them."""

Found = Iterator[Measured | str]
"""What was measured, the last word on a field being the best; and, in sentences, what was not, and why."""


@task(name="measure", task_run_name="measure {config.name}")
def measure(config: CaseConfig) -> tuple[list[Measured], list[str]]:
    """The fields of the case that Tandem knows better, and in sentences what it does not know, and why.

    What the case names and is not there yet leaves its fields assumed.
    """
    found = list(_measure(connect(find_home()), config))
    return [each for each in found if isinstance(each, Measured)], [each for each in found if isinstance(each, str)]


def _measure(client: MlflowClient, config: CaseConfig) -> Found:
    index, adapter = config.index, config.adapter
    if release := _pinned(client, config.release):
        manifest = ReleaseManifest.from_json(_manifest(client, release))
        index, adapter = index or manifest.index, adapter or manifest.adapter
        yield from _examined(client, release)
        yield from _use(client, release, manifest, config.days)
        yield from _causes(client, release)
    if pinned := _pinned(client, index):
        yield from _documents(client, pinned, config.days)
    if pinned := _pinned(client, adapter):
        yield from _training(client, pinned)
    for named in filter(None, (config.release, index, adapter)):
        if not _pinned(client, named):
            yield f"{named} is not there yet, so what it would tell is assumed."


def _pinned(client: MlflowClient, named: str) -> str | None:
    """With its number; None where there is no such version, or none is named."""
    name, _, which = named.partition("@")
    versions = list_versions(client, name) if name else []
    return next((f"{name}@{each.number}" for each in versions if which in (str(each.number), *each.aliases)), None)


def _manifest(client: MlflowClient, pinned: str) -> dict:
    name, _, number = pinned.partition("@")
    return load_manifest(client, name, int(number))


def _use(client: MlflowClient, release: str, manifest: ReleaseManifest, days: float) -> Found:
    """What was asked, and how it was answered, from the traces of the service."""
    name = release.partition("@")[0]
    tracing, now = _tracing(name), time.time()
    experiment = tracing.experiment or f"answers-{name}"
    traces = [
        each
        for each in islice(read_traces(client, experiment, now - days * DAY), MOST_TRACES)
        if each.tags.get(RELEASE_TAG, "").partition("@")[0] == name
    ]
    if len(traces) < LEAST_TRACES:
        yield f"{experiment} holds {len(traces)} answers of the last {days:g} days; {LEAST_TRACES} tell how it is used."
        return
    newest, oldest = traces[0].at, traces[-1].at
    source = f"{len(traces):,} traces in {experiment}"
    if now - oldest >= LEAST_DAYS_ASKED * DAY or len(traces) == MOST_TRACES:
        asked = len(traces) / (tracing.sample or 1) / (now - oldest) * MONTH
        yield Measured("requests", round(asked), f"{source} over {(now - oldest) / DAY:.1f} days", newest)
    else:
        yield f"{experiment} goes back less than a day, which tells nothing about the requests of a month."
    own = [each for each in traces if each.tags[RELEASE_TAG] == release]
    alone = [each for each in own if each.outputs.get("alone")]
    searched = [each for each in own if not each.outputs.get("alone")]
    if manifest.alone_from is not None and len(own) >= LEAST_TRACES:
        yield Measured("alone_share", len(alone) / len(own), f"{len(own):,} traces of {release}", own[0].at)
    yield from _answers(searched, "answer_ms", "tokens_in", release)
    yield from _answers(alone, "alone_ms", "tokens_in_alone", release)
    if stored.policy_of(manifest).generator.kind == "transformers":
        yield from _throughput(own, release)


def _tracing(name: str) -> TracingConfig:
    """What the service's settings say, if there are any."""
    file = find_conf() / "service" / f"{name}.yaml"
    return (load_config(file, ServiceConfig) if file.exists() else ServiceConfig()).tracing


def _answers(traces: Sequence[Recorded], time_field: str, tokens_field: str, release: str) -> Found:
    if len(traces) < LEAST_TRACES:
        return
    source, at = f"{len(traces):,} traces of {release}", traces[0].at
    slow = float(np.percentile([each.seconds for each in traces], 95)) * 1000
    yield Measured(time_field, round(slow, 1), f"95th percentile of {source}", at)
    tokens = [each.tokens for each in traces if each.tokens]
    if len(tokens) >= LEAST_TRACES:
        read, written = np.mean(tokens, axis=0)
        yield Measured(tokens_field, round(float(read), 1), f"mean of {source}", at)
        if tokens_field == "tokens_in":
            yield Measured("tokens_out", round(float(written), 1), f"mean of {source}", at)


def _throughput(traces: Sequence[Recorded], release: str) -> Found:
    """Of the service's own model: all tokens by all the time of writing, one answer after the other."""
    written = [each for each in traces if each.tokens]
    seconds = sum(each.steps.get("generation", 0.0) + each.steps.get("alone", 0.0) for each in written)
    if len(written) >= LEAST_TRACES and seconds:
        rate = sum(sum(each.tokens) for each in written if each.tokens) / seconds
        source = f"{len(written):,} traces of {release}, one answer after the other, on the machine that served"
        yield Measured("gpu_tokens_per_second", round(rate, 1), source, written[0].at)


def _examined(client: MlflowClient, release: str) -> Found:
    """Right answers and the share answered alone, as the release was examined; an evaluation since then counts more."""
    name, _, number = release.partition("@")
    run = read_run(client, get(client, name, int(number)).run_id)
    for field, metric in (("right", "candidate_right"), ("alone_share", ALONE_METRIC)):
        if metric in run.metrics:
            yield Measured(field, run.metrics[metric], f"{run.experiment}, run {run.run_id}", run.at)
    metric = f"{release.replace('@', '_')}_right"
    for run in finished_runs(client, "evaluation-%", f"metrics.`{metric}` >= 0", 1):
        yield Measured("right", run.metrics[metric], f"{run.experiment}, run {run.run_id}", run.at)


def _causes(client: MlflowClient, release: str) -> Found:
    """Behaviour among the failures of behaviour and of knowledge, by the newest diagnosis."""
    runs = finished_runs(client, "diagnosis-%", f"tags.`{RELEASE_TAG}` = '{release}'", 1)
    if not runs:
        yield f"{release} was never diagnosed (`tandem diagnose CONF`): what its failures are of is assumed."
        return
    run = runs[0]
    behaviour, knowledge = (
        sum(run.metrics.get(f"cause.{cause}", 0.0) for cause in causes) for causes in (BEHAVIOUR, KNOWLEDGE)
    )
    failures = behaviour + knowledge
    if failures < LEAST_FAILURES:
        yield f"the diagnosis of {release} sorted {failures:.0f} failures; a share takes {LEAST_FAILURES}."
        return
    source = f"{behaviour:.0f} of {failures:.0f} failures, {run.experiment}, run {run.run_id}"
    yield Measured("behaviour_share", behaviour / failures, source, run.at)


def _documents(client: MlflowClient, index: str, days: float) -> Found:
    """How many there are, how large their index is, and how many of them change."""
    name, _, number = index.partition("@")
    manifest = IndexManifest.from_json(_manifest(client, index))
    made = get(client, name, int(number)).created
    yield Measured("documents", manifest.documents, f"manifest of {index}, {manifest.passages:,} passages", made)
    table = Path(manifest.uri) / f"{manifest.table}.lance"
    if table.is_dir():  # of a database in an object store nothing is known
        size = sum(file.stat().st_size for file in table.rglob("*") if file.is_file()) / 1e9
        yield Measured("index_gb", float(f"{size:.3g}"), f"{table}, with the versions that it keeps", time.time())
    runs, now = finished_runs(client, f"index-{name}"), time.time()
    since = max(now - days * DAY, runs[-1].at if runs else now)
    if now - since < LEAST_DAYS_INDEXED * DAY:
        yield f"{name} is indexed for {(now - since) / DAY:.1f} days; {LEAST_DAYS_INDEXED} tell how often it changes."
        return
    # the first run adds all there is
    changed = sum(
        run.metrics.get(f"count_documents {what}", 0.0)
        for run in runs[:-1]
        if run.at >= since
        for what in ("added", "changed", "deleted")
    )
    share = min(1.0, changed / max(manifest.documents, 1) / (now - since) * MONTH)
    source = f"{changed:,.0f} changes in {(now - since) / DAY:.0f} days, index-{name}"
    yield Measured("changed_share", share, source, runs[0].at)


def _training(client: MlflowClient, adapter: str) -> Found:
    """What the adapter's training took, and on how many rows."""
    name, _, number = adapter.partition("@")
    run = read_run(client, get(client, name, int(number)).run_id)
    rows = [run.metrics.get(f"count_rows:_{side}", 0.0) for side in ("train", "held_out")]
    source = f"{run.experiment}, run {run.run_id}"
    if any(rows):
        yield Measured(
            "examples", round(sum(rows)), f"{rows[0]:,.0f} trained on, {rows[1]:,.0f} held out, {source}", run.at
        )
    seconds = sum(run.metrics.get(f"seconds_{step}", 0.0) for step in ("train", "score"))
    if seconds:
        rate = run.metrics.get("tokens_per_second")
        at_rate = f" at {rate:,.0f} tokens/s" if rate else ""
        yield Measured(
            "training_gpu_hours", float(f"{seconds / HOUR:.3g}"), f"{seconds:,.0f} s{at_rate}, {source}", run.at
        )
