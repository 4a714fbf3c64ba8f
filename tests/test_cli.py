"""The command as a person or a script meets it."""

import os
import subprocess
import sys
import time
from pathlib import Path

import pytest
import yaml

from tasks.config.settings import Home

ROOT = Path(__file__).resolve().parents[1]
TANDEM = Path(sys.executable).with_name("tandem")


def tandem(*arguments: object, **environment: str) -> subprocess.CompletedProcess[str]:
    command = [str(TANDEM), *map(str, arguments)]
    return subprocess.run(
        command, capture_output=True, text=True, check=False, cwd=ROOT, env=os.environ | environment, timeout=240
    )


def write_config(folder: Path, **settings: object) -> Path:
    site = folder / "site"
    site.mkdir(exist_ok=True)
    values = {"name": "docs", "sources": [{"name": "docs", "location": str(site)}]} | settings
    path = folder / "docs.yaml"
    path.write_text(yaml.safe_dump(values))
    return path


def test_help_answers_in_under_half_a_second() -> None:
    fastest = min(_seconds("--help") for _ in range(5))
    assert fastest < 0.5


def _seconds(*arguments: str) -> float:
    start = time.perf_counter()
    assert tandem(*arguments).returncode == 0
    return time.perf_counter() - start


def test_an_unknown_key_is_named_with_its_file_and_what_was_probably_meant(tmp_path: Path, home: Home) -> None:
    config = write_config(tmp_path, chunking={"max_token": 100})
    done = tandem("reindex", config)
    assert done.returncode == 2
    assert str(config) in done.stderr
    assert "chunking.max_token: unknown key; did you mean max_tokens?" in done.stderr
    assert "Traceback" not in done.stderr


@pytest.mark.usefixtures("prefect")
class TestWithPrefect:
    """These run flows, on the tests' own server."""
