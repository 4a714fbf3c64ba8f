"""PostgreSQL under Prefect: what was in SQLite is there, nothing is lost by kill -9, and it starts where homes lie."""

import json
import os
import shutil
import sqlite3
import subprocess
import sys
from contextlib import closing
from pathlib import Path
from uuid import UUID

import psutil
import pytest

from tasks import postgres
from tasks.config.services import Service, runs
from tasks.config.settings import Home
from tasks.databases import prepare_prefect_home
from tasks.processes import end_together, started_at
from tasks.programs import start
from tests.installation import ask_prefect as ask
from tests.installation import socket_folder


@pytest.fixture
def prefect_home(home: Home, monkeypatch: pytest.MonkeyPatch) -> Home:
    """One whose Prefect has kept nothing yet."""
    monkeypatch.setenv("PREFECT_HOME", str(home.data / "prefect"))
    return home


def kept_in_sqlite(home: Home) -> None:
    """A flow with a run, written as Prefect writes them, and a log line with what PostgreSQL refuses in a text."""
    prepare_prefect_home()
    code = """
import asyncio
from prefect.server.database import provide_database_interface
from prefect.server.database.orm_models import Flow, FlowRun, Log
async def main():
    database = provide_database_interface()
    await database.create_db()
    async with database.session_context(begin_transaction=True) as session:
        flow = Flow(name="reindex")
        session.add(flow)
        await session.flush()
        parameters = {"config": {"name": "d\\0cs"}}
        session.add(FlowRun(flow_id=flow.id, name="a night", parameters=parameters, tags=["tandem"]))
        session.add(Log(name="x", level=20, message="before\\0after", timestamp=flow.created))
asyncio.run(main())
"""
    url = f"sqlite+aiosqlite:///{home.data / 'prefect' / 'prefect.db'}"
    environment = os.environ | {postgres.URL: url}
    subprocess.run([sys.executable, "-c", code], env=environment, check=True)


def test_what_prefect_kept_in_sqlite_is_taken_over_once_and_the_file_is_kept_under_a_name_that_says_so(
    prefect_home: Home,
) -> None:
    kept_in_sqlite(prefect_home)
    before = prefect_home.data / "prefect" / postgres.BEFORE
    postgres.prepare(prefect_home)
    assert before.exists()
    assert not before.with_name("prefect.db").exists()
    with postgres.running(postgres.folder_of(prefect_home)):
        ((name, parameters, flow),) = ask(prefect_home, "SELECT name, parameters, flow_id FROM flow_run")
        assert (name, json.loads(parameters)) == ("a night", {"config": {"name": "dcs"}})
        assert ask(prefect_home, "SELECT id, name FROM flow") == [(flow, "reindex")]
        assert ask(prefect_home, "SELECT message FROM log") == [("beforeafter",)]
        with closing(sqlite3.connect(before)) as database:
            assert UUID(database.execute("SELECT flow_id FROM flow_run").fetchone()[0]) == flow
            for table in ("block_type", "block_schema", "configuration", "work_pool"):
                counted = f"SELECT count(*) FROM {table}"
                assert ask(prefect_home, counted) == [database.execute(counted).fetchone()]
    postgres.prepare(prefect_home)  # nothing is left to do
    assert sorted(path.name for path in prefect_home.data.iterdir()) == ["postgres", "prefect"]


def test_a_take_over_that_fails_leaves_the_home_as_it_was(prefect_home: Home) -> None:
    database = prefect_home.data / "prefect" / "prefect.db"
    database.parent.mkdir(parents=True)
    database.write_bytes(b"no database at all")
    with pytest.raises(postgres.ServerError, match="its database could not be made"):
        postgres.prepare(prefect_home)
    assert database.read_bytes() == b"no database at all"
    assert not postgres.folder_of(prefect_home).exists()


