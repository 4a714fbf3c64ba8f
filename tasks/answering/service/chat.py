"""Questions in OpenAI's format for chats: `/v1/chat/completions` and the model that it knows, the release."""

import json
import re
import time
from collections.abc import AsyncIterator, Iterator, Mapping
from dataclasses import asdict, replace
from functools import partial
from typing import Annotated, Any, Literal

from fastapi import APIRouter, Depends, Request
from fastapi.responses import JSONResponse, Response, StreamingResponse
from pydantic import BaseModel, Field

from tasks.answering.assistant import Assistant
from tasks.answering.generators import Turn
from tasks.answering.service.errors import ServiceError
from tasks.answering.service.keys import Key
from tasks.answering.service.state import Service, needs, service_of, tenant_of
from tasks.answering.service.tracing import KEY_TAG, TENANT_TAG, is_traced, record_of
from tasks.answering.service.trial import Asked, Conversation
from tasks.answering.structured import read_response_format
from tasks.records import Answer, Passage
from tasks.registry.traces import ANSWER

router = APIRouter()
Asking = Annotated[Key, Depends(needs("chat"))]
Serving = Annotated[Service, Depends(service_of)]
PIECE = re.compile(r"(?<=[.!?\]])(?=\s+[^\s\[])")
"""Between two sentences, after the marks of the first."""


class Part(BaseModel):
    """A piece of a message."""

    type: str
    text: str = ""


class Message(BaseModel):
    """A turn of the conversation."""

    role: Literal["user", "assistant", "system", "developer", "tool", "function"]
    content: str | list[Part] | None = None

    @property
    def parts(self) -> list[Part]:
        content = self.content or ""
        return [Part(type="text", text=content)] if isinstance(content, str) else content

    @property
    def text(self) -> str:
        return "\n".join(part.text for part in self.parts)


class StreamOptions(BaseModel):
    """What a stream holds beside the answer."""

    include_usage: bool = False


class ChatRequest(BaseModel):
    """As OpenAI has it, and `tenant`.

    How the answer is made is the release's matter, so temperature, max_tokens and the like are taken and have no
    effect. What would make the answer another thing than the caller counts on is refused: see `check`.
    """

    model: str
    messages: list[Message] = Field(min_length=1, max_length=1000)
    stream: bool = False
    stream_options: StreamOptions | None = None
    tenant: str | None = Field(None, min_length=1, max_length=200)
    cite: bool = False
    """Whether the answer must name its sources: it is then never made without a search."""
    user: str | None = Field(None, max_length=1000)
    """Who asks, for a caller that asks for many: a candidate on trial gets all of a conversation or nothing."""
    n: int | None = None
    tools: list[Any] | None = None
    functions: list[Any] | None = None
    response_format: dict[str, Any] | None = None

    @property
    def structured(self) -> bool:
        """Whether the answer is to be JSON."""
        return (self.response_format or {}).get("type", "text") != "text"

    def check(self) -> None:
        """Raises ServiceError for what this service does not do."""
        if self.tools or self.functions:
            raise ServiceError(400, "this service calls no tools", "unsupported", "tools")
        if self.n not in (None, 1):
            raise ServiceError(400, "there is one answer to a question: leave n out", "unsupported", "n")
        if roles := sorted({message.role for message in self.messages} - {"user", "assistant"}):
            raise ServiceError(
                400,
                f"the release brings its own prompt, which a caller cannot replace: leave {roles[0]} messages out",
                "unsupported",
                "messages",
            )

    def conversation(self, key: Key, longest: int) -> Conversation:
        """Known by who asks and by how it begins, since chat clients send every turn again."""
        turns = [message.model_dump_json() for message in self.messages if message.role == "user"]
        mark = "\0".join((key.id, self.tenant or "", self.user or "", *turns[:1]))
        return Conversation(mark, len(turns) == 1, tuple(self.earlier(longest)))

    def question(self, longest: int) -> str:
        """The last message of the user.

        Raises ServiceError where there is none, or it is too long or no text.
        """
        asked = [message for message in self.messages if message.role == "user"]
        if not asked:
            raise ServiceError(400, "no message is the user's: there is nothing to answer", "no_question", "messages")
        if any(part.type != "text" for part in asked[-1].parts):
            raise ServiceError(400, "questions are text: leave images and sound out", "unsupported", "messages")
        return checked_text(asked[-1].text, longest, "messages")

    def earlier(self, longest: int) -> Iterator[Turn]:
        """What was said before the last question; what is longer than a question may be is cut."""
        last = max(place for place, message in enumerate(self.messages) if message.role == "user")
        for message in self.messages[:last]:
            yield {"role": message.role, "content": message.text[:longest]}


def checked_text(text: str, longest: int, param: str) -> str:
    """Raises ServiceError for a question that is empty or too long."""
    if not text.strip():
        raise ServiceError(400, "the question is empty", "no_question", param)
    if len(text) > longest:
        raise ServiceError(400, f"the question has {len(text)} characters: at most {longest}", "too_long", param)
    return text.strip()


