"""Schedules that the change of the clocks would skip or double are told when they are deployed."""

from datetime import UTC, datetime

import pytest

from tasks.clock_changes import examine_clocks
from tasks.config.deployments import DeploymentsConfig

NOW = datetime(2026, 11, 29, tzinfo=UTC)


def _told(cron: str, timezone: str) -> list[str]:
    night = {"name": "handbook", "flow": "flows/reindex.py:reindex", "cron": cron}
    return list(examine_clocks(DeploymentsConfig.model_validate({"timezone": timezone, "deployments": [night]}), NOW))


@pytest.mark.parametrize(
    ("cron", "timezone", "days"),
    [
        ("30 2 * * *", "Europe/Berlin", ["2027-03-28", "2027-10-31"]),
        ("30 1 * * *", "Europe/London", ["2027-03-28", "2027-10-31"]),
        ("15 2 * * 0", "America/New_York", ["2027-03-14"]),  # there 1:00 to 2:00 is repeated in autumn
        ("15 1 * * *", "America/New_York", ["2027-11-07"]),
        ("10 2 * * *", "Australia/Lord_Howe", ["2027-10-03"]),  # by half an hour
    ],
)
def test_a_night_in_an_hour_that_is_skipped_or_repeated_is_told_with_the_days(
    cron: str, timezone: str, days: list[str]
) -> None:
    (told,) = _told(cron, timezone)
    assert f"handbook: {cron} falls into an hour that {timezone} skips or repeats on {' and '.join(days)}," in told


@pytest.mark.parametrize(
    ("cron", "timezone"),
    [
        ("30 2 * * *", "UTC"),
        ("30 4 * * *", "Europe/Berlin"),
        ("30 2 * * 1", "Europe/Berlin"),  # the clocks change on Sundays
        ("0 * * * *", "Europe/Berlin"),
        ("30 2 * * *", "Asia/Tokyo"),
    ],
)
def test_a_night_in_any_other_hour_is_not(cron: str, timezone: str) -> None:
    assert _told(cron, timezone) == []
