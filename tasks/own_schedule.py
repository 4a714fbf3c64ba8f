"""Tandem's own schedule of a deployment, told apart from those that a person added in Prefect's page by its slug."""

from typing import Any

from prefect.client.orchestration import SyncPrefectClient
from prefect.client.schemas.actions import DeploymentScheduleCreate
from prefect.client.schemas.objects import DeploymentSchedule
from prefect.client.schemas.responses import DeploymentResponse

from tasks.deployed import Things

SLUG = "tandem"
SCHEDULE, ON = "schedule", "schedule is on"
"""Things of a deployment's record."""


def things_of_schedule(schedule: DeploymentSchedule | None) -> dict[str, Any]:
    """Its dates as text, and whether it is switched on; nothing where there is none."""
    if schedule is None:
        return {}
    return {SCHEDULE: say_schedule(schedule.schedule), ON: schedule.active}


def say_schedule(schedule: Any) -> str:
    """Such as ``0 2 * * * Europe/Berlin``."""
    cron = getattr(schedule, "cron", None)
    return f"{cron} {schedule.timezone}" if cron else str(schedule)


def find_own(deployment: DeploymentResponse) -> DeploymentSchedule | None:
    """Tandem's schedule among those of a deployment."""
    return next((schedule for schedule in deployment.schedules if schedule.slug == SLUG), None)


def find_older(deployment: DeploymentResponse, wanted: Things) -> DeploymentSchedule | None:
    """The schedule that an older Tandem made, which gave it no slug: the one that fits the file, or else the oldest.

    Where the file has none, all are a person's.
    """
    if SCHEDULE not in wanted:
        return None
    schedules = sorted(deployment.schedules, key=lambda each: say_schedule(each.schedule) != wanted.get(SCHEDULE))
    return schedules[0] if schedules else None


def follow_schedule(
    client: SyncPrefectClient,
    deployment: DeploymentResponse,
    own: DeploymentSchedule | None,
    wanted: DeploymentScheduleCreate | None,
    held: Things,
) -> None:
    """Make Tandem's schedule what is to hold; `wanted` is what the file describes."""
    if own is None:
        if wanted and SCHEDULE in held:
            client.create_deployment_schedules(deployment.id, [wanted])
    elif SCHEDULE not in held:
        client.delete_deployment_schedule(deployment.id, own.id)
    elif things_of_schedule(own) != {name: held[name] for name in (SCHEDULE, ON)} or own.slug != SLUG:
        from_file = wanted and say_schedule(wanted.schedule) == held[SCHEDULE]
        client.update_deployment_schedule(
            deployment.id,
            own.id,
            active=held[ON],
            schedule=wanted.schedule if wanted and from_file else own.schedule,
            slug=SLUG,
        )


def others(deployment: DeploymentResponse, own: DeploymentSchedule | None) -> list[DeploymentSchedule]:
    """The schedules that people added."""
    return [schedule for schedule in deployment.schedules if own is None or schedule.id != own.id]
