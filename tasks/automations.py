"""Installs on the Prefect server what follows an event: files under conf/automations/. Safe to repeat."""

from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from datetime import timedelta
from pathlib import Path
from typing import Any

from prefect import get_client
from prefect.automations import EventTrigger, Posture, ResourceSpecification
from prefect.client.orchestration import SyncPrefectClient
from prefect.deployments.runner import RunnerDeployment
from prefect.events.actions import ActionTypes, CallWebhook, RunDeployment, SendNotification
from prefect.events.filters import AutomationFilter, AutomationFilterTags
from prefect.events.schemas.automations import Automation, AutomationCore
from prefect.exceptions import ObjectNotFound
from prefect.utilities.schema_tools.validation import ValidationError, validate

from tasks.config.deployments import AutomationConfig, DeploymentsConfig
from tasks.config.loading import load_config
from tasks.errors import ConfigError
from tasks.recover import WATCHED

TAG = "tandem"
"""Of the automations that are ours to change and to remove."""
ENABLED, DISABLED = "tandem-enabled", "tandem-disabled"
"""Tells whether its file had it switched on when it was installed last."""
WEBHOOK = "webhook"
RUNS = "prefect.flow-run."
"""Begins the events of runs; their ends are the states' names."""
OUR_RUNS = {"prefect.resource.role": "tag", "prefect.resource.id": f"prefect.tag.{WATCHED}"}
"""Found among what an event of a run is related to, where its deployment is one of ours."""
PAGE = 100


@dataclass(frozen=True, slots=True)
class Prepared:
    """An automation, checked without a server."""

    config: AutomationConfig
    deployment: str
    """Full name of the deployment that it starts; empty where it starts none."""
    parameters: dict[str, Any]
    """Those of the deployment, with the automation's changes."""


@dataclass(frozen=True, slots=True)
class Installed:
    """What became of the automations."""

    installed: tuple[str, ...] = ()
    removed: tuple[str, ...] = ()
    left_out: tuple[str, ...] = ()
    """Why others are not installed, in a sentence each."""
    kept: tuple[str, ...] = ()
    """What is as a person set it in Prefect's page, in a sentence each."""

    def told(self) -> Iterator[str]:
        """The same as lines for a person."""
        yield from (f"automation {name}" for name in self.installed)
        yield from (f"automation {name} is removed: its file is gone" for name in self.removed)
        yield from self.left_out
        yield from self.say_kept()

    def say_kept(self) -> Iterator[str]:
        """What is as people set it, and how to undo that."""
        yield from self.kept
        if self.kept:
            yield "`tandem deploy --reset` puts all of it back to what the files say"


def prepare_automations(
    config: DeploymentsConfig, deployments: Sequence[RunnerDeployment], root: Path
) -> list[Prepared] | None:
    """Read and check the files; None where no folder is named.

    Raises ConfigError where one does not fit its class, or the deployment that it starts.
    """
    if not config.automations:
        return None
    folder = root / config.automations
    if not folder.is_dir():
        raise ConfigError(f"automations: there is no folder {folder}")
    by_name = {str(deployment.name): deployment for deployment in deployments}
    read = {file: load_config(file, AutomationConfig) for file in sorted(folder.glob("*.yaml"))}
    for file, automation in read.items():
        if automation.name != file.stem:
            raise ConfigError(f"{file}: name is {automation.name}; it must be that of the file, {file.stem}")
    return [_prepare(file, automation, by_name) for file, automation in read.items()]


def install(automations: list[Prepared] | None, reset: bool = False) -> Installed:
    """Create, update or remove automations, so that ours on the server are these; None changes nothing.

    The deployments that they start are there. Those that name a missing block are left out, and removed if they were
    installed before. One that a person switched on or off stays so, until its file changes that; or with `reset`.
    """
    if automations is None:
        return Installed()
    with get_client(sync_client=True) as client:
        there = {automation.name: automation for automation in _ours(client)}
        installed, left_out, kept = [], [], []
        for prepared in automations:
            try:
                wanted = _automation(client, prepared)
            except ObjectNotFound:
                left_out.append(_missing_block(prepared.config))
                continue
            if known := there.get(prepared.config.name):
                if not reset and _is_switched_by_hand(known, wanted):
                    wanted.enabled = known.enabled
                    kept.append(_say_switched(known))
                client.update_automation(known.id, wanted)
            else:
                client.create_automation(wanted)
            installed.append(prepared.config.name)
        removed = sorted(there.keys() - set(installed))
        for name in removed:
            client.delete_automation(there[name].id)
    kept_out = {prepared.config.name for prepared in automations}
    return Installed(
        tuple(installed), tuple(name for name in removed if name not in kept_out), tuple(left_out), tuple(kept)
    )


