"""Asks a release every golden query, with the documents that answer it and without, beside the live release."""

from collections.abc import Sequence
from dataclasses import dataclass, replace
from functools import partial
from typing import Any

from prefect import task

from tasks.answering.assistant import SPARE, Assistant
from tasks.answering.filters import screen_passages
from tasks.answering.grounding import Calibrated, Example, calibrate
from tasks.config.answering import ReleaseConfig, RetrievalConfig
from tasks.config.settings import find_home
from tasks.errors import TandemError
from tasks.evaluation.golden import GoldenQuery, load_golden
from tasks.evaluation.releases import Case, is_relevant, score_cases
from tasks.evaluation.scores import CANDIDATE, CHAMPION, Score
from tasks.index.search import Filters
from tasks.progress import progress
from tasks.records import Passage, ReleaseManifest
from tasks.registry.connection import connect
from tasks.registry.versions import resolve_champion
from tasks.releases import open_manifest, open_release

DEPTH = 50
"""Passages asked for, so that ten documents are among them, and enough without those that answer."""


@dataclass(frozen=True, slots=True)
class Examined:
    """Scores by contender, and every question as the candidate answered it."""

    contenders: dict[str, dict[str, Score]]
    cases: tuple[Case, ...]
    champion: int | None
    notes: tuple[str, ...] = ()


@task(name="calibrate", task_run_name="calibrate {manifest.release}")
def calibrate_grounding(config: ReleaseConfig, manifest: ReleaseManifest) -> tuple[ReleaseManifest, Calibrated]:
    """The manifest with the grounding that the golden queries call for, and how well that refuses."""
    assistant = open_manifest(manifest, find_home())
    policy = assistant.policy
    examples = [
        Example(query.query, screen_passages(passages, policy.passages, policy.filters)[0], answerable)
        for query in load_golden(config.golden)
        for answerable, passages in _both_ways(assistant, query)
    ]
    found = calibrate(examples, policy.grounding.min_precision)
    return replace(manifest, grounding=found.grounding.to_json()), found


@task(name="examine", task_run_name="examine {manifest.release}")
def examine(config: ReleaseConfig, manifest: ReleaseManifest) -> Examined:
    """Score the release and the live one on the same questions."""
    home = find_home()
    queries = load_golden(config.golden)
    live = resolve_champion(connect(home), config.name)
    with progress("examine", config.name, len(queries) * (1 if live is None else 2)) as advance:
        cases = _ask(open_manifest(manifest, home), queries, advance)
        contenders = {CANDIDATE: score_cases(cases, config.gate.confidence)}
        notes: tuple[str, ...] = ()
        if live:
            try:
                theirs = _ask(open_release(config.name, live.number, home), queries, advance)
                contenders[CHAMPION] = score_cases(theirs, config.gate.confidence)
            except TandemError as error:
                notes = (f"champion not scored: {error}",)
    return Examined(contenders, tuple(cases), live.number if live else None, notes)


def _ask(assistant: Assistant, queries: Sequence[GoldenQuery], advance: Any) -> list[Case]:
    cases = []
    for query in queries:
        for answerable, passages in _both_ways(assistant, query):
            cases.append(Case(query, answerable, assistant.answer_from(query.query, passages)))
        advance(1)
    return cases


def _both_ways(assistant: Assistant, query: GoldenQuery) -> list[tuple[bool, Sequence[Passage]]]:
    """The passages that a query is answered from, as far as filters leave them, and those without its documents."""
    found, others = find_both_ways(assistant, query)
    count = SPARE * assistant.policy.passages
    return [(True, found[:count]), (False, others[:count])]


def find_both_ways(assistant: Assistant, query: GoldenQuery) -> tuple[Sequence[Passage], Sequence[Passage]]:
    """What the release finds for a query, and what it would find if none of its documents were there."""
    filters, without = Filters(tenant=query.tenant), partial(is_relevant, query=query)
    found = assistant.search(query.query, filters, DEPTH).passages
    if assistant.policy.retrieval == RetrievalConfig():  # what is found leads nowhere, and one search tells both
        return found, [passage for passage in found if not without(passage)]
    return found, assistant.search(query.query, filters, DEPTH, without=without).passages
