"""Every error in OpenAI's format, so that its clients show the sentence; none with a text of the caller's or ours."""

from collections.abc import Mapping, Sequence
from typing import Any

from fastapi import FastAPI, Request
from fastapi.exceptions import RequestValidationError
from fastapi.responses import JSONResponse
from starlette.exceptions import HTTPException

from tasks.answering.service.admission import RETRY_SECONDS, LimitedError, OverloadedError
from tasks.errors import AnswerError, ConfigError, ModelError, RegistryError, SchemaError, TandemError


class ServiceError(Exception):
    """An answer that is no answer: an HTTP status, and a sentence for the caller."""

    def __init__(self, status: int, sentence: str, code: str = "", param: str | None = None) -> None:
        super().__init__(sentence)
        self.status, self.sentence, self.code, self.param = status, sentence, code, param


def error_response(
    status: int, sentence: str, code: str = "", param: str | None = None, headers: Mapping[str, str] | None = None
) -> JSONResponse:
    """In OpenAI's format. What may work later says when."""
    kind = {401: "authentication_error", 403: "permission_error", 429: "rate_limit_error"}.get(status)
    kind = kind or ("invalid_request_error" if status < 500 else "server_error")
    every = dict(headers or {})
    if status == 503:
        every.setdefault("Retry-After", str(RETRY_SECONDS))
    body = {"error": {"message": sentence, "type": kind, "param": param, "code": code or None}}
    return JSONResponse(body, status, every)


def explain_errors(app: FastAPI) -> None:
    """Let everything that is raised on purpose become a response."""
    app.add_exception_handler(ServiceError, _said)
    app.add_exception_handler(RequestValidationError, _invalid)
    app.add_exception_handler(HTTPException, _http)
    app.add_exception_handler(OverloadedError, _overloaded)
    app.add_exception_handler(LimitedError, _limited)
    app.add_exception_handler(TimeoutError, _too_late)
    app.add_exception_handler(TandemError, _failed)


async def _said(request: Request, error: Exception) -> JSONResponse:
    assert isinstance(error, ServiceError)
    headers = {"WWW-Authenticate": "Bearer"} if error.status == 401 else None
    return error_response(error.status, error.sentence, error.code, error.param, headers)


async def _invalid(request: Request, error: Exception) -> JSONResponse:
    assert isinstance(error, RequestValidationError)
    first = error.errors()[0]
    place = ".".join(str(part) for part in _place(first["loc"])) or "the body"
    return error_response(400, f"{place}: {first['msg']}", "invalid_value", place)


def _place(location: Sequence[Any]) -> Sequence[Any]:
    return location[1:] if location[:1] == ("body",) else location


async def _http(request: Request, error: Exception) -> JSONResponse:
    assert isinstance(error, HTTPException)
    return error_response(
        error.status_code, f"{error.detail}: see /openapi.json for what there is", headers=error.headers
    )


async def _overloaded(request: Request, error: Exception) -> JSONResponse:
    return error_response(503, "too many requests are being answered: try again in a moment", "overloaded")


async def _limited(request: Request, error: Exception) -> JSONResponse:
    assert isinstance(error, LimitedError)
    request.app.state.service.metrics.limited.labels(error.limit).inc()
    headers = {"Retry-After": str(error.seconds)}
    return error_response(429, error.sentence, "rate_limit_exceeded", headers=headers)


async def _too_late(request: Request, error: Exception) -> JSONResponse:
    return error_response(504, "the answer took longer than it may: ask for less, or try again later", "timeout")


async def _failed(request: Request, error: Exception) -> JSONResponse:
    """What failed is logged by its kind alone: its message may hold what a server said of the texts it was sent."""
    request.scope["tandem"]["error"] = " from ".join(_kinds(error))
    if isinstance(error, SchemaError):
        return error_response(400, str(error), "invalid_schema", "response_format")
    if isinstance(error, AnswerError):
        return error_response(502, str(error), "invalid_answer")
    if isinstance(error, ModelError):
        return error_response(502, "the model that writes the answers does not answer", "model_error")
    if isinstance(error, RegistryError):
        return error_response(503, "the registry does not answer: try again later", "registry_error")
    if isinstance(error, ConfigError):
        return error_response(503, "the service is not configured as it must be: see its /readyz", "config_error")
    return error_response(503, "what is searched cannot be read just now", "store_error")


def _kinds(error: BaseException | None) -> list[str]:
    kinds = []
    while error:
        kinds.append(type(error).__name__)
        error = error.__cause__
    return kinds
