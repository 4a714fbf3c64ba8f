"""Homes that are made once and copied, and processes that run in them."""

import os
import shutil
from collections.abc import Callable
from pathlib import Path

import pytest
from filelock import FileLock

from tasks.config.index import ReindexConfig
from tasks.config.settings import Home
from tasks.records import Night
from tasks.relocate import relocate


def template(name: str, make: Callable[[Path], object]) -> Path:
    """A folder that the first process of a test run to need it fills, for all of them to copy from."""
    folder = Path(os.environ["TANDEM_TEST_TEMPLATES"], name)
    with FileLock(f"{folder}.lock"):
        if not (made := folder / "made").exists():
            shutil.rmtree(folder, ignore_errors=True)
            folder.mkdir()
            make(folder)
            made.touch()
    return folder


def copy_home(template: Home, root: Path) -> Home:
    """A copy that shares nothing with its template: what names a path of it names the copy's."""
    shutil.copytree(template.root, root, dirs_exist_ok=True)
    relocate(Home(root))
    return Home(root)


def home_after(config: ReindexConfig, root: Path) -> tuple[Home, Night]:
    """A new home in which this was the first night, for tests to copy; and the night."""
    from flows.reindex import reindex
    from tests.registry_fixtures import empty_home

    with pytest.MonkeyPatch.context() as patch:
        home = use_home(copy_home(empty_home(), root), patch)
        return home, reindex(config)


def use_home(home: Home, monkeypatch: pytest.MonkeyPatch) -> Home:
    """Make it the home of this process and of those that it starts."""
    monkeypatch.setenv("TANDEM_HOME", str(home.root))
    monkeypatch.delenv("MLFLOW_TRACKING_URI", raising=False)
    return home


def environment_of(home: Home) -> dict[str, str]:
    """For a process that works in this home and uses the tests' own Prefect server."""
    from prefect.settings import PREFECT_API_URL

    return os.environ | {"TANDEM_HOME": str(home.root), "PREFECT_API_URL": str(PREFECT_API_URL.value())}
