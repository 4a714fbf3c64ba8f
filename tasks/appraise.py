"""Asks a release every question of a suite: what is found, what is made of the right sources, and the whole."""

from collections.abc import Sequence

import numpy as np
from prefect import task

from tasks.answering.assistant import SPARE, Assistant
from tasks.answering.filters import redact
from tasks.config.settings import find_home
from tasks.evaluation.golden import GoldenQuery, document_of
from tasks.evaluation.releases import is_relevant
from tasks.evaluation.stages import Row, said
from tasks.examine import find_both_ways
from tasks.index.search import Filters
from tasks.progress import progress
from tasks.records import Answer, Passage
from tasks.releases import open_release


@task(name="appraise", task_run_name="appraise {pinned}")
def appraise(pinned: str, queries: Sequence[GoldenQuery]) -> list[Row]:
    """What the release ``name@which`` makes of each question. Raises a TandemError where it does not open."""
    name, _, which = pinned.partition("@")
    assistant = open_release(name, int(which) if which.isdigit() else which, find_home())
    rows = []
    with progress("appraise", name, len(queries)) as advance:
        for query in queries:
            rows.append(ask(assistant, query))
            advance(1)
    return rows


def ask(assistant: Assistant, query: GoldenQuery) -> Row:
    """What a release that is open makes of one question, stage by stage."""
    read = SPARE * assistant.policy.passages
    found, others = find_both_ways(assistant, query)
    whole = assistant.answer_from(query.query, found[:read])
    return Row(
        query=query,
        found=tuple(found),
        given=assistant.answer_from(query.query, _sources(assistant, query, read)),
        whole=whole,
        without=assistant.answer_from(query.query, others[:read]),
        similarity=_similarity(assistant, query.query, whole),
        expected=_expected(assistant, query),
    )


def _expected(assistant: Assistant, query: GoldenQuery) -> str:
    text, filters = " or ".join(query.answers), assistant.policy.filters
    return text if filters.answer == "off" else redact(text, filters.allowed)[0]


def _sources(assistant: Assistant, query: GoldenQuery, count: int) -> list[Passage]:
    """The best passages of each relevant document, which fit the question best first."""
    documents = dict.fromkeys(map(document_of, query.relevant))
    found = [
        passage
        for document in documents
        for passage in assistant.reader.search(
            [query.query], k=count, filters=Filters(tenant=query.tenant, document_prefix=document)
        )[0]
        if is_relevant(passage, query)
    ]
    return sorted(found, key=lambda passage: -(passage.similarity or 0.0))[:count]


def _similarity(assistant: Assistant, question: str, answer: Answer) -> float:
    text = said(answer)
    if not text:
        return 0.0
    one, two = assistant.reader.embedder.embed_queries([question, text])
    return float(np.dot(one, two) / (np.linalg.norm(one) * np.linalg.norm(two)))
