"""What conf/deployments.yaml holds: which flow runs with which configuration, when, and on which work pool."""

from pathlib import Path
from typing import Any
from zoneinfo import ZoneInfo

from pydantic import Field, PrivateAttr, field_validator, model_validator

from tasks.config.fields import Name, Strict
from tasks.config.loading import load_config


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
    paused: bool = False
    """Keep its schedule switched off; it runs by itself once this is false and `tandem deploy` has been run again."""
    work_pool: str = "cpu"
    """The work pool whose workers run it."""
    limit: int | None = Field(1, ge=1)
    """Most runs of it at a time, the others wait in a work queue of its own; no limit but the work pool's if empty."""
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
    automations: str = ""
    """Folder with the automations, a file each; those that are installed stay as they are, if empty."""
    _file: Path | None = PrivateAttr(None)

    @property
    def file(self) -> Path | None:
        """Where it was read from."""
        return self._file

    @model_validator(mode="after")
    def _has_a_queue_for_each_limit(self) -> "DeploymentsConfig":
        limited = [(each.work_pool, each.name) for each in self.deployments if each.limit]
        for pool, name in limited:
            if name == "default" or limited.count((pool, name)) > 1:
                raise ValueError(
                    f"the deployment {name} has a limit, which is that of a work queue of its name, and {pool} has "
                    "another of that name: give it another name, or `limit: null`"
                )
        return self

    @field_validator("timezone")
    @classmethod
    def _is_known(cls, value: str) -> str:
        try:
            ZoneInfo(value)
        except (KeyError, ValueError):
            raise ValueError(f"{value} is no time zone; write one like Europe/Berlin") from None
        return value


def load_deployments(file: Path) -> DeploymentsConfig:
    """Raises `ConfigError` as `load_config` does."""
    config = load_config(file, DeploymentsConfig)
    config._file = file.absolute()
    return config


class AutomationConfig(Strict):
    """What follows an event, such as a finding of `tandem monitor`: one file under conf/automations/."""

    name: Name
    """Its name in Prefect."""
    description: str = ""
    """What it is for."""
    events: tuple[str, ...] = Field(min_length=1)
    """Names of events, such as tandem.monitor.stale, or prefect.flow-run.Held* for our runs that end in this state; a *
    at the end stands for any ending."""
    release: str = ""
    """Only events about this release; about any, if empty."""
    run: str = ""
    """Name of the deployment that is started."""
    parameters: dict[str, Any] = Field({})
    """Changes of what the deployment starts with, such as config: {promote: ask}. A text may be a template over the
    event, such as {{ event.payload.sentence }}."""
    minutes: float = Field(60, ge=0, le=10_080)
    """Of the findings about a release that come within so many minutes, the first one starts the deployment; people are
    told of each where nothing is started."""
    notify: str = Field("", pattern=r"^([a-z0-9-]+/[a-z0-9-]+)?$")
    """The Prefect block that tells people, as type/name, such as slack-webhook/on-call, sendgrid-email/team or
    webhook/pager."""
    subject: str = "Tandem: {{ event.resource.name }}"
    """Of the notification; a template as well."""
    message: str = "{{ event.payload.sentence }} To do: {{ event.payload.remedy }}."
    """Of the notification, or what the webhook is sent."""
    enabled: bool = True
    """Whether it is switched on."""

    @model_validator(mode="after")
    def _does_something(self) -> "AutomationConfig":
        if not (self.run or self.notify):
            raise ValueError("it does nothing: name a deployment under run, or a block under notify")
        if self.parameters and not self.run:
            raise ValueError("parameters are for a deployment: name it under run")
        return self
