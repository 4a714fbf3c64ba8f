"""What runs that wait work by, and what is told where a file and its deployment differ, on a real Prefect server."""

from collections.abc import Iterator
from datetime import UTC, datetime, timedelta
from pathlib import Path
from typing import Any

import pytest
import yaml
from prefect.client.schemas.filters import DeploymentFilter, DeploymentFilterId
from prefect.client.schemas.objects import FlowRun
from prefect.flow_engine import run_flow_sync
from prefect.settings import PREFECT_API_URL

from flows.reindex import reindex
from tasks.absorb import BY_WATCHER
from tasks.config.settings import Home
from tasks.deployed import VARIABLE
from tasks.records import Night
from tasks.recover import WATCHED
from tasks.schedules import examine_schedules
from tests.artifacts import log_of
from tests.deploying import Page, deployed
from tests.nights import page as write_page
from tests.nights import write_facts


@pytest.fixture
def page(prefect: None, ready_home: Home, tmp_path: Path) -> Iterator[Page]:
    """An index over four pages is deployed."""
    (tmp_path / "deployed").mkdir()
    with deployed(tmp_path / "deployed") as page:
        point_to(page, tmp_path / "four")
        write_facts(tmp_path / "four")
        page.deploy()
        yield page


def point_to(page: Page, site: Path) -> None:
    site.mkdir()
    page.config["sources"] = [{"name": "docs", "location": str(site)}]
    page.config["lock_minutes"] = 0


def redeploy_over_one_page(page: Page, folder: Path) -> None:
    point_to(page, folder / "one")
    write_page(folder / "one", "tea", "Green tea is steeped at eighty degrees.")
    page.deploy()


def queue_night(page: Page) -> list[FlowRun]:
    """Let Prefect's server schedule what was due since yesterday; every run of the deployment that it scheduled."""
    now = datetime.now(UTC)
    due = {"start_time": str(now - timedelta(hours=24)), "end_time": str(now), "min_runs": 1, "max_runs": 1}
    page.client.request("POST", f"/deployments/{page.deployment.id}/schedule", json=due)
    ours = DeploymentFilter(id=DeploymentFilterId(any_=[page.deployment.id]))
    return [run for run in page.client.read_flow_runs(deployment_filter=ours) if run.auto_scheduled]


def work(run: FlowRun) -> Night:
    """What a worker does with a run."""
    state: Any = run_flow_sync(reindex, flow_run=run, parameters=run.parameters, return_type="state")
    night: Night = state.result()
    return night


def test_a_night_that_waited_works_by_the_configuration_deployed_since(page: Page, tmp_path: Path) -> None:
    [run] = queue_night(page)
    redeploy_over_one_page(page, tmp_path)
    assert work(run).counts["documents added"] == 1
    assert "another configuration was deployed while this run waited" in log_of(page.client.read_flow_run(run.id))


def test_a_run_that_the_watcher_started_works_by_the_configuration_deployed_since(page: Page, tmp_path: Path) -> None:
    run = page.client.create_flow_run_from_deployment(page.deployment.id, tags=[BY_WATCHER])
    assert {WATCHED, BY_WATCHER} <= set(run.tags)
    redeploy_over_one_page(page, tmp_path)
    assert work(run).counts["documents added"] == 1


def test_a_run_that_somebody_started_keeps_what_it_was_started_with(page: Page, tmp_path: Path) -> None:
    run = page.client.create_flow_run_from_deployment(page.deployment.id)
    redeploy_over_one_page(page, tmp_path)
    assert work(run).counts["documents added"] == 4


def test_a_schedule_with_changes_of_its_own_keeps_them(page: Page, tmp_path: Path) -> None:
    own = page.deployment.parameters["config"] | {"name": "own"}
    page.client.update_deployment_schedule(page.deployment.id, page.own().id, parameters={"config": own})
    [run] = queue_night(page)
    redeploy_over_one_page(page, tmp_path)
    night = work(run)
    assert (night.index, night.counts["documents added"]) == ("own", 4)


def test_nights_of_before_and_after_a_redeploy_are_made_up_by_one(page: Page, tmp_path: Path) -> None:
    [before] = queue_night(page)
    redeploy_over_one_page(page, tmp_path)
    page.settings["cron"] = "0 14 * * *"
    page.deploy()
    [after] = [run for run in queue_night(page) if run.id != before.id]
    assert work(after).counts["documents added"] == 1
    assert page.client.read_flow_run(before.id).state_name == "Cancelled"


def test_a_file_that_was_edited_and_not_deployed_is_told_by_doctor_and_by_the_night(
    page: Page, monkeypatch: pytest.MonkeyPatch
) -> None:
    def told() -> str:
        url = str(PREFECT_API_URL.value())
        return "\n".join(issue.what for issue in examine_schedules(url, None, datetime.now(UTC))[1])

    assert "not deployed" not in told()
    file = page.folder / "docs.yaml"
    file.write_text(yaml.safe_dump(yaml.safe_load(file.read_text()) | {"gate": {"min_queries": 30}}))
    said = f"{file} was edited and not deployed (gate.min_queries): "
    assert f"{said}the deployment kept runs by what it said before" in told()
    variables = page.deployment.job_variables["env"]
    monkeypatch.setenv(VARIABLE, variables[VARIABLE])  # as a worker gives it to its runs
    run = page.client.create_flow_run_from_deployment(page.deployment.id)
    work(run)
    assert f"{said}this run works by what it said before" in log_of(page.client.read_flow_run(run.id))
    page.config["gate"] = {"min_queries": 30}
    page.deploy()
    assert "not deployed" not in told()