def run_database(home: Home) -> Service:
    services: dict[str, Service] = {}
    server = start(home, services, postgres.NAME)
    postgres.wait_until_ready(home, server)
    return Service(postgres.NAME, server.pid, started_at(server))


def test_kill_9_loses_nothing_and_neither_does_a_reboot_after_which_another_process_has_its_pid(
    prefect_home: Home,
) -> None:
    postgres.prepare(prefect_home)
    server = run_database(prefect_home)
    ask(prefect_home, "INSERT INTO flow (name) VALUES ('reindex')")
    family = [psutil.Process(server.pid), *psutil.Process(server.pid).children(recursive=True)]
    for process in family:
        process.kill()
    psutil.wait_procs(family, 10)
    pid_file = postgres.folder_of(prefect_home) / postgres.PID_FILE
    pid_file.write_text(pid_file.read_text().replace(str(server.pid), str(os.getpid()), 1))
    server = run_database(prefect_home)
    assert ask(prefect_home, "SELECT name FROM flow") == [("reindex",)]
    end_together([server], 15, postgres.STOP)
    assert not runs(server)
    postgres.remove_socket_folder(prefect_home)


def test_it_starts_again_while_the_one_that_was_killed_was_not_waited_for_yet(prefect_home: Home) -> None:
    postgres.prepare(prefect_home)
    first = start(prefect_home, {}, postgres.NAME)  # of this process, which does not wait for it
    postgres.wait_until_ready(prefect_home, first)
    family = psutil.Process(first.pid).children(recursive=True)
    psutil.Process(first.pid).kill()
    psutil.wait_procs(family, 10)
    assert psutil.Process(first.pid).status() == psutil.STATUS_ZOMBIE
    server = run_database(prefect_home)
    end_together([server], 15, postgres.STOP)
    postgres.remove_socket_folder(prefect_home)


def test_it_starts_in_a_copy_of_a_home_whose_own_runs_and_that_others_may_read(
    prefect_home: Home, tmp_path: Path
) -> None:
    copy = Home(tmp_path / "copy")
    postgres.prepare(prefect_home)
    with postgres.running(postgres.folder_of(prefect_home)):
        ask(prefect_home, "INSERT INTO flow (name) VALUES ('reindex')")
        ask(prefect_home, "CHECKPOINT")
        shutil.copytree(prefect_home.root, copy.root)
        postgres.folder_of(copy).chmod(0o755)
        postgres.prepare(copy)
        server = run_database(copy)
        assert ask(copy, "SELECT name FROM flow") == [("reindex",)]
        end_together([server], 15, postgres.STOP)
    postgres.remove_socket_folder(copy)


def test_it_starts_in_a_home_with_a_long_path_below_a_folder_closed_to_others(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    closed = tmp_path / "closed"
    closed.mkdir(mode=0o700)
    home = Home(closed / ("a folder's näme " * 8) / ("b" * 100))
    monkeypatch.setenv("PREFECT_HOME", str(home.data / "prefect"))
    postgres.prepare(home)
    with postgres.running(postgres.folder_of(home)):
        assert ask(home, "SELECT count(*) FROM flow") == [(0,)]
    assert closed.stat().st_mode & 0o777 == 0o700


def test_its_socket_lies_in_no_folder_that_somebody_else_made(prefect_home: Home, tmp_path: Path) -> None:
    postgres.prepare(prefect_home)
    sockets = socket_folder(prefect_home)
    sockets.symlink_to(tmp_path)
    try:
        with pytest.raises(postgres.ServerError, match="belongs to somebody else"):
            postgres.clear_the_way(prefect_home)
    finally:
        sockets.unlink()


def test_a_database_that_the_user_named_is_that_of_prefect(monkeypatch: pytest.MonkeyPatch) -> None:
    assert postgres.is_wanted()
    monkeypatch.setenv("PREFECT_API_DATABASE_CONNECTION_URL", "postgresql+asyncpg://me@db/prefect")
    assert not postgres.is_wanted()
