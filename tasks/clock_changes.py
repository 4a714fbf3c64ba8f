"""Nights that the change of the clocks skips, moves or doubles: told before they come."""

from collections.abc import Iterator
from datetime import datetime, timedelta
from zoneinfo import ZoneInfo

from prefect.server.schemas.schedules import CronSchedule

from tasks.config.deployments import DeploymentsConfig

HOURLY = 12
"""A schedule with so many runs a day is not told of one more or less."""
DAYS = 366


def examine_clocks(config: DeploymentsConfig, now: datetime) -> Iterator[str]:
    """A sentence for each schedule that would run in an hour that its time zone skips or repeats within a year."""
    changes = list(_changes(ZoneInfo(config.timezone), now))
    for deployment in config.deployments:
        if deployment.cron and (days := [day for day, hours in changes if _runs_in(deployment.cron, day, hours)]):
            yield (
                f"{deployment.name}: {deployment.cron} falls into an hour that {config.timezone} skips or repeats on "
                f"{' and '.join(f'{day:%Y-%m-%d}' for day in days)}, so it may run an hour off then: choose an hour "
                "outside 1 to 3, or timezone: UTC"
            )


def _changes(zone: ZoneInfo, now: datetime) -> Iterator[tuple[datetime, tuple[datetime, datetime]]]:
    """The days of the next year on which the clocks change, with the local time that is skipped or repeated."""
    step = timedelta(minutes=30)
    at = now.astimezone(ZoneInfo("UTC")).replace(minute=0, second=0, microsecond=0)
    for _ in range(DAYS * 48):
        before, after = (moment.astimezone(zone).replace(tzinfo=None) for moment in (at - step, at))
        if after - before != step:
            edge, shift = before + step, after - before - step
            first, last = sorted((edge, edge + shift))
            yield first.replace(hour=0, minute=0), (first, last)
        at += step


def _runs_in(cron: str, day: datetime, hours: tuple[datetime, datetime]) -> bool:
    """Whether the schedule, by the clock on the wall, has a run between two times; hourly ones are left out."""
    by_the_wall = CronSchedule(cron=cron, timezone="UTC")
    start = day.replace(tzinfo=ZoneInfo("UTC"))
    dates = list(by_the_wall._get_dates_generator(start=start, end=start + timedelta(days=1)))
    runs = [date.replace(tzinfo=None) for date in dates]
    return len(runs) < HOURLY and any(hours[0] <= run < hours[1] for run in runs)
