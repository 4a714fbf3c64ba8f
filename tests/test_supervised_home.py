"""Each service of a home is killed in turn; it comes back, and what runs there goes on."""

import json
import time
from collections.abc import Iterator
from pathlib import Path

import psutil
import pytest

from tasks.config.services import read_services
from tasks.services import condition
from tests.installation import Installation, cancel, installed, state, tandem
from tests.waiting import wait_for

pytestmark = [pytest.mark.long, pytest.mark.services, pytest.mark.timeout(900)]
TOY = {"name": "toy", "flow": "tests/toys.py:writes_down", "limit": None}
SLEEPER = {"name": "sleeper", "flow": "tests/toys.py:sleeps_once", "limit": None}


@pytest.fixture(scope="module")
def here(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Installation]:
    with installed(tmp_path_factory.mktemp("supervised"), TOY, SLEEPER) as installation:
        yield installation


def test_each_service_that_is_killed_is_started_again_and_runs_are_taken_as_before(
    here: Installation, tmp_path: Path
) -> None:
    names = [name for name in read_services(here.home) if name != "supervisor"]
    for name in names:
        psutil.Process(here.pid(name)).kill()
        wait_for(lambda name=name: read_services(here.home)[name].restarts == 1, 60)  # type: ignore[misc]
    wait_for(lambda: all(condition(service) == "running" for service in read_services(here.home).values()), 120)
    run = here.start("writes-down/toy", folder=str(tmp_path))
    wait_for(lambda: state(run) == "Completed", 180)
    told = tandem(here.home, "status", "--json")
    assert {row["name"]: row["restarts"] for row in json.loads(told.stdout)["services"]} == {
        **dict.fromkeys(names, 1),
        "supervisor": 0,
    }
    assert told.returncode == 0


def test_a_run_that_lost_the_events_of_a_server_that_was_killed_is_cancelled_all_the_same(
    here: Installation, tmp_path: Path
) -> None:
    run = here.start("sleeps-once/sleeper", folder=str(tmp_path))
    wait_for(lambda: state(run) == "Running", 180)
    restarts = read_services(here.home)["prefect"].restarts
    psutil.Process(here.pid("prefect")).kill()
    wait_for(lambda: read_services(here.home)["prefect"].restarts > restarts, 60)
    wait_for(lambda: condition(read_services(here.home)["prefect"]) == "running", 120)
    time.sleep(15)  # it has given its events up meanwhile, and asks every 10 s whether it is to end
    cancel(run)
    wait_for(lambda: state(run) == "Cancelled", 60)
