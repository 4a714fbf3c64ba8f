"""An index goes back by hand in MLflow's page: the service answers from it within seconds, whole, and without a run."""

import os
import statistics
import threading
import time
from collections.abc import Iterator
from contextlib import contextmanager
from contextvars import copy_context
from pathlib import Path
from typing import Any

import pytest
import yaml
from mlflow import MlflowClient
from prefect import get_client
from prefect.client.orchestration import SyncPrefectClient
from prefect.client.schemas.actions import DeploymentUpdate

from tasks.config.deployments import DeploymentsConfig
from tasks.config.settings import Home
from tasks.deploy import deploy_all
from tasks.doctor import examine
from tasks.follow import Followed, start_followers, wait_for_a_move
from tasks.lock import model_lock
from tasks.register import PUT_BACK, VERDICT_TAG
from tasks.registry import ledger
from tasks.registry.connection import connect, registry
from tasks.registry.pointers import hold, pointers, promote
from tests.homes import copy_home, use_home
from tests.nights import FACTS, page
from tests.released import NAME, Serving, add_index, mixed, served, two_releases
from tests.waiting import wait_for

ROOT = Path(__file__).resolve().parents[1]
MOVES = int(os.environ.get("TANDEM_MOVES", "4"))
SECONDS = 5.0 if MOVES >= 20 else 15.0
"""With other tests beside it, the machine is busy."""


def _aliased(client: MlflowClient, number: int) -> None:
    """As a hand in MLflow's page does it."""
    registry(client).set_registered_model_alias("docs", "champion", str(number))


