"""What the tests of the registry share: a home whose database is copied, and small versions to move about."""

import functools
from pathlib import Path
from typing import Any

from mlflow import MlflowClient

from tasks.config.settings import Home
from tasks.records import Version
from tasks.registry.connection import connect
from tasks.registry.runs import finish, start_run
from tasks.registry.versions import next_number, register
from tests.homes import copy_home, template

ECHO = "registry_echo:load"
"""The entry point that `write_echo` puts into a folder."""


@functools.cache
def empty_home() -> Home:
    """A home whose MLflow database has its schema and nothing else; making one takes seconds, a copy none."""
    return Home(template("empty", lambda folder: connect(Home(folder))))


def connected(home: Home, template: Home | None = None) -> MlflowClient:
    """A client for a new home, which is a copy of the template."""
    return connect(copy_home(template or empty_home(), home.root))


def add_version(client: MlflowClient, name: str = "docs", **more: Any) -> Version:
    """Register the next version; its manifest holds its number."""
    run_id = start_run(client, "reindex", "night", name)
    number = next_number(client, name)
    version = register(
        client,
        name,
        run_id,
        {"number": number},
        kind="index",
        number=number,
        entry_point=ECHO,
        requirements=["tandem"],
        **more,
    )
    finish(client, run_id)
    return version


def write_echo(folder: Path) -> None:
    """A module whose model answers every text with the manifest, the text and what else it was given."""
    folder.joinpath("registry_echo.py").write_text(
        "def load(manifest):\n"
        "    return lambda texts, **params: [{'of': manifest, 'text': text, **params} for text in texts]\n"
    )


def loads(manifest: dict[str, Any]) -> None:
    """Proves every version."""
