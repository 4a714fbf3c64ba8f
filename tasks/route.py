"""Finds out when a release's model may answer without a search."""

import time
from dataclasses import replace

from prefect import task

from tasks.answering.assistant import Assistant
from tasks.answering.routing import certainty
from tasks.config import stored
from tasks.config.answering import ReleaseConfig
from tasks.config.settings import find_home
from tasks.evaluation.golden import GoldenQuery, load_golden
from tasks.evaluation.routing import Routed, Tried, Way, calibrate_routing
from tasks.evaluation.stages import said
from tasks.evaluation.texts import holds
from tasks.progress import progress
from tasks.records import ReleaseManifest
from tasks.releases import open_manifest


@task(name="route", task_run_name="route {manifest.release}")
def route(config: ReleaseConfig, manifest: ReleaseManifest) -> tuple[ReleaseManifest, Routed | None]:
    """The manifest with the confidence from which the model answers alone, and what that saves.

    None where the policy lets it never answer alone.
    """
    routing = stored.policy_of(manifest).routing
    if not routing.alone:
        return manifest, None
    assistant = open_manifest(manifest, find_home())
    queries = [query for query in load_golden(config.familiar or config.golden) if query.answers]
    tried = []
    with progress("route", config.name, len(queries)) as advance:
        for query in queries:
            tried.append(_try_both_ways(assistant, query))
            advance(1)
    routed = calibrate_routing(tried, routing.max_loss)
    return replace(manifest, alone_from=routed.alone_from), routed


def _try_both_ways(assistant: Assistant, query: GoldenQuery) -> Tried:
    began = time.perf_counter()
    draft = assistant.draft(query.query)
    between = time.perf_counter()
    answer = assistant.answer(query.query, query.tenant, cite=True)
    ended = time.perf_counter()
    searched = Way(holds(said(answer), query.answers), ended - between, answer.tokens_in + answer.tokens_out)
    if draft is None:
        return Tried(query.id, 0.0, Way(False, 0.0, 0), searched, may_be_alone=False)
    alone = Way(holds(draft.text, query.answers), between - began, draft.tokens_in + draft.tokens_out)
    return Tried(query.id, certainty(draft, assistant.policy.routing), alone, searched)
