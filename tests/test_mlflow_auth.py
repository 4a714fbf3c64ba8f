"""An MLflow server that asks who one is, and what an ordinary user may do there."""

from collections.abc import Iterator

import httpx
import pytest

from tasks.config.settings import Home
from tasks.errors import RegistryError
from tasks.registry.connection import connect
from tasks.registry.pointers import delete_version, pointers
from tasks.registry.versions import list_names, next_number, resolve_champion
from tests.servers import free_port, mlflow_server

ADMIN, ADA = ("admin", "adminpass98765"), ("ada", "adasecret12345")
SETTINGS = """[mlflow]
default_permission = READ
database_uri = sqlite:///{folder}/auth.db
admin_username = {admin}
admin_password = {password}
authorization_function = mlflow.server.auth:authenticate_request_basic_auth
"""


@pytest.fixture(scope="module")
def server(tmp_path_factory: pytest.TempPathFactory) -> Iterator[str]:
    """The address of a server that knows an administrator and Ada."""
    folder, port = tmp_path_factory.mktemp("auth"), free_port()
    settings = folder / "auth.ini"
    settings.write_text(SETTINGS.format(folder=folder, admin=ADMIN[0], password=ADMIN[1]))
    with pytest.MonkeyPatch.context() as patch:
        patch.setenv("MLFLOW_AUTH_CONFIG_PATH", str(settings))
        patch.setenv("MLFLOW_FLASK_SERVER_SECRET_KEY", "of this test")
        with mlflow_server(folder, port, "--app-name", "basic-auth"):
            address = f"http://127.0.0.1:{port}"
            user = {"username": ADA[0], "password": ADA[1]}
            made = httpx.post(f"{address}/api/2.0/mlflow/users/create", json=user, auth=ADMIN, timeout=60)
            assert made.status_code == 200, made.text
            yield address


def _be(monkeypatch: pytest.MonkeyPatch, server: str, name: str, password: str) -> None:
    monkeypatch.setenv("MLFLOW_TRACKING_URI", server)
    monkeypatch.setenv("MLFLOW_TRACKING_USERNAME", name)
    monkeypatch.setenv("MLFLOW_TRACKING_PASSWORD", password)


def test_an_ordinary_user_begins_with_a_model_that_does_not_exist_yet(
    server: str, home: Home, monkeypatch: pytest.MonkeyPatch
) -> None:
    _be(monkeypatch, server, *ADA)
    client = connect(home)
    assert resolve_champion(client, "quays") is None
    assert pointers(client, "quays").champion is None
    assert next_number(client, "quays") == 1
    client.create_registered_model("quays")
    assert resolve_champion(client, "quays") is None


def test_who_is_not_known_and_who_may_not_is_told_what_is_missing(
    server: str, home: Home, monkeypatch: pytest.MonkeyPatch
) -> None:
    _be(monkeypatch, server, ADA[0], "wrong")
    with pytest.raises(RegistryError, match=r"asks who you are: set MLFLOW_TRACKING_USERNAME and") as unknown:
        list_names(connect(home))
    assert "wrong" not in str(unknown.value)
    _be(monkeypatch, server, *ADMIN)
    client = connect(home)
    client.create_registered_model("boats")
    run = client.create_run("0")
    client.create_model_version("boats", f"{run.info.artifact_uri}/model", run.info.run_id)
    _be(monkeypatch, server, *ADA)
    with pytest.raises(RegistryError, match="does not let ada do this: ask its administrator for the permission"):
        delete_version(connect(home), "boats", 1)
