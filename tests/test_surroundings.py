"""A command in somebody's surroundings: their proxy, their Prefect, their folder, a user without a name."""

import getpass
import http.server
import os
import pwd
import shutil
import subprocess
import threading
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import pytest
import yaml

from flows import cli, demo
from tasks.config.settings import Home, find_path
from tasks.config.training import BaseModelConfig
from tasks.environment import prepare_environment, user_name
from tasks.training.base import fetch_base, hash_base, pin_base
from tests.installation import OWN, TANDEM
from tests.nights import config_over_facts
from tests.servers import free_port

ROOT = Path(__file__).resolve().parents[1]


@contextmanager
def _recorder() -> Iterator[tuple[str, list[str]]]:
    """A server that answers nothing but 502, and what it was asked for."""
    asked: list[str] = []

    class Recorder(http.server.BaseHTTPRequestHandler):
        def _any(self) -> None:
            asked.append(f"{self.command} {self.path}")
            self.send_error(502)

        do_GET = do_POST = do_CONNECT = do_PATCH = do_DELETE = _any

        def log_message(self, *args: Any) -> None:
            pass

    server = http.server.ThreadingHTTPServer(("127.0.0.1", 0), Recorder)
    threading.Thread(target=server.serve_forever, args=(0.02,), daemon=True).start()
    yield f"http://127.0.0.1:{server.server_port}", asked
    server.shutdown()
    server.server_close()


def _tandem(home: Home, cwd: Path, *arguments: object, **variables: str) -> subprocess.CompletedProcess[str]:
    environment = {name: value for name, value in os.environ.items() if name not in OWN and "proxy" not in name.lower()}
    environment |= {"TANDEM_HOME": str(home.root), **variables}
    command = [str(TANDEM), *map(str, arguments)]
    return subprocess.run(command, cwd=cwd, env=environment, capture_output=True, text=True, timeout=300)


@pytest.fixture
def config(tmp_path: Path) -> Path:
    file = tmp_path / "docs.yaml"
    file.write_text(yaml.safe_dump(config_over_facts(tmp_path).model_dump(mode="json", exclude_unset=True)))
    return file


@pytest.mark.timeout(300)
def test_a_proxy_and_the_prefect_of_another_project_are_asked_nothing(
    ready_home: Home, config: Path, tmp_path: Path
) -> None:
    elsewhere, profiles = tmp_path / "elsewhere", tmp_path / "profiles.toml"
    elsewhere.mkdir()
    with _recorder() as (address, asked):
        settings = f'[api]\nurl = "{address}/api"\nkey = "theirs"\n[server]\nallow_ephemeral_mode = false\n'
        database = f'[server.database]\nconnection_url = "sqlite+aiosqlite:///{elsewhere}/theirs.db"\n'
        (elsewhere / "prefect.toml").write_text(settings + database)
        (elsewhere / ".env").write_text(f"PREFECT_API_URL={address}/api\nPREFECT_API_AUTH_STRING=theirs\n")
        profiles.write_text(f'active = "team"\n[profiles.team]\nPREFECT_API_URL = "{address}/api"\n')
        proxies = dict.fromkeys(("HTTP_PROXY", "http_proxy", "HTTPS_PROXY", "https_proxy", "ALL_PROXY"), address)
        theirs = {"PREFECT_PROFILES_PATH": str(profiles), "NO_PROXY": "example.com", **proxies}
        done = _tandem(ready_home, elsewhere, "reindex", config, **theirs)
    assert done.returncode == 0, done.stderr
    assert asked == []
    assert done.stderr.startswith("prefect.toml and .env here: not used for Prefect")
    assert not (elsewhere / "theirs.db").exists()