def _is_switched_by_hand(there: Automation, wanted: AutomationCore) -> bool:
    """Whether a person switched it since it was installed, and the file says the same as then."""
    return set(there.tags) == set(wanted.tags) and there.enabled != wanted.enabled


def _say_switched(there: Automation) -> str:
    return f"automation {there.name}: kept as set in Prefect: it is switched {'on' if there.enabled else 'off'}"


def _prepare(file: Path, config: AutomationConfig, deployments: Mapping[str, RunnerDeployment]) -> Prepared:
    if not config.run:
        return Prepared(config, "", {})
    if (deployment := deployments.get(config.run)) is None:
        known = ", ".join(sorted(deployments))
        raise ConfigError(f"{file}: run: there is no deployment {config.run}; there are {known}")
    parameters = _changed(deployment.parameters or {}, config.parameters)
    try:
        validate(parameters, deployment._parameter_openapi_schema.model_dump_for_openapi(), raise_on_error=True)
    except ValidationError as error:
        raise ConfigError(f"{file}: parameters do not fit the deployment {config.run}: {error}") from None
    return Prepared(config, f"{deployment.flow_name}/{deployment.name}", parameters)


def _changed(values: Mapping[str, Any], changes: Mapping[str, Any]) -> dict[str, Any]:
    """The values with changes in their depths; Prefect itself would put a whole parameter in the place of another."""
    return dict(values) | {
        key: _changed(values[key], change)
        if isinstance(change, Mapping) and isinstance(values.get(key), Mapping)
        else change
        for key, change in changes.items()
    }


def _automation(client: SyncPrefectClient, prepared: Prepared) -> AutomationCore:
    """Raises ObjectNotFound where its block is missing."""
    config, actions = prepared.config, list[ActionTypes]()
    if prepared.deployment:
        deployment = client.read_deployment_by_name(prepared.deployment)
        actions.append(RunDeployment(deployment_id=deployment.id, parameters=prepared.parameters))
    if config.notify:
        actions.append(_notification(client, config))
    return AutomationCore(
        name=config.name,
        description=config.description,
        enabled=config.enabled,
        tags=[TAG, ENABLED if config.enabled else DISABLED],
        trigger=EventTrigger(
            expect=set(config.events),
            match=ResourceSpecification(
                {"prefect.resource.id": f"tandem.release.{config.release}"} if config.release else {}
            ),
            match_related=ResourceSpecification(OUR_RUNS if _is_of_runs(config) else {}),
            for_each={"prefect.resource.id"},
            posture=Posture.Reactive,
            threshold=1,
            within=timedelta(minutes=config.minutes if config.run else 0),
        ),
        actions=actions,
    )


def _is_of_runs(config: AutomationConfig) -> bool:
    return all(event.startswith(RUNS) for event in config.events)


def _notification(client: SyncPrefectClient, config: AutomationConfig) -> CallWebhook | SendNotification:
    kind, _, name = config.notify.partition("/")
    block = client.read_block_document_by_name(name, kind).id
    if kind == WEBHOOK:
        return CallWebhook(block_document_id=block, payload=config.message)
    return SendNotification(block_document_id=block, subject=config.subject, body=config.message)


def _missing_block(config: AutomationConfig) -> str:
    kind, _, name = config.notify.partition("/")
    return (
        f"automation {config.name} is left out: there is no block {config.notify}. Make one of the type {kind} and the "
        f"name {name} in the Prefect UI, under Blocks, and run `tandem deploy` again"
    )


def _ours(client: SyncPrefectClient) -> list[Automation]:
    found: list[Automation] = []
    mine = AutomationFilter(tags=AutomationFilterTags(all_=[TAG]))
    while len(page := client.read_automations(automations=mine, limit=PAGE, offset=len(found))) == PAGE:
        found += page
    return [*found, *page]