@pytest.fixture
def home(prefect: None, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Home:
    """Release 2 is live, made of index 2; release 1 was live before it, made of index 1."""
    home = use_home(copy_home(two_releases(), tmp_path / "home"), monkeypatch)
    client = connect(home)
    for number in (1, 2):
        promote(client, NAME, number, by="a test", reason="as it was", prove=lambda manifest: None)
    _aliased(client, 2)
    return home


@pytest.fixture
def server(home: Home, tmp_path: Path) -> Iterator[SyncPrefectClient]:
    """A Prefect server with the deployed release, whose runs nobody works on."""
    golden = tmp_path / "golden.jsonl"
    golden.write_text("")
    settings = {"name": NAME, "index": "docs@champion", "policy": "extractive", "golden": str(golden)}
    (tmp_path / "desk.yaml").write_text(yaml.safe_dump(settings))
    release = {"name": NAME, "flow": "flows/release.py:release", "config": str(tmp_path / "desk.yaml")}
    deployed = {"work_pools": [{"name": "back"}], "deployments": [release | {"work_pool": "back"}]}
    (name,), _ = deploy_all(DeploymentsConfig.model_validate(deployed), ROOT)
    with get_client(sync_client=True) as client:
        yield client
        client.delete_deployment(client.read_deployment_by_name(name).id)


def _runs(server: SyncPrefectClient) -> int:
    return len([run for run in server.read_flow_runs() if run.work_pool_name == "back"])


@contextmanager
def _watched(home: Home) -> Iterator[None]:
    """What the watcher does about releases, until the block ends."""
    stop = threading.Event()

    def look() -> None:
        followed = Followed()
        with get_client(sync_client=True) as client:
            while not stop.is_set():
                wait_for_a_move(home, start_followers(client, home, followed), followed, 10)

    thread = threading.Thread(target=copy_context().run, args=(look,))
    thread.start()
    try:
        yield
    finally:
        stop.set()
        thread.join()


@contextmanager
def _asked(serving: Serving, said: list[dict[str, Any]]) -> Iterator[None]:
    """Somebody asks all the time; every answer has to come."""
    stop = threading.Event()

    def ask() -> None:
        while not stop.is_set():
            said.append(serving.ask(tenant="north").raise_for_status().json() | {"at": time.monotonic()})
            time.sleep(0.05)

    thread = threading.Thread(target=ask)
    thread.start()
    try:
        yield
    finally:
        stop.set()
        thread.join()


@pytest.mark.timeout(600)
def test_the_service_answers_from_the_index_that_somebody_went_back_to(home: Home, server: SyncPrefectClient) -> None:
    client, said, took = connect(home), list[dict[str, Any]](), list[float]()
    with served(home, poll_seconds=1) as serving, _watched(home), _asked(serving, said):
        for move in range(MOVES):
            number = 1 + move % 2
            began = time.monotonic()
            _aliased(client, number)
            wait_for(lambda wanted=f"docs@{number}": said and said[-1]["versions"]["index"] == wanted, 60)
            took.append(said[-1]["at"] - began)
    assert [one["versions"] for one in said if mixed(one)] == []
    assert max(took) < SECONDS, took
    print(f"{MOVES} moves: median {statistics.median(took):.1f} s, p95 {sorted(took)[int(0.95 * len(took)) - 1]:.1f} s")
    last = ledger.history(client, NAME)[-1]
    assert (last.by, last.after) == ("tandem watch", number)
    assert last.reason == f"docs@{number} went live again, and version {number} was live with it before"


def _third_index(home: Home, folder: Path) -> None:
    """Index 3, which no release is made of, and index 2 again, were live; as the ledger has it."""
    client = connect(home)
    for tenant in ("north", "south"):
        page(folder / tenant, "tea", f"{FACTS['tea']} So it is in the {tenant}.".replace("eighty", "ninety"))
    assert add_index(client, home, folder) == "docs@3"
    for number in (3, 2):
        promote(client, "docs", number, by="a test", reason="as it was", prove=lambda manifest: None)


@pytest.mark.timeout(600)
def test_a_release_that_never_was_is_made_of_an_index_that_was_live_before_and_examined_once(
    home: Home, server: SyncPrefectClient, tmp_path: Path
) -> None:
    client, followed = connect(home), Followed()
    _third_index(home, tmp_path)
    with served(home, poll_seconds=1) as serving:
        start_followers(server, home, followed)
        before = _runs(server)
        began = time.monotonic()
        _aliased(client, 3)
        start_followers(server, home, followed)
        wait_for(lambda: serving.ask(tenant="north").json()["versions"]["index"] == "docs@3", 60)
        took = time.monotonic() - began
        assert "ninety degrees" in serving.ask(tenant="north").text
    print(f"served from a release that never was after {took:.1f} s")
    last = ledger.history(client, NAME)[-1]
    assert (last.by, last.before, last.after) == ("tandem watch", 2, 3)
    assert last.reason == "docs@3 went live again; the rest is as in version 2"
    version = client.get_model_version(NAME, "3")
    assert (version.tags[VERDICT_TAG], version.tags["result"]) == (PUT_BACK, "put back, not examined yet")
    assert [found.remedy for found in examine(home)] == ["tandem mend docs"]  # whose alias was moved by hand
    for _ in range(2):
        start_followers(server, home, followed)
    assert _runs(server) == before + 1  # which examines it
    start_followers(server, home, Followed())  # as after a restart of the watcher
    assert _runs(server) == before + 1


def test_none_is_made_of_an_index_that_was_never_live_or_where_none_may_go_live(
    home: Home, server: SyncPrefectClient, tmp_path: Path
) -> None:
    client, followed = connect(home), Followed()
    _third_index(home, tmp_path)
    start_followers(server, home, followed)
    deployed = server.read_deployments()[0]
    never = deployed.parameters["config"] | {"promote": "never"}
    server.update_deployment(deployed.id, DeploymentUpdate(parameters={"config": never}))
    _aliased(client, 3)
    start_followers(server, home, followed)
    assert pointers(client, NAME).champion == 2
    server.update_deployment(deployed.id, DeploymentUpdate(parameters=deployed.parameters))
    assert add_index(client, home, tmp_path) == "docs@4"
    _aliased(client, 4)
    start_followers(server, home, followed)
    assert pointers(client, NAME).champion == 2
    assert len(client.search_model_versions(f"name = '{NAME}'")) == 2


def test_while_a_release_run_is_under_way_none_is_made_and_then_it_is(
    home: Home, server: SyncPrefectClient, tmp_path: Path
) -> None:
    client, followed = connect(home), Followed()
    _third_index(home, tmp_path)
    start_followers(server, home, followed)
    with model_lock(home.locks, NAME, 0):
        _aliased(client, 3)
        start_followers(server, home, followed)
        assert pointers(client, NAME).champion == 2
    start_followers(server, home, followed)
    assert pointers(client, NAME).champion == 3


def test_a_release_that_is_held_or_was_never_live_is_not_put_back(home: Home, server: SyncPrefectClient) -> None:
    client, followed = connect(home), Followed()
    start_followers(server, home, followed)
    hold(client, NAME, by="a test", reason="as it is")
    _aliased(client, 1)
    start_followers(server, home, followed)
    assert pointers(client, NAME).champion == 2
    assert _runs(server) == 1  # which makes the release of it, for a person to approve


def test_a_release_that_a_person_moves_stays_where_it_was_put(home: Home, server: SyncPrefectClient) -> None:
    client, followed = connect(home), Followed()
    start_followers(server, home, followed)
    registry(client).set_registered_model_alias(NAME, "champion", "1")  # while index 2 is live
    for _ in range(2):
        start_followers(server, home, followed)
    assert pointers(client, NAME).champion == 1
