"""The outermost layer: bounds what arrives, counts and logs what leaves, and lets no traceback out."""

import asyncio
import json
import logging
import time
import traceback
from collections.abc import MutableMapping
from typing import Any

from starlette.requests import ClientDisconnect
from starlette.types import ASGIApp, Message, Receive, Scope, Send

from tasks.answering.service.errors import error_response
from tasks.answering.service.metrics import Metrics
from tasks.config.service import LimitsConfig

log = logging.getLogger(__name__)

CLOSE = {"Connection": "close"}
"""What follows on the connection is the rest of a request that is not read."""


class Guard:
    """Reads each request whole before it goes on, and no more of it than may be.

    The log says who asked for what and how it ended: the route and not the path, the id of the key and not the key,
    and no text. Handlers add to it in ``scope["tandem"]``.
    """

    def __init__(self, app: ASGIApp, limits: LimitsConfig, metrics: Metrics) -> None:
        self._app, self._limits, self._metrics = app, limits, metrics

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        if scope["type"] != "http":
            await self._app(scope, receive, send)
            return
        noted: MutableMapping[str, Any] = {}
        scope["tandem"] = noted
        begun, status = time.perf_counter(), 0

        async def watched(message: Message) -> None:
            nonlocal status
            if message["type"] == "http.response.start":
                status = message["status"]
            await send(message)

        try:
            await self._answer(scope, receive, watched)
        except ClientDisconnect:
            status = status or 499  # as nginx calls it: nobody is there to read an answer
        except Exception as error:
            noted["error"] = _where(error)
            if status:
                raise ConnectionAbortedError("the answer broke off") from None
            await error_response(500, "something went wrong here: it is in the log", "internal")(
                scope, receive, watched
            )
        finally:
            self._note(scope, status, time.perf_counter() - begun)

    async def _answer(self, scope: Scope, receive: Receive, send: Send) -> None:
        try:
            async with asyncio.timeout(self._limits.receive_seconds):
                body = await self._read(receive)
        except TimeoutError:
            await error_response(408, "the request did not arrive in time", "timeout", headers=CLOSE)(
                scope, receive, send
            )
            return
        if body is None:
            too_large = f"the request is larger than {self._limits.body_kb} KB"
            await error_response(413, too_large, "too_large", headers=CLOSE)(scope, receive, send)
            return
        await self._app(scope, _replay(body, receive), send)

    async def _read(self, receive: Receive) -> bytes | None:
        """The body; None as soon as it is known to be too large."""
        parts, size = [], 0
        while True:
            message = await receive()
            if message["type"] == "http.disconnect":
                raise ClientDisconnect
            parts.append(message.get("body", b""))
            size += len(parts[-1])
            if size > self._limits.body_kb * 1024:
                return None
            if not message.get("more_body"):
                return b"".join(parts)

    def _note(self, scope: Scope, status: int, seconds: float) -> None:
        route = getattr(scope.get("route"), "path", "other")
        self._metrics.requests.labels(route, str(status)).inc()
        self._metrics.seconds.labels(route).observe(seconds)
        line = {"route": route, "status": status, "ms": round(seconds * 1000, 1), **scope["tandem"]}
        log.log(logging.ERROR if status >= 500 else logging.INFO, "%s", json.dumps(line))


def _replay(body: bytes, receive: Receive) -> Receive:
    read = False

    async def replayed() -> Message:
        nonlocal read
        if read:
            return await receive()
        read = True
        return {"type": "http.request", "body": body, "more_body": False}

    return replayed


def _where(error: Exception) -> str:
    """The kind of an unforeseen error and the lines it went through; its message may hold a text."""
    lines = [f"{frame.name}:{frame.lineno}" for frame in traceback.extract_tb(error.__traceback__)[-5:]]
    return f"{type(error).__name__} in {' > '.join(lines)}"
