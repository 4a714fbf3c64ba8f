"""What people say of an answer, or of what was found: `/v1/feedback`, kept on its trace in MLflow."""

import re
from functools import partial
from typing import Annotated, Any, Literal

from fastapi import APIRouter, Depends
from pydantic import BaseModel, ConfigDict, Field

from tasks.answering.service.errors import ServiceError
from tasks.answering.service.keys import Key
from tasks.answering.service.state import Service, needs, service_of
from tasks.answering.service.tracing import RELEASE_TAG, TENANT_TAG
from tasks.registry.traces import ANSWER, NAME_TAG, assess, trace_tags

router = APIRouter()
TRACE_ID = re.compile(r"tr-[0-9a-f]{32}")
SECONDS = 20.0


class FeedbackRequest(BaseModel):
    """About one answer: a thumb, what it should have been, or both."""

    model_config = ConfigDict(extra="forbid")

    id: str
    """The `id` of the response."""
    thumb: Literal["up", "down"] | None = None
    correction: str = Field("", max_length=20_000)
    comment: str = Field("", max_length=20_000)
    """Why; goes with a thumb."""


@router.post("/v1/feedback", status_code=201)
async def feedback(
    said: FeedbackRequest,
    key: Annotated[Key, Depends(needs("feedback"))],
    service: Annotated[Service, Depends(service_of)],
) -> dict[str, Any]:
    """Keep a thumb or a correction as assessments of the answer's trace."""
    if said.thumb is None and not said.correction:
        raise ServiceError(400, "say something of the answer: a thumb (up, down) or a correction", "empty", "thumb")
    if said.comment and said.thumb is None:
        raise ServiceError(400, "a comment goes with a thumb: up or down", "empty", "thumb")
    at_once = service.limit_of(key, "requests_at_once")
    kept = await service.desk.run(partial(_keep, service, said, key), SECONDS, key.id, at_once)
    return {"object": "feedback", "id": said.id, "assessments": kept}


def _keep(service: Service, said: FeedbackRequest, key: Key) -> list[str]:
    unknown = ServiceError(404, "there is no trace of such an answer: it may not have been traced", "not_found", "id")
    if not TRACE_ID.fullmatch(said.id):
        raise unknown
    service.traces.wait_for(said.id)
    tags = trace_tags(service.client, said.id)
    if tags is None or tags.get(RELEASE_TAG, "").partition("@")[0] != service.live.name:
        raise unknown
    if key.tenant is not None and tags.get(TENANT_TAG) != key.tenant:
        raise unknown  # not even that there is one
    thumb = None if said.thumb is None else said.thumb == "up"
    by = key.id or "anybody"
    kept = assess(service.client, said.id, by=by, thumb=thumb, correction=said.correction, comment=said.comment)
    if service.trial and thumb is not None and tags.get(NAME_TAG) == ANSWER:
        service.trial.thumb(said.id, tags[RELEASE_TAG], thumb)
    return kept
