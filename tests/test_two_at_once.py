"""Two processes re-index one index at the same time: one waits or is skipped, and the table stays whole."""

import json
import os
import signal
import subprocess
import sys
import time
from collections.abc import Callable
from pathlib import Path

import pytest

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


def start(config: ReindexConfig, home: Home, file: Path) -> subprocess.Popen[str]:
    file.write_text(config.model_dump_json())  # JSON is YAML
    command = [str(TANDEM), "reindex", str(file), "--json"]
    return subprocess.Popen(
        command, env=environment_of(home), stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True
    )


@pytest.mark.usefixtures("prefect")
def test_of_two_runs_at_once_one_waits_for_the_other_and_finds_its_work_done(
    ready_home: Home, configure: Configure, site: Path, tmp_path: Path
) -> None:
    write_facts(site)
    config = configure(golden=golden_for_facts(tmp_path), gate={"min_queries": 10}, lock_minutes=3)
    both = [start(config, ready_home, tmp_path / f"{number}.yaml") for number in range(2)]
    outputs = [process.communicate(timeout=200) for process in both]
    assert [process.returncode for process in both] == [0, 0], outputs
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
    with model_lock(ready_home.locks, "docs", 0):
        second = start(configure(), ready_home, tmp_path / "docs.yaml")
        out, said = second.communicate(timeout=200)
    assert (second.returncode, out) == (1, "")
    assert f"tandem: docs is being worked on by process {os.getpid()}" in said
    assert "this run is skipped" in said
    assert "Traceback" not in said
    assert list_versions(connect(ready_home), "docs") == []


def test_the_lock_of_a_killed_process_is_free_at_once(home: Home) -> None:
    holder = subprocess.Popen([sys.executable, "-c", HOLD, str(home.locks)], stdout=subprocess.PIPE, text=True)
    assert holder.stdout is not None
    assert holder.stdout.readline() == "held\n"
    with pytest.raises(BusyError, match=f"process {holder.pid}"), model_lock(home.locks, "docs", 0.1):
        pass
    holder.send_signal(signal.SIGKILL)
    holder.wait()
    began = time.monotonic()
    with model_lock(home.locks, "docs", 5):
        assert time.monotonic() - began < 1
