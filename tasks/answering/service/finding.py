"""Passages without an answer: `/v1/search`."""

from collections.abc import Sequence
from dataclasses import asdict
from datetime import date
from functools import partial
from typing import Annotated, Any

from fastapi import APIRouter, Depends, Request
from pydantic import BaseModel, ConfigDict, Field

from tasks.answering.assistant import SPARE
from tasks.answering.filters import screen_passages
from tasks.answering.service.chat import checked_text, place_of
from tasks.answering.service.errors import ServiceError
from tasks.answering.service.keys import Key
from tasks.answering.service.state import Service, needs, service_of, tenant_of
from tasks.index.search import Filters, Mode
from tasks.records import Filtered, Passage

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
    filters = Filters(
        tenant=tenant_of(key, asked.tenant),
        language=asked.language,
        source=asked.source,
        tags=tuple(asked.tags),
        date_from=asked.date_from,
        date_to=asked.date_to,
        document_prefix=asked.document_prefix,
    )
    work = partial(_search, service, query, asked.k, asked.mode, filters)
    passages, filtered, versions = await service.admission.run(work, limits.seconds)
    return {
        "object": "list",
        "data": [place_of(passage, True) for passage in passages],
        "filtered": [asdict(each) for each in filtered],
        "versions": versions,
    }


def _search(
    service: Service, query: str, k: int, mode: Mode | None, filters: Filters
) -> tuple[Sequence[Passage], Sequence[Filtered], dict[str, str]]:
    assistant = service.live.assistant
    found = assistant.search(query, filters, SPARE * k, mode=mode)
    passages, filtered = screen_passages(found.passages, k, assistant.policy.filters)
    return passages, filtered, {name: assistant.versions[name] for name in ("release", "index")}
