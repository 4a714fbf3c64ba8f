"""What every handler works with: the live release, the callers' keys, the threads, what is kept; and who is asking."""

from collections.abc import Awaitable, Callable
from dataclasses import dataclass, field
from typing import Annotated, TypeVar

from fastapi import Depends, Request

from tasks.answering.service.admission import Admission, Limit, Pace
from tasks.answering.service.errors import ServiceError
from tasks.answering.service.keys import ANYBODY, Key, Keys, Right
from tasks.answering.service.live import LiveRelease
from tasks.answering.service.metrics import Metrics
from tasks.answering.service.tracing import Traces
from tasks.answering.service.trial import Trial
from tasks.config.service import ServiceConfig
from tasks.config.settings import Home
from tasks.registry.connection import MlflowClient

T = TypeVar("T")
LOCAL_HOSTS = ("127.0.0.1", "localhost", "::1")


@dataclass(frozen=True)
class Service:
    """One release, served."""

    live: LiveRelease
    config: ServiceConfig
    keys: Keys
    open: bool
    """Whether everybody on this machine is answered as long as there is no file of keys."""
    admission: Admission
    """The threads that answer and search."""
    desk: Admission
    """The threads that take feedback, which waits for MLflow: they are few, and never those that answer."""
    traces: Traces
    client: MlflowClient
    metrics: Metrics
    home: Home
    """Of the installation that it belongs to."""
    trial: Trial | None = None
    """Of the release that waits, where the settings ask for one."""
    pace: Pace = field(default_factory=Pace)
    """How fast each key asks."""

    async def run(self, key: Key, work: Callable[[], T]) -> T:
        """Answer or search in a thread. Raises what `Admission.run` raises."""
        return await self.admission.run(
            work, self.config.limits.seconds, key.id, self.limit_of(key, "requests_at_once")
        )

    def limit_of(self, key: Key, limit: Limit) -> int:
        """The key's own, or that of the settings; 0 where there is none."""
        own: int | None = getattr(key, limit)
        return int(getattr(self.config.limits, limit)) if own is None else own


async def service_of(request: Request) -> Service:
    found: Service = request.app.state.service
    return found


def key_of(request: Request, service: Service) -> Key:
    """Who is asking. Raises ServiceError where nobody says so, or nobody knows them."""
    if service.open and not service.keys.file.exists():
        _check_host(request)
        return ANYBODY
    scheme, _, presented = request.headers.get("authorization", "").partition(" ")
    if scheme.lower() != "bearer" or not presented.strip():
        raise ServiceError(401, "no key was given: send it as `Authorization: Bearer KEY`", "invalid_api_key")
    key = service.keys.find(presented.strip())
    if key is None:
        raise ServiceError(401, "the key is not known here: it may have been revoked", "invalid_api_key")
    request.scope["tandem"]["key"] = key.id
    return key


def needs(right: Right) -> Callable[..., Awaitable[Key]]:
    """For a handler that only those with this right may use, as often as they may; who monitors always may."""

    async def allowed(request: Request, service: Annotated[Service, Depends(service_of)]) -> Key:
        key = key_of(request, service)
        if not key.may(right):
            raise ServiceError(403, f"this key has no right to {right}: it has {', '.join(key.rights)}", "no_right")
        if right != "monitor":
            service.pace.take(key.id, service.limit_of(key, "requests_per_minute"))
        return key

    return allowed


def tenant_of(key: Key, asked: str | None) -> str | None:
    """Whose passages are searched; None for everybody's. A key of a tenant never reaches another's."""
    if key.tenant is None:
        return asked
    if asked not in (None, key.tenant):
        raise ServiceError(
            403, f"this key is one of {key.tenant} and reaches no other tenant", "other_tenant", "tenant"
        )
    return key.tenant


def _check_host(request: Request) -> None:
    """A web page elsewhere must not reach a service without keys through its reader's browser (DNS rebinding)."""
    if request.url.hostname not in LOCAL_HOSTS:
        raise ServiceError(403, "without keys only requests to localhost are answered: make a key", "not_local")
