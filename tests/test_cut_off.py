"""A night that is cut off, by `tandem down` or because all is killed, is made up at the next `tandem up`."""

import time
from collections.abc import Iterator
from uuid import UUID

import psutil
import pytest
import yaml

from tasks import postgres
from tasks.lock import model_lock
from tasks.processes import descendants
from tasks.recover import INTERRUPTED, RESUMED
from tests.installation import Installation, ask_prefect, completed, history, installed, read, state, tandem
from tests.nights import config_over_facts
from tests.waiting import wait_for

pytestmark = [pytest.mark.long, pytest.mark.services, pytest.mark.timeout(900)]


@pytest.fixture(scope="module")
def here(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Installation]:
    folder = tmp_path_factory.mktemp("cut-off")
    file = folder / "docs.yaml"
    file.write_text(yaml.safe_dump(config_over_facts(folder).model_dump(mode="json") | {"lock_minutes": 10}))
    night = {"name": "docs", "flow": "flows/reindex.py:reindex", "config": str(file), "retry_crashed": 1}
    with installed(folder, night) as installation:
        yield installation


def begin_night(here: Installation) -> UUID:
    run = here.start("reindex/docs")
    wait_for(lambda: state(run) == "Running", 180, lambda: history(run))
    return run


def kill_all(here: Installation) -> None:
    processes = descendants(here.home)
    for process in processes:
        process.kill()
    psutil.wait_procs(processes, 10)


def ends_well_after_up(here: Installation, run: UUID) -> None:
    assert tandem(here.home, "up", here.deployments).returncode == 0
    began = time.monotonic()
    wait_for(lambda: completed(run), 300, lambda: history(run))
    print(f"made up within {time.monotonic() - began:.0f} s of `up`")
    assert read(run).run_count == 2
    told = history(run)
    assert INTERRUPTED in told
    assert RESUMED in told
    assert "Nothing was heard" not in told


def test_a_night_that_down_cut_off_has_its_state_and_is_made_up(here: Installation) -> None:
    with model_lock(here.home.locks, "docs", 0):  # the night waits for it
        run = begin_night(here)
        assert tandem(here.home, "down").returncode == 0
    with postgres.running(postgres.folder_of(here.home)):
        assert ask_prefect(here.home, f"SELECT state_name FROM flow_run WHERE id = '{run}'") == [("Crashed",)]
    ends_well_after_up(here, run)
    assert here.address("prefect") in tandem(here.home, "status").stdout  # without a word about ports


def test_a_night_that_was_killed_with_everything_is_made_up(here: Installation) -> None:
    with model_lock(here.home.locks, "docs", 0):
        run = begin_night(here)
        kill_all(here)
    ends_well_after_up(here, run)
