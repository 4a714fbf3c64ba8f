"""What a person set in Prefect's page stays when Tandem's files are deployed again, on a real Prefect server."""

from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
import yaml
from hypothesis import given
from hypothesis import strategies as st
from prefect.client.schemas.actions import DeploymentScheduleCreate, DeploymentUpdate, WorkPoolUpdate
from prefect.client.schemas.schedules import CronSchedule

from tasks.deployed import flatten, unflatten
from tests.deploying import NIGHT, NOON, Page, deployed


@pytest.fixture
def page(prefect: None, tmp_path: Path) -> Iterator[Page]:
    with deployed(tmp_path) as page:
        yield page


def test_a_schedule_that_was_paused_stays_so_and_it_is_told(page: Page) -> None:
    page.client.update_deployment_schedule(page.deployment.id, page.own().id, active=False)
    assert page.deploy() == "reindex/kept: kept as set in Prefect: schedule is on is false, and true in the file"
    assert page.crons() == {NIGHT: False}
    assert page.deploy(reset=True) == ""
    assert page.crons() == {NIGHT: True}


def test_a_schedule_that_was_added_stays_and_goes_with_reset(page: Page) -> None:
    noon = DeploymentScheduleCreate(schedule=CronSchedule(cron=NOON), active=True)
    page.client.create_deployment_schedules(page.deployment.id, [noon])
    assert "kept as added in Prefect: the schedule 0 12 * * *" in page.deploy()
    assert page.crons() == {NIGHT: True, NOON: True}
    page.deploy(reset=True)
    assert page.crons() == {NIGHT: True}


def test_a_change_of_the_file_wins_for_what_it_changed_and_for_nothing_else(page: Page) -> None:
    page.client.update_deployment_schedule(page.deployment.id, page.own().id, active=False)
    page.edit("gate", min_queries=7, confidence=0.9)
    page.settings["cron"], page.config["gate"] = "0 3 * * *", {"min_queries": 30}
    said = page.deploy()
    assert page.crons() == {"0 3 * * *": False}
    assert (page.parameter("gate", "min_queries"), page.parameter("gate", "confidence")) == (30, 0.9)
    assert "parameters.config.gate.confidence is 0.9, and not set in the file" in said
    assert "min_queries" not in said
    page.deploy(reset=True)
    assert page.parameter("gate", "confidence") is None


def test_a_schedule_that_was_taken_away_comes_back_with_reset_or_a_new_time(page: Page) -> None:
    page.client.delete_deployment_schedule(page.deployment.id, page.own().id)
    assert "schedule is not set" in page.deploy()
    assert page.crons() == {}
    page.deploy(reset=True)
    assert page.crons() == {NIGHT: True}
    page.settings.pop("cron")
    page.deploy()
    assert page.crons() == {}


def test_limits_and_pauses_of_pools_and_queues_stay_until_the_file_changes_them(page: Page) -> None:
    queue = page.client.read_work_queue_by_name("kept", work_pool_name="kept")
    page.client.update_work_queue(queue.id, concurrency_limit=4, is_paused=True)
    page.client.update_work_pool("kept", WorkPoolUpdate(concurrency_limit=9, is_paused=True))

    def limits() -> tuple[int | None, int | None, bool, bool]:
        queue = page.client.read_work_queue_by_name("kept", work_pool_name="kept")
        pool = page.client.read_work_pool("kept")
        return queue.concurrency_limit, pool.concurrency_limit, queue.is_paused, pool.is_paused

    said = page.deploy()
    assert "the work queue kept: kept as set in Prefect: limit is 4, and 1 in the file" in said
    assert "the work pool kept: kept as set in Prefect: limit is 9, and null in the file" in said
    assert limits() == (4, 9, True, True)
    page.settings["limit"], page.pool["limit"] = 2, 3
    page.deploy()
    assert limits() == (2, 3, True, True)
    page.deploy(reset=True)
    assert limits() == (2, 3, False, False)


def test_an_automation_that_was_switched_off_stays_off_until_its_file_changes_that(page: Page) -> None:
    file = page.folder / "automations" / "again.yaml"
    again = {"name": "again", "events": ["tandem.monitor.stale"], "run": "kept"}
    file.write_text(yaml.safe_dump(again))
    page.deploy()
    made = page.client.find_automation("again")
    page.client.pause_automation(made.id)
    assert "automation again: kept as set in Prefect: it is switched off" in page.deploy()
    assert not page.client.find_automation("again").enabled
    page.deploy(reset=True)
    assert page.client.find_automation("again").enabled


def test_what_an_older_tandem_deployed_is_followed_and_its_paused_schedule_stays_paused(page: Page) -> None:
    """It kept no record, and its schedule has no slug."""
    there = page.deployment
    page.client.delete_deployment_schedule(there.id, page.own().id)
    old = DeploymentScheduleCreate(schedule=CronSchedule(cron=NIGHT, timezone="UTC"), active=False)
    page.client.create_deployment_schedules(there.id, [old])
    page.client.update_deployment(there.id, DeploymentUpdate(job_variables={"env": {}}))
    page.config["gate"] = {"min_queries": 30}
    assert "schedule is on is false" in page.deploy()
    assert page.crons() == {NIGHT: False}
    assert page.own().slug == "tandem"
    assert page.parameter("gate", "min_queries") == 30


def test_nothing_is_told_where_nobody_changed_anything(page: Page) -> None:
    schedule = page.own()
    assert page.deploy() == ""
    assert page.own() == schedule


KEYS = st.text("ab.%2E", min_size=1, max_size=4)


@given(st.recursive(st.integers() | st.none(), lambda inner: st.dictionaries(KEYS, inner, max_size=3), max_leaves=6))
def test_settings_are_the_same_once_they_were_flat(values: Any) -> None:
    nested = {"all": values}
    assert unflatten(flatten(nested)) == nested
