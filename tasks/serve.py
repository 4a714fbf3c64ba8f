"""Serves a release over HTTP: `tandem serve`. Needs no Prefect, and loads none."""

import logging
import socket
from collections.abc import Callable

import uvicorn

from tasks.answering.service.admission import Admission
from tasks.answering.service.app import create_app
from tasks.answering.service.keys import Keys
from tasks.answering.service.metrics import Metrics
from tasks.answering.service.state import Service
from tasks.answering.service.tracing import Traces
from tasks.config.service import ServiceConfig
from tasks.config.settings import Home
from tasks.errors import ConfigError
from tasks.logs import log_to_standard_error
from tasks.registry.connection import MlflowClient, connect
from tasks.registry.trace_writer import TraceWriter
from tasks.registry.traces import experiment_of
from tasks.releases import live_release
from tasks.trial import open_trial

DESK_WORKERS, DESK_WAITING = 2, 32
BACKLOG = 2048
END_SECONDS = 10


def open_service(name: str, config: ServiceConfig, home: Home) -> Service:
    """Everything that answers, opened. Raises a TandemError where the release does not load, or nobody could ask."""
    keys = Keys(config.keys_file(home))
    if not config.loopback and not keys.all():
        raise ConfigError(
            f"{config.host} can be reached from elsewhere, and there is no key, so nobody would be answered: make one "
            "with `tandem keys add NAME`, or listen on 127.0.0.1"
        )
    client = connect(home)
    limits = config.limits
    live = live_release(name, home, config)
    return Service(
        live=live,
        config=config,
        keys=keys,
        open=config.loopback and not keys.file.exists(),
        admission=Admission(limits.workers, limits.waiting, "answer"),
        desk=Admission(DESK_WORKERS, DESK_WAITING, "desk"),
        traces=Traces(config.tracing, _writer(name, config, client)),
        client=client,
        metrics=Metrics(),
        home=home,
        trial=open_trial(live, config, home, client),
    )


def serve(name: str, config: ServiceConfig, home: Home, started: Callable[[Service, str], None]) -> None:
    """Answer until the process is told to end; `started` gets the service and its address."""
    service = open_service(name, config, home)
    listening = listen(config)
    started(service, f"http://{_host(config.host)}:{listening.getsockname()[1]}")
    log_to_standard_error({"tasks.answering.service": logging.INFO, "uvicorn": logging.WARNING})
    server_of(service).run(sockets=[listening])


def server_of(service: Service) -> uvicorn.Server:
    """The server, not started."""
    config = uvicorn.Config(
        create_app(service),
        log_config=None,
        limit_concurrency=service.config.limits.connections,
        timeout_graceful_shutdown=END_SECONDS,
        server_header=False,
    )
    logging.getLogger("uvicorn.access").disabled = True  # it holds whole addresses; the service has a log of its own
    return uvicorn.Server(config)


def _writer(name: str, config: ServiceConfig, client: MlflowClient) -> TraceWriter | None:
    if not config.tracing.enabled:
        return None
    experiment = config.tracing.experiment or f"answers-{name}"
    return TraceWriter(client.tracking_uri, experiment_of(client, experiment))


def listen(config: ServiceConfig) -> socket.socket:
    """The socket that the service listens on. Raises ConfigError where that cannot be."""
    family = socket.AF_INET6 if ":" in config.host else socket.AF_INET
    # asyncio sends at once only where the protocol is named; an answer would wait 40 ms for the client's receipt
    listening = socket.socket(family, socket.SOCK_STREAM, socket.IPPROTO_TCP)
    listening.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
    try:
        listening.bind((config.host, config.port))
        listening.listen(BACKLOG)
    except OSError as error:
        listening.close()
        raise ConfigError(f"cannot listen at {config.host} port {config.port}: {error.strerror or error}") from None
    return listening


def _host(host: str) -> str:
    return f"[{host}]" if ":" in host else host
