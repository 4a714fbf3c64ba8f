"""Every test has its own home: nothing is read from or written to the repository's data/ and mlruns/."""

import functools
import os
import tempfile
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import TYPE_CHECKING, Any

import pytest

from tasks.config.index import ReindexConfig
from tasks.config.settings import Home
from tasks.environment import prepare_environment
from tests.homes import copy_home, use_home

if TYPE_CHECKING:
    from tests.command import Tandem

pytest_plugins = ["tests.tiny_models"]

if "PYTEST_XDIST_WORKER" in os.environ:
    os.environ.setdefault("OMP_NUM_THREADS", "1")  # the others compute as well
if "TANDEM_TEST_TEMPLATES" not in os.environ:  # the workers of xdist have it from the process that started them
    _templates = tempfile.TemporaryDirectory(prefix="tandem-templates-")
    os.environ["TANDEM_TEST_TEMPLATES"] = _templates.name
os.environ["PREFECT_HOME"] = tempfile.mkdtemp(prefix="tandem-tests-")
prepare_environment(Home(Path(os.environ["PREFECT_HOME"])))


def pytest_xdist_make_scheduler(config: pytest.Config, log: Any) -> object:
    """A file stays on one process, and so do all that start the services of a home: two cores carry one at a time."""
    from xdist.scheduler import LoadFileScheduling

    class OneAtATime(LoadFileScheduling):
        def _split_scope(self, nodeid: str) -> str:
            file = super()._split_scope(nodeid)
            return "services" if _starts_services(config.rootpath / file) else file

    return OneAtATime(config, log)


@functools.cache
def _starts_services(file: Path) -> bool:
    return "pytest.mark.services" in file.read_text(encoding="utf-8")


def pytest_collection_modifyitems(items: list[pytest.Item]) -> None:
    """Let files that take minutes begin first, or they would be left over at the end."""
    items.sort(key=lambda item: item.get_closest_marker("long") is None)


@pytest.fixture
def home(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Home:
    """An empty installation in a temporary folder, also for the processes a test starts."""
    root = tmp_path / "home"
    root.mkdir()
    return use_home(Home(root), monkeypatch)


@pytest.fixture
def ready_home(home: Home) -> Home:
    """A home whose MLflow database is there already, to save the seconds of making it."""
    import shutil

    from tests.registry_fixtures import empty_home

    ready = copy_home(empty_home(), home.root)
    shutil.rmtree(ready.locks, ignore_errors=True)
    return ready


@pytest.fixture(scope="session")
def prefect() -> Iterator[None]:
    """A real Prefect server with a database of its own."""
    from prefect.testing.utilities import prefect_test_harness

    with prefect_test_harness(server_startup_timeout=120):
        yield


@pytest.fixture
def home_of_nights(prefect: None, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Home:
    """A copy, for a test to change, of a home in which version 3 of docs is live."""
    from tests.command import three_nights

    return use_home(copy_home(three_nights(), tmp_path / "home"), monkeypatch)


@pytest.fixture
def tandem(capsys: pytest.CaptureFixture[str]) -> "Tandem":
    """The command as a function of its arguments."""
    from tests.command import runner

    return runner(capsys)


@pytest.fixture
def site(tmp_path: Path) -> Path:
    """A folder of documents for a test to edit."""
    folder = tmp_path / "site"
    folder.mkdir()
    return folder


@pytest.fixture
def configure(site: Path) -> Callable[..., ReindexConfig]:
    """Makes the configuration of an index over `site`; keywords replace settings."""

    def make(**settings: object) -> ReindexConfig:
        source = {"name": "docs", "location": str(site)} | settings.pop("source", {})  # type: ignore[operator]
        return ReindexConfig.model_validate({"name": "docs", "sources": [source], "lock_minutes": 0} | settings)

    return make