@router.post("/v1/chat/completions")
async def chat(asked: ChatRequest, request: Request, key: Asking, service: Serving) -> Response:
    """Answer the last question of the conversation, with its sources and the versions that answered."""
    check_model(asked.model, service)
    asked.check()
    longest = service.config.limits.question_characters
    question, conversation = asked.question(longest), asked.conversation(key, longest)
    tenant = tenant_of(key, asked.tenant)
    answer_id = service.traces.new_id("chatcmpl")
    request.scope["tandem"]["id"] = answer_id
    tags = {TENANT_TAG: tenant or "", KEY_TAG: key.id}
    wanted = Asked(question, tenant, asked.cite, conversation)
    answer = await service.run(key, partial(_answer, service, wanted, asked.response_format, answer_id, tags))
    service.metrics.answered(answer)
    head = {"id": answer_id, "created": int(time.time()), "model": answer.versions["release"]}
    headers = {"Server-Timing": ", ".join(f"{step};dur={lasted * 1000:.3f}" for step, lasted in answer.seconds.items())}
    sources = sources_of(answer, service.config.passage_texts)
    said = _said(answer, asked.structured)
    if asked.stream:
        with_usage = asked.stream_options is not None and asked.stream_options.include_usage
        return StreamingResponse(_stream(head, answer, said, sources, with_usage), 200, headers, "text/event-stream")
    message = {"role": "assistant"} | said
    choice = {"index": 0, "message": message, "finish_reason": _finish_reason(answer), "logprobs": None}
    body = {**head, "object": "chat.completion", "choices": [choice], "usage": _usage(answer), **sources}
    return JSONResponse(body, headers=headers)


@router.get("/v1/models")
async def models(key: Asking, service: Serving) -> dict[str, Any]:
    """The one model: the release."""
    return {"object": "list", "data": [_model(service)]}


@router.get("/v1/models/{model}")
async def model(model: str, key: Asking, service: Serving) -> dict[str, Any]:
    """The release, and which of its versions answers now."""
    check_model(model, service)
    return _model(service)


def check_model(model: str, service: Service) -> None:
    """Raises ServiceError for a model that is not the release."""
    name = service.live.name
    if model != name:
        raise ServiceError(404, f"there is no such model here: the release is {name}", "model_not_found", "model")


def sources_of(answer: Answer, with_texts: bool) -> dict[str, Any]:
    """What an answer carries beside OpenAI's fields."""
    cited = sorted({number for sentence in answer.sentences for number in sentence.cited})
    return {
        "question": answer.question,
        "citations": [{"number": number, **place_of(answer.passages[number - 1], with_texts)} for number in cited],
        "versions": answer.versions,
        "refused": answer.refused,
        "alone": answer.alone,
        "conflict": [asdict(each) for each in answer.conflict],
        "filtered": [asdict(each) for each in answer.filtered],
        "confidence": answer.confidence,
    }


def place_of(passage: Passage, with_text: bool) -> dict[str, Any]:
    """Where a passage stands and how well it fits, JSON-safe."""
    names = ("id", "document", "title", "start", "end", "tenant", "language", "date", "stale", "score", "similarity")
    place = {name: getattr(passage, name) for name in names} | {"heading": list(passage.heading)}
    return place | {"tags": list(passage.tags)} | ({"text": passage.text} if with_text else {})


def _answer(
    service: Service,
    asked: Asked,
    response_format: Mapping[str, Any] | None,
    answer_id: str,
    tags: Mapping[str, str],
) -> Answer:
    """In a thread: the whole answer comes from the release that is live when its turn comes, or from one on trial.

    What is wrong with the request's schema is nobody's failure, and is said before either is asked.
    """
    assistant: Assistant = service.live.assistant
    if schema := read_response_format(response_format):
        assistant.check_structured()
        asked = replace(asked, schema=schema)
    with service.traces.failures(answer_id, ANSWER, assistant.versions, tags):
        answer = service.trial.answer(assistant, asked) if service.trial else asked.answer(assistant)
    if is_traced(answer_id):
        service.traces.keep(record_of(answer_id, answer, time.time_ns(), service.config.tracing.texts, tags))
    return answer


def _model(service: Service) -> dict[str, Any]:
    return {
        "id": service.live.name,
        "object": "model",
        "created": 0,
        "owned_by": "tandem",
        "versions": dict(service.live.assistant.versions),
    }


def _said(answer: Answer, structured: bool) -> dict[str, str | None]:
    """What was to be JSON and is none stands where OpenAI's clients look for a refusal, and never in its place."""
    if structured and answer.refused:
        return {"content": None, "refusal": answer.text}
    return {"content": answer.text}


def _finish_reason(answer: Answer) -> str:
    return "length" if answer.cut else "stop"


def _usage(answer: Answer) -> dict[str, int]:
    read, written = answer.tokens_in, answer.tokens_out
    return {"prompt_tokens": read, "completion_tokens": written, "total_tokens": read + written}


async def _stream(
    head: Mapping[str, Any], answer: Answer, said: Mapping[str, Any], sources: Mapping[str, Any], with_usage: bool
) -> AsyncIterator[bytes]:
    for event in _events(head, answer, said, sources, with_usage):
        yield f"data: {json.dumps(event, ensure_ascii=False)}\n\n".encode()
    yield b"data: [DONE]\n\n"


def _events(
    head: Mapping[str, Any], answer: Answer, said: Mapping[str, Any], sources: Mapping[str, Any], with_usage: bool
) -> Iterator[dict[str, Any]]:
    """A sentence an event; the last one of the answer carries its sources."""

    def event(choices: list[dict[str, Any]], **more: Any) -> dict[str, Any]:
        return {**head, "object": "chat.completion.chunk", "choices": choices, **more}

    def choice(delta: dict[str, str], finish: str | None = None) -> list[dict[str, Any]]:
        return [{"index": 0, "delta": delta, "finish_reason": finish, "logprobs": None}]

    written = [(field, text) for field, text in said.items() if text is not None]
    yield event(choice({"role": "assistant"} | {field: "" for field, _ in written}))
    for field, text in written:
        for piece in PIECE.split(text):
            yield event(choice({field: piece}))
    yield event(choice({}, _finish_reason(answer)), **sources)
    if with_usage:
        yield event([], usage=_usage(answer))