def test_a_prefect_server_that_the_environment_names_is_named_first_and_has_to_answer(
    ready_home: Home, config: Path, tmp_path: Path
) -> None:
    url = f"http://127.0.0.1:{free_port()}/api"
    done = _tandem(ready_home, tmp_path, "reindex", config, PREFECT_API_URL=url)
    assert done.returncode == 1
    first, second = done.stderr.splitlines()
    assert first == f"Prefect server: {url} (PREFECT_API_URL)"
    assert second.startswith(f"tandem: the Prefect server at {url} does not answer")


def test_the_demo_knows_of_no_server_and_no_key_of_the_user(
    tandem: Any, home: Home, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    seen: dict[str, str] = {}

    def no_stories(root: Path, home: Home, say: Any) -> dict[str, Any]:
        seen.update(os.environ)
        raise cli.ConfigError("enough")

    with pytest.MonkeyPatch.context() as theirs:
        for name in [name for name in os.environ if name.startswith(("PREFECT_", "MLFLOW_"))]:
            theirs.setenv(name, os.environ[name])  # the demo takes them out: they are back afterwards
        for name in ("PREFECT_API_URL", "PREFECT_API_KEY", "PREFECT_PROFILE", "MLFLOW_TRACKING_URI"):
            theirs.setenv(name, "http://127.0.0.1:9/theirs")
        theirs.setattr(demo, "run_demo", no_stories)
        theirs.setattr(cli, "ROOT", tmp_path)
        theirs.chdir(tmp_path)
        assert tandem("demo").err.endswith("tandem: enough\n")
    assert not [name for name, value in seen.items() if value == "http://127.0.0.1:9/theirs"]
    assert seen["PREFECT_HOME"] == str(tmp_path / "data" / "demo" / "data" / "prefect")


def test_relative_paths_are_found_from_every_folder(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    project, elsewhere = tmp_path / "project", tmp_path / "elsewhere"
    shutil.copytree(ROOT / "data" / "models" / "tiny", project / "models" / "tiny")
    (project / "conf").mkdir()
    elsewhere.mkdir()
    monkeypatch.setenv("TANDEM_CONF", str(project / "conf"))
    base = BaseModelConfig(model="models/tiny")
    hashes = []
    for folder in (project, elsewhere, Path("/")):
        monkeypatch.chdir(folder)
        hashes.append(hash_base(fetch_base(base)))
        assert pin_base(base) == base
    assert len(set(hashes)) == 1
    (elsewhere / "rows.jsonl").write_text("here")
    (project / "rows.jsonl").write_text("there")
    monkeypatch.chdir(elsewhere)
    assert find_path("*.jsonl") == Path("*.jsonl")
    assert find_path("models/*") == project / "models" / "*"
    assert find_path("nowhere/x") == Path("nowhere/x")


@pytest.mark.parametrize("name", ["40%20", "what?", "näme", "~old", "a[1]"])
def test_a_home_whose_path_databases_would_write_otherwise_is_refused_before_anything_is_written(
    tmp_path: Path, name: str
) -> None:
    done = _tandem(Home(tmp_path / name), tmp_path, "status")
    assert done.returncode == 2
    assert done.stderr.startswith(f"tandem: the path of the home, {tmp_path / name}, holds ")
    assert list(tmp_path.iterdir()) == []


def test_a_user_whom_the_system_does_not_know_has_a_name_and_a_home(
    home: Home, monkeypatch: pytest.MonkeyPatch
) -> None:
    def unknown(uid: int) -> None:
        raise KeyError(f"getpwuid(): uid not found: {uid}")

    monkeypatch.setattr(pwd, "getpwuid", unknown)
    monkeypatch.setattr(os, "getuid", lambda: 4_242_424)
    for name in ("LOGNAME", "USER", "LNAME", "USERNAME", "HOME"):
        monkeypatch.delenv(name, raising=False)
    prepare_environment(home)
    assert user_name() == getpass.getuser() == "user-4242424"
    assert Path.home() == home.data
    monkeypatch.delenv("HOME")
    monkeypatch.delenv("LOGNAME")
