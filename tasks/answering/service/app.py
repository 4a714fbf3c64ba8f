"""The service as an ASGI application."""

from collections.abc import AsyncIterator
from contextlib import asynccontextmanager

from fastapi import FastAPI

from tasks.answering.service import chat, feedback, finding, health
from tasks.answering.service.errors import explain_errors
from tasks.answering.service.guard import Guard
from tasks.answering.service.live import Follower
from tasks.answering.service.state import Service


def create_app(service: Service) -> FastAPI:
    """Follows the registry and writes traces while it runs."""

    @asynccontextmanager
    async def running(app: FastAPI) -> AsyncIterator[None]:
        follower = Follower(service.live, service.config.poll_seconds)
        follower.start()
        service.traces.start()
        if service.trial:
            service.trial.start()
        yield
        follower.stop()
        if service.trial:
            service.trial.stop()
        service.admission.close()
        service.desk.close()
        service.traces.stop()

    # the pages that show the interface load scripts from elsewhere; /openapi.json is there for any other tool
    app = FastAPI(title="Tandem", docs_url=None, redoc_url=None, lifespan=running)
    app.state.service = service
    service.metrics.watch(service.live, lambda: service.admission.taken, service.traces, service.trial)
    for part in (chat, finding, feedback, health):
        app.include_router(part.router)
    explain_errors(app)
    app.add_middleware(Guard, limits=service.config.limits, metrics=service.metrics)
    return app
