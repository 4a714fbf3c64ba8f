"""Passages without an answer: `/v1/search`."""

import time
from collections.abc import Mapping
from dataclasses import asdict
from datetime import date
from functools import partial
from typing import Annotated, Any

from fastapi import APIRouter, Depends, Request
from pydantic import BaseModel, ConfigDict, Field

from tasks.answering.assistant import SPARE
from tasks.answering.filters import screen_passages, screen_question
from tasks.answering.service.chat import checked_text, place_of
from tasks.answering.service.errors import ServiceError
from tasks.answering.service.keys import Key
from tasks.answering.service.state import Service, needs, service_of, tenant_of
from tasks.answering.service.tracing import KEY_TAG, SEARCH, TENANT_TAG, is_traced, record_of_search
from tasks.index.search import Filters, Mode
from tasks.records import Searched
from tasks.timing import timed

router = APIRouter()
Short = Annotated[str, Field(min_length=1, max_length=200)]


class SearchRequest(BaseModel):
    """A query and what may be found."""

    model_config = ConfigDict(extra="forbid")  # a misspelt filter would find too much

    query: str
    k: int = Field(10, ge=1)
    mode: Mode | None = None
    tenant: Short | None = None
    language: Short | None = None
    source: Short | None = None
    tags: list[Short] = Field([], max_length=50)
    date_from: date | None = None
    date_to: date | None = None
    document_prefix: str = Field("", max_length=1000)


@router.post("/v1/search")
async def search(
    asked: SearchRequest,
    request: Request,
    key: Annotated[Key, Depends(needs("search"))],
    service: Annotated[Service, Depends(service_of)],
) -> dict[str, Any]:
    """The passages of the live release's index that fit best, with their texts, screened as for an answer."""
    limits = service.config.limits
    query = checked_text(asked.query, limits.question_characters, "query")
    if asked.k > limits.passages:
        raise ServiceError(400, f"k is {asked.k}: at most {limits.passages}", "too_many", "k")
    tenant = tenant_of(key, asked.tenant)
    filters = Filters(
        tenant=tenant,
        language=asked.language,
        source=asked.source,
        tags=tuple(asked.tags),
        date_from=asked.date_from,
        date_to=asked.date_to,
        document_prefix=asked.document_prefix,
    )
    search_id = service.traces.new_id("search")
    request.scope["tandem"]["id"] = search_id
    tags = {TENANT_TAG: tenant or "", KEY_TAG: key.id}
    found = await service.run(key, partial(_search, service, query, asked.k, asked.mode, filters, search_id, tags))
    return {
        "id": search_id,
        "object": "list",
        "data": [place_of(passage, True) for passage in found.passages],
        "filtered": [asdict(each) for each in found.filtered],
        "versions": found.versions,
    }


def _search(
    service: Service,
    query: str,
    k: int,
    mode: Mode | None,
    filters: Filters,
    search_id: str,
    tags: Mapping[str, str],
) -> Searched:
    """In a thread; a trace holds no more of the query than one of an answer does."""
    assistant = service.live.assistant
    policy, seconds = assistant.policy.filters, dict[str, float]()
    versions = {name: assistant.versions[name] for name in ("release", "index")}
    with service.traces.failures(search_id, SEARCH, versions, tags):
        with timed(seconds, "search"):
            found = assistant.search(query, filters, SPARE * k, mode=mode)
        with timed(seconds, "filters"):
            screened, filtered = screen_passages(found.passages, k, policy)
    searched = Searched(screened, versions, seconds, filtered)
    if is_traced(search_id):
        ended, asked = time.time_ns(), screen_question(query, policy).text
        service.traces.keep(record_of_search(search_id, asked, searched, ended, service.config.tracing.texts, tags))
    return searched
