"""Checks what Tandem keeps, removes what is kept no longer, and compacts what has become of it."""

import sqlite3
import time
from dataclasses import replace
from pathlib import Path

from prefect import task

from tasks.config.maintenance import MaintainConfig
from tasks.config.settings import Home, find_home
from tasks.databases import compact as compact_database
from tasks.databases import free_share
from tasks.doctor import examine
from tasks.errors import TandemError
from tasks.housekeeping import Act, find_due
from tasks.mend import mend_all
from tasks.records import Removal, Trouble

MEND = "tandem mend "


@task(name="check", task_run_name="check")
def check(apply: bool) -> tuple[list[str], list[Trouble]]:
    """Compare pointers, versions, tables, runs and ledger, and mend what is safe: what was done, what is still wrong.

    Safe is what `tandem mend` does, which loses nothing. Giving a version up, or putting another live, is for a person.
    """
    home = find_home()
    troubles = examine(home)
    if not apply:
        return [], troubles
    # not where something else has to follow, which is for a person
    names = dict.fromkeys(
        t.remedy.removeprefix(MEND) for t in troubles if t.remedy.startswith(MEND) and ";" not in t.remedy
    )
    mended = [f"{name}: {sentence}" for name in names for sentence in _mend(name, home)]
    return mended, examine(home) if mended else troubles


def _mend(name: str, home: Home) -> list[str]:
    try:
        return mend_all(name, home)
    except TandemError as error:
        return [f"not mended: {error}"]


@task(name="tidy", task_run_name="tidy")
def tidy(config: MaintainConfig) -> list[Removal]:
    """Remove what is kept no longer; without `apply` only name it. What cannot go now says why."""
    due = find_due(config, find_home(), time.time())
    if not config.apply:
        return [one.removal for one in due]
    return [replace(one.removal, failed=_failure(one.act)) for one in due]


def _failure(act: Act) -> str:
    try:
        act()
    except (TandemError, OSError) as error:
        return str(error)
    return ""


@task(name="compact", task_run_name="compact")
def compact(config: MaintainConfig) -> list[str]:
    """Compact the databases of which much is free; says which. Tables are compacted by the night that needs it."""
    home = find_home()
    caches = (*sorted((home.cache / "vectors").glob("*.sqlite")), home.cache / "documents.sqlite")
    files = [file for file in (*caches, home.mlruns / "mlflow.db") if file.exists()]
    return [_compact(file) for file in files if config.apply and free_share(file) > config.free_share]


def _compact(file: Path) -> str:
    before = file.stat().st_size
    try:
        compact_database(file)
    except sqlite3.OperationalError as error:
        return f"{file.name} was not compacted: {error}"
    return f"{file.name} was compacted from {before / 1e6:.1f} to {file.stat().st_size / 1e6:.1f} MB"
