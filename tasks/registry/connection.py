"""The way to MLflow, embedded or a server, and one place where its failures become sentences."""

import functools
import logging
import os
import re
import shutil
import sqlite3
import tempfile
from collections.abc import Callable, Iterator
from contextlib import closing, contextmanager
from errno import EDQUOT, ENOSPC
from pathlib import Path
from typing import Concatenate, ParamSpec, TypeVar

from filelock import FileLock
from mlflow import MlflowClient
from mlflow.exceptions import MlflowException
from mlflow.tracking._model_registry.client import ModelRegistryClient
from sqlalchemy.exc import SQLAlchemyError

from tasks.config.servers import reach
from tasks.config.settings import Home
from tasks.databases import is_known, newer_than, prepared
from tasks.errors import RegistryError, TandemError
from tasks.registry.locations import check_locations

P = ParamSpec("P")
R = TypeVar("R")

# It prints the traceback of every database error, which is raised as well and explained below.
logging.getLogger("mlflow.store.db.utils").setLevel(logging.CRITICAL)


def connect(home: Home) -> MlflowClient:
    """A client for this home's MLflow; the embedded database is created at first use.

    What an older Tandem left there has its mark afterwards (see `adoption`). Raises RegistryError where the home
    is a copy that names the files of another, and within seconds where a server does not answer.
    """
    from tasks.registry.adoption import adopt  # which reads by what stands below

    check_locations(home)
    uri = home.tracking_uri
    with failures_explained(uri):
        reach(uri)
        if uri.startswith("sqlite:") and not database_of(uri).exists():
            _create_database(home, database_of(uri))
        client = MlflowClient(uri, uri)
        adopt(client)
        return client


def registry(client: MlflowClient) -> ModelRegistryClient:
    """The part of a client that holds models and prompts alike; the calls of the client itself hide prompts."""
    return client._get_registry_client()


def explained(
    function: Callable[Concatenate[MlflowClient, P], R],
) -> Callable[Concatenate[MlflowClient, P], R]:
    """Let a function that takes the client first raise RegistryError where MLflow fails."""

    @functools.wraps(function)
    def call(client: MlflowClient, /, *args: P.args, **kwargs: P.kwargs) -> R:
        with failures_explained(client.tracking_uri):
            return function(client, *args, **kwargs)

    return call


@contextmanager
def failures_explained(uri: str) -> Iterator[None]:
    """Raise RegistryError, with the address and what to do, for whatever MLflow raises inside."""
    try:
        yield
    except (MlflowException, SQLAlchemyError, OSError) as error:
        if isinstance(error, TandemError):
            raise
        raise RegistryError(_explanation(uri, error)) from error


def database_of(uri: str) -> Path:
    """The file of an ``sqlite:///`` address."""
    return Path(uri.removeprefix("sqlite:///")).absolute()


def _create_database(home: Home, database: Path) -> None:
    """MLflow makes its schema in many steps and without a lock: do it once, aside, and put it in place whole."""
    home.locks.mkdir(parents=True, exist_ok=True)
    database.parent.mkdir(parents=True, exist_ok=True)
    with FileLock(home.locks / "mlflow.lock"):
        if database.exists():
            return
        aside = database.with_name(f"{database.name}.new")
        aside.unlink(missing_ok=True)
        if (empty := prepared("mlflow")).exists():
            shutil.copy(empty, aside)
        else:
            MlflowClient(f"sqlite:///{aside}").search_experiments(max_results=1)
        with closing(sqlite3.connect(aside)) as opened, opened:
            # of the experiment that every database has; MLflow takes the folder in which it made the database
            opened.execute("UPDATE experiments SET artifact_location = ?", (str(home.mlruns / "artifacts" / "0"),))
        aside.rename(database)


def _fullest(uri: str, error: Exception) -> str:
    """What lies on the disk that is full: the file, where one is named; else MLflow's own, or that of temporary files.

    A version is put together among the temporary files, and a write to one names no file.
    """
    if named := getattr(error, "filename", None):
        return str(named)
    temporary = tempfile.gettempdir()
    if uri.startswith("sqlite:"):
        own = shutil.disk_usage(database_of(uri).parent).free
        if own <= shutil.disk_usage(temporary).free:
            return f"MLflow ({uri})"
    elif isinstance(error, MlflowException | SQLAlchemyError):
        return f"MLflow ({uri})"
    return f"the temporary files ({temporary}, see TMPDIR)"


def _is_full(error: BaseException) -> bool:
    return isinstance(error, OSError) and error.errno in (ENOSPC, EDQUOT)


def _chain(error: BaseException | None) -> Iterator[BaseException]:
    """The error and those that it was made of, which MLflow does not always repeat."""
    while error is not None:
        yield error
        error = error.__cause__ or error.__context__


def _explanation(uri: str, error: Exception) -> str:
    # What the database itself said, without the statement that SQLAlchemy wraps around it.
    said = str(getattr(error.__cause__, "orig", error)).strip()
    what = said.partition("\n")[0]
    if "disk is full" in said or "No space left" in said or any(_is_full(one) for one in _chain(error)):
        return f"the disk under {_fullest(uri, error)} is full: free some space and run again ({what})"
    code = getattr(error, "error_code", "")
    if code == "UNAUTHENTICATED":
        return f"MLflow at {uri} asks who you are: set MLFLOW_TRACKING_USERNAME and MLFLOW_TRACKING_PASSWORD"
    if code == "PERMISSION_DENIED":
        who = os.environ.get("MLFLOW_TRACKING_USERNAME", "this user")
        return f"MLflow at {uri} does not let {who} do this: ask its administrator for the permission ({what})"
    if (found := re.search(r"out-of-date database schema \(found version (\w+)", what)) and not is_known(
        "mlflow", found[1]
    ):
        return f"MLflow at {uri} has a database of {newer_than('mlflow')}"
    # An error of the system that names no file is one of the network.
    if "API request to" in what or (isinstance(error, OSError) and error.filename is None):
        return f"MLflow at {uri} does not answer: start it, or check MLFLOW_TRACKING_URI ({what})"
    return f"MLflow at {uri}: {what}"
