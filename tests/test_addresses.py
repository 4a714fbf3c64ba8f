"""Passwords and tokens in addresses: refused where they are read, given through the environment instead."""

import base64
import http.server
import threading
from collections.abc import Iterator
from functools import partial
from pathlib import Path
from typing import Any

import pytest
from git import Repo
from pydantic import BaseModel

from tasks.config.addresses import shown
from tasks.config.answering import EndpointConfig
from tasks.config.index import ReindexConfig, SourceConfig
from tasks.config.loading import parse_config
from tasks.config.settings import Home
from tasks.config.training import DatasetConfig
from tasks.documents.sources import list_source
from tasks.errors import ConfigError, SourceError
from tests.command import Tandem

TOKEN = "glpat-" + "a1B2c3D4e5F6g7H8i9J0"
SECRET = [
    f"https://oauth2:{TOKEN}@host/group/handbook.git",
    f"https://{TOKEN}@host/group/handbook.git",
    f"ssh://ada:{TOKEN}@host/handbook.git",
    f"https://host/export.zip?X-Amz-Signature={TOKEN}&X-Amz-Date=1",
    f"abfs://container/docs?sig={TOKEN}",
    f"https://host/feed?access_token={TOKEN}",
]
PLAIN = [
    "https://ada@host/handbook.git",
    "git@host:group/handbook.git",
    "ssh://git@host/x.git",
    "docs",
    "s3://bucket/a?v=1",
]


def _index(location: str) -> dict[str, Any]:
    return {"name": "quays", "sources": [{"name": "pages", "kind": "git", "location": location}]}


def _rows(location: str) -> dict[str, Any]:
    return {"format": "messages", "sources": ["rows.jsonl"], "held_out": [location]}


def _endpoint(location: str) -> dict[str, Any]:
    return {"base_url": location, "model": "m"}


@pytest.mark.parametrize(
    ("make", "model"), [(_index, ReindexConfig), (_rows, DatasetConfig), (_endpoint, EndpointConfig)]
)
@pytest.mark.parametrize("location", SECRET)
def test_an_address_with_a_secret_is_refused_and_not_repeated(make: Any, model: type[BaseModel], location: str) -> None:
    with pytest.raises(ConfigError, match="give it through the environment") as caught:
        parse_config(make(location), model, "quays.yaml")
    assert TOKEN not in str(caught.value)
    with pytest.raises(ValueError, match="environment") as raw:  # as Prefect logs it
        model.model_validate(make(location))
    assert TOKEN not in str(raw.value)


@pytest.mark.parametrize("location", PLAIN)
def test_an_address_without_a_secret_is_taken_as_it_is(location: str) -> None:
    assert ReindexConfig.model_validate(_index(location)).sources[0].location == location


def test_what_a_library_says_is_shown_without_users_and_queries() -> None:
    said = f"fatal: https://ada:{TOKEN}@host/x.git and s3://bucket/a.jsonl?key={TOKEN}: denied"
    assert shown(said) == "fatal: https://host/x.git and s3://bucket/a.jsonl denied"
    assert shown("part-?.jsonl") == "part-?.jsonl"


@pytest.fixture
def private_origin(tmp_path: Path) -> Iterator[str]:
    """A repository behind a server that asks for a token, as hosts of repositories do."""
    root = tmp_path / "private"
    with Repo.init(root, initial_branch="main") as repo:
        (root / "page.md").write_text("# Page\n")
        repo.git.add("--all")
        repo.git.execute(["git", "-c", "user.name=a", "-c", "user.email=a@b.c", "commit", "-qm", "first"])
        repo.git.update_server_info()
    expected = "Basic " + base64.b64encode(f"x-access-token:{TOKEN}".encode()).decode()

    class Guarded(http.server.SimpleHTTPRequestHandler):
        def do_GET(self) -> None:
            if self.headers.get("Authorization") == expected:
                super().do_GET()
            else:
                self.send_error(401)

        def log_message(self, *args: Any) -> None:
            pass

    server = http.server.ThreadingHTTPServer(("127.0.0.1", 0), partial(Guarded, directory=str(root)))
    threading.Thread(target=server.serve_forever, args=(0.02,), daemon=True).start()
    yield f"http://127.0.0.1:{server.server_port}/.git"
    server.shutdown()
    server.server_close()


def test_a_token_in_the_environment_opens_a_private_repository_and_is_written_nowhere(
    private_origin: str, home: Home, monkeypatch: pytest.MonkeyPatch
) -> None:
    source = SourceConfig(name="pages", kind="git", location=private_origin, token_env="HANDBOOK_TOKEN")
    with pytest.raises(SourceError, match="the environment variable HANDBOOK_TOKEN holds no access token"):
        list_source(source, home)
    monkeypatch.setenv("HANDBOOK_TOKEN", "wrong")
    with pytest.raises(SourceError, match="cannot fetch") as refused:
        list_source(source, home)
    assert "wrong" not in str(refused.value)
    monkeypatch.setenv("HANDBOOK_TOKEN", TOKEN)
    assert [file.path for file in list_source(source, home).files] == ["page.md"]
    assert [file.path for file in list_source(source, home).files] == ["page.md"]  # the second time it is fetched
    kept = [path.read_bytes() for path in home.root.rglob("*") if path.is_file()]
    assert not any(TOKEN.encode() in data for data in kept)
    with pytest.raises(ValueError, match="token_env is for a location that begins with https"):
        SourceConfig(name="pages", kind="git", location="http://host/x.git", token_env="HANDBOOK_TOKEN")


@pytest.mark.parametrize(
    ("variable", "address", "remedy"),
    [
        ("MLFLOW_TRACKING_URI", f"http://ada:{TOKEN}@127.0.0.1:9", "MLFLOW_TRACKING_PASSWORD"),
        ("MLFLOW_TRACKING_URI", f"postgresql://ada:{TOKEN}@127.0.0.1:9/mlflow", "PGPASSWORD"),
        ("PREFECT_API_URL", f"http://ada:{TOKEN}@127.0.0.1:9/api", "PREFECT_API_AUTH_STRING"),
    ],
)
def test_a_password_in_a_server_s_address_is_refused_with_the_variable_to_use(
    tandem: Tandem, home: Home, monkeypatch: pytest.MonkeyPatch, variable: str, address: str, remedy: str
) -> None:
    monkeypatch.setenv(variable, address)
    done = tandem("status")
    assert done.status == 2
    assert f"{variable} holds a password" in done.err
    assert remedy in done.err
    assert TOKEN not in done.out + done.err


def test_a_registry_in_a_relative_file_is_refused(tandem: Tandem, home: Home, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("MLFLOW_TRACKING_URI", "sqlite:///mlflow.db")
    done = tandem("status")
    assert done.status == 2
    assert "another file in every folder" in done.err
