"""``python -m tasks.prefect_server PORT``: what `prefect server start` runs, with pages that ask no other server.

Prefect's page loads Amplitude's telemetry whatever its settings say (3.8.8); a content-security policy keeps it in.
"""

import sys

import uvicorn
from prefect.server.api.server import create_app
from prefect.settings import get_current_settings
from starlette.datastructures import MutableHeaders
from starlette.types import ASGIApp, Message, Receive, Scope, Send

from tasks.programs import HOST

POLICY = (
    "default-src 'self'; connect-src 'self'; script-src 'self' 'unsafe-inline' 'unsafe-eval'; worker-src 'self' blob:; "
    "style-src 'self' 'unsafe-inline'; img-src 'self' data: blob: https:; font-src 'self' data:"
)
"""Scripts and data come from this server alone. Pictures may come from elsewhere: the logos of blocks do."""


def with_policy(app: ASGIApp) -> ASGIApp:
    """The application, whose answers carry the policy."""

    async def answer(scope: Scope, receive: Receive, send: Send) -> None:
        async def send_with_policy(message: Message) -> None:
            if message["type"] == "http.response.start":
                MutableHeaders(scope=message)["Content-Security-Policy"] = POLICY
            await send(message)

        await app(scope, receive, send_with_policy)

    return answer


def main() -> None:
    settings = get_current_settings().server
    uvicorn.run(
        with_policy(create_app(final=True)),
        host=HOST,
        port=int(sys.argv[1]),
        timeout_keep_alive=settings.api.keepalive_timeout,
        ws_ping_interval=settings.api.websocket_ping_interval,
        ws_ping_timeout=settings.api.websocket_ping_timeout,
        log_level=settings.logging_level.lower(),
    )


if __name__ == "__main__":
    main()
