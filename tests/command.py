"""Runs the `tandem` command in this process, over an index that is made once for all tests and copied."""

import functools
import json
import sys
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import pytest
import yaml

from flows.cli import main
from tasks.config.settings import Home
from tests.homes import copy_home, template, use_home
from tests.nights import golden_for_facts, page, write_facts
from tests.registry_fixtures import empty_home


@dataclass(frozen=True)
class Said:
    """What one command printed, and its exit status."""

    status: int
    out: str
    err: str

    @property
    def json(self) -> Any:
        """Raises unless there is one JSON object on standard output and nothing else there."""
        return json.loads(self.out)


Tandem = Callable[..., Said]


def runner(capsys: pytest.CaptureFixture[str]) -> Tandem:
    """The command as a function of its arguments."""

    def run(*arguments: object) -> Said:
        capsys.readouterr()
        status = call(*arguments)
        said = capsys.readouterr()
        return Said(status, said.out, said.err)

    return run


def call(*arguments: object) -> int:
    """Do what the console script does; returns its exit status."""
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(sys, "argv", ["tandem", *map(str, arguments)])
        patch.setenv("PREFECT_LOGGING_HANDLERS_CONSOLE_LEVEL", "CRITICAL")
        with pytest.raises(SystemExit) as ended:
            main()
    return int(ended.value.code or 0)


@functools.cache
def three_nights() -> Home:
    """Three nights, each with another temperature for the tea: version 3 is live, and 2 was before."""
    return Home(template("nights", _make_three_nights) / "home")


def _make_three_nights(folder: Path) -> None:
    home = copy_home(empty_home(), folder / "home")
    site = folder / "site"
    site.mkdir()
    write_facts(site)
    golden = golden_for_facts(folder)
    config = _write_config(folder, site, {"golden": golden, "gate": {"min_queries": 10}})
    with pytest.MonkeyPatch.context() as patch:
        use_home(home, patch)
        for temperature in ("sixty", "seventy", "eighty"):
            page(site, "tea", f"Green tea is steeped at {temperature} degrees for two minutes.")
            assert call("reindex", config) == 0


def site_of_nights() -> Path:
    return three_nights().root.parent / "site"


def golden_of_nights() -> Path:
    return three_nights().root.parent / "golden.jsonl"


def write_config(folder: Path, settings: dict[str, Any]) -> Path:
    """The configuration of the nights with other settings; the site is beside the template's home."""
    return _write_config(folder, site_of_nights(), settings)


def _write_config(folder: Path, site: Path, settings: dict[str, Any]) -> Path:
    source = {"name": "docs", "location": str(site)}
    path = folder / "docs.yaml"
    path.write_text(yaml.safe_dump({"name": "docs", "sources": [source], "lock_minutes": 0} | settings))
    return path
