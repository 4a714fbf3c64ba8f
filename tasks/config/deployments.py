"""What conf/deployments.yaml holds: which flow runs with which configuration, when, and on which work pool."""

from zoneinfo import ZoneInfo

from pydantic import Field, field_validator

from tasks.config.fields import Strict


class WorkPool(Strict):
    """A pool of process workers."""

    name: str
    """Name that deployments refer to."""
    limit: int | None = Field(None, ge=1)
    """Most flow runs at a time; no limit if empty."""


class Deployment(Strict):
    """A flow that Prefect can start: by its schedule, from its form, or by an automation."""

    name: str
    """Name of the deployment, unique for its flow."""
    flow: str
    """Entrypoint, such as flows/reindex.py:reindex."""
    description: str = ""
    """Shown in the Prefect UI."""
    config: str | None = None
    """YAML file that fills the form's `config`."""
    cron: str | None = None
    """When it runs by itself; never if empty."""
    work_pool: str = "cpu"
    """The work pool whose workers run it."""
    limit: int | None = Field(1, ge=1)
    """Most runs of it at a time, the others wait; no limit if empty. The slot is leased: a run of hours would end when
    the server is away for minutes, so leave such runs to the limit of their work pool."""
    retry_crashed: int = Field(0, ge=0, le=100)
    """How often a run whose process or worker was killed is started again, as the same flow run."""


class DeploymentsConfig(Strict):
    """All deployments of this installation."""

    timezone: str = "UTC"
    """Time zone of every cron line, such as Europe/Berlin."""
    work_pools: tuple[WorkPool, ...] = (WorkPool(name="cpu", limit=None),)
    """Work pools to create where they are missing."""
    deployments: tuple[Deployment, ...]
    """The deployments."""

    @field_validator("timezone")
    @classmethod
    def _is_known(cls, value: str) -> str:
        try:
            ZoneInfo(value)
        except (KeyError, ValueError):
            raise ValueError(f"{value} is no time zone; write one like Europe/Berlin") from None
        return value
