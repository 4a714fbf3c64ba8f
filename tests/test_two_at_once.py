"""Two processes re-index one index at the same time: one waits or is skipped, and the table stays whole."""

import json
import os
import signal
import subprocess
import sys
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path

import pytest
from prefect import get_client
from prefect.client.schemas.filters import FlowRunFilter, FlowRunFilterState, FlowRunFilterStateType
from prefect.client.schemas.objects import StateType

from tasks.config.index import ReindexConfig
from tasks.config.settings import Home
from tasks.errors import BusyError
from tasks.lock import model_lock
from tasks.registry.connection import connect
from tasks.registry.runs import running
from tasks.registry.versions import list_versions, load_manifest
from tasks.serving import prove
from tests.homes import environment_of
from tests.nights import golden_for_facts, write_facts
from tests.waiting import wait_for

Configure = Callable[..., ReindexConfig]
TANDEM = Path(sys.executable).with_name("tandem")
HOLD = """
import sys, time
from pathlib import Path
from tasks.lock import model_lock
with model_lock(Path(sys.argv[1]), "docs", 0):
    print("held", flush=True)
    time.sleep(100)
"""


@contextmanager
def started(*command: str, environment: dict[str, str] | None = None) -> Iterator[subprocess.Popen[str]]:
    """A process that does not outlive the test."""
    pipe = subprocess.PIPE
    with subprocess.Popen(command, env=environment, stdout=pipe, stderr=pipe, text=True) as process:
        try:
            yield process
        finally:
            process.kill()


@contextmanager
def reindexing(config: ReindexConfig, home: Home, folder: Path) -> Iterator[subprocess.Popen[str]]:
    file = folder / "docs.yaml"
    file.write_text(config.model_dump_json())  # JSON is YAML
    with started(str(TANDEM), "reindex", str(file), "--json", environment=environment_of(home)) as process:
        yield process


def nights_under_way(site: Path) -> int:
    """How many flow runs over this site have started and not ended, as Prefect knows them."""
    running = FlowRunFilterState(type=FlowRunFilterStateType(any_=[StateType.RUNNING]))
    with get_client(sync_client=True) as client:
        runs = client.read_flow_runs(flow_run_filter=FlowRunFilter(state=running))
    return sum(str(site) in str(run.parameters) for run in runs)


@pytest.mark.usefixtures("prefect")
def test_of_two_runs_that_wait_for_a_third_one_does_the_work_and_the_other_finds_it_done(
    ready_home: Home, configure: Configure, site: Path, tmp_path: Path
) -> None:
    write_facts(site)
    config = configure(golden=golden_for_facts(tmp_path), gate={"min_queries": 10}, lock_minutes=3)
    with reindexing(config, ready_home, tmp_path) as one, reindexing(config, ready_home, tmp_path) as other:
        with model_lock(ready_home.locks, "docs", 0):
            wait_for(lambda: nights_under_way(site) == 2, 120)
            time.sleep(2)  # from there to the lock takes no more than a few milliseconds
            assert (one.poll(), other.poll()) == (None, None)
            assert not ready_home.lancedb.exists()
        outputs = [process.communicate(timeout=200) for process in (one, other)]
    assert (one.returncode, other.returncode) == (0, 0), outputs
    nights = [json.loads(out) for out, _ in outputs]
    assert sorted(night["decision"] for night in nights) == ["promote", "unchanged"]
    client = connect(ready_home)
    assert [version.number for version in list_versions(client, "docs")] == [1]
    prove(load_manifest(client, "docs", "champion"))
    assert running(client, "docs") == []


@pytest.mark.usefixtures("prefect")
def test_a_run_that_may_not_wait_is_skipped_and_names_the_process_that_works(
    ready_home: Home, configure: Configure, site: Path, tmp_path: Path
) -> None:
    write_facts(site)
    with (
        model_lock(ready_home.locks, "docs", 0),
        reindexing(configure(), ready_home, tmp_path) as second,
    ):
        out, said = second.communicate(timeout=200)
    assert (second.returncode, out) == (1, "")
    assert f"tandem: docs is being worked on by process {os.getpid()}" in said
    assert "this run is skipped" in said
    assert "Traceback" not in said
    assert list_versions(connect(ready_home), "docs") == []


def test_the_lock_of_a_killed_process_is_free_at_once(home: Home) -> None:
    with started(sys.executable, "-c", HOLD, str(home.locks)) as holder:
        assert holder.stdout is not None
        assert holder.stdout.readline() == "held\n"
        with pytest.raises(BusyError, match=f"process {holder.pid}"), model_lock(home.locks, "docs", 0.1):
            pass
        holder.send_signal(signal.SIGKILL)
        holder.wait()
        with model_lock(home.locks, "docs", 0):
            pass
