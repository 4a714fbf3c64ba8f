"""What machines ask: whether it lives, whether it can answer, and the figures."""

from datetime import UTC, datetime
from typing import Annotated

from fastapi import APIRouter, Depends, Request, Response
from fastapi.concurrency import run_in_threadpool
from fastapi.responses import JSONResponse
from prometheus_client import CONTENT_TYPE_LATEST, generate_latest

from tasks.answering.service.errors import ServiceError
from tasks.answering.service.keys import Key
from tasks.answering.service.state import Service, key_of, needs, service_of
from tasks.config.health import read_health
from tasks.errors import ConfigError

router = APIRouter()
Serving = Annotated[Service, Depends(service_of)]


@router.get("/healthz")
async def healthz() -> dict[str, str]:
    """Whether the process answers at all."""
    return {"status": "alive"}


@router.get("/readyz")
async def readyz(request: Request, service: Serving) -> JSONResponse:
    """Whether questions are answered. The details are for those with the right to monitor.

    A release answers from before the first request on, so what can end that is a file of keys that lets nobody in.
    Where anything else is wrong, with what is live or with the installation, it is degraded, and goes on answering.
    """
    try:
        service.keys.all()
    except ConfigError:
        return JSONResponse({"status": "not ready", "problems": ["the keys cannot be read"]}, 503)
    live, failed = service.live, service.live.failed
    trial = service.trial
    around = await run_in_threadpool(read_health, service.home, datetime.now(UTC))
    problems = [*live.problems, *(trial.problems if trial else ()), *around]
    status = "degraded" if problems else "ready"
    if not _may_monitor(request, service):
        return JSONResponse({"status": status})
    details = {
        "problems": problems,
        "versions": dict(live.assistant.versions),
        "wanted": failed.number if failed else live.number,
        "registry": "answers" if live.registry_answers else "does not answer",
        "taken": service.admission.taken,
        "tried": trial.contest.candidate if trial and trial.contest else None,
    }
    return JSONResponse({"status": status, **details})


@router.get("/metrics")
async def metrics(service: Serving, key: Annotated[Key, Depends(needs("monitor"))]) -> Response:
    """For Prometheus."""
    return Response(generate_latest(service.metrics.registry), media_type=CONTENT_TYPE_LATEST)


def _may_monitor(request: Request, service: Service) -> bool:
    try:
        return key_of(request, service).may("monitor")
    except ServiceError:
        return False
