"""What somebody deletes or copies in MLflow's page is told, restored where it can be, and no way back is lost."""

from collections.abc import Callable
from pathlib import Path

import pytest
from mlflow import MlflowClient
from mlflow.entities import ViewType

from tasks.config.settings import Home
from tasks.doctor import examine
from tasks.registry.connection import connect
from tasks.registry.ledger import EXPERIMENT, history
from tasks.registry.pointers import pointers
from tests.command import Tandem, golden_of_nights, write_config

RESTORED = "tandem mend docs"


@pytest.fixture
def client(home_of_nights: Home) -> MlflowClient:
    return connect(home_of_nights)


def delete_experiment(client: MlflowClient, name: str) -> None:
    client.delete_experiment(client.get_experiment_by_name(name).experiment_id)


def delete_ledger(client: MlflowClient) -> None:
    delete_experiment(client, EXPERIMENT)


def delete_runs(client: MlflowClient) -> None:
    delete_experiment(client, "index-docs")


def delete_run(client: MlflowClient) -> None:
    client.delete_run(client.get_model_version_by_alias("docs", "champion").run_id)


def delete_version(client: MlflowClient) -> None:
    client.delete_model_version("docs", "3")


def delete_alias(client: MlflowClient) -> None:
    client.delete_registered_model_alias("docs", "champion")


def copy_version(client: MlflowClient) -> None:
    client.copy_model_version("models:/docs/1", "docs-production")


STATES: list[tuple[Callable[[MlflowClient], None], str, str]] = [
    (delete_ledger, "the experiment ledger was deleted in MLflow", RESTORED),
    (delete_runs, "docs: the experiment index-docs was deleted in MLflow, and `mlflow gc` would take", RESTORED),
    (delete_run, "docs: the run of version 3 was deleted in MLflow, and `mlflow gc` would take", RESTORED),
    (delete_version, "docs: nothing is live; version 3 was, and it or its alias was removed", "tandem promote docs 2"),
    (delete_alias, "docs: nothing is live; version 3 was, and it or its alias was removed", "tandem promote docs 3"),
    (
        copy_version,
        "docs-production: version 1 is a copy of docs version 1",
        "tandem promote docs 1, if it was to go live; and delete the copy in MLflow",
    ),
]


@pytest.mark.parametrize(("damage", "what", "remedy"), STATES)
def test_each_is_told_and_a_rollback_works(
    client: MlflowClient,
    home_of_nights: Home,
    tandem: Tandem,
    damage: Callable[[MlflowClient], None],
    what: str,
    remedy: str,
) -> None:
    damage(client)
    assert remedy in [found.remedy for found in examine(home_of_nights) if what in found.what]
    assert tandem("rollback", "docs").status == 0
    assert (pointers(client, "docs").champion, history(client, "docs")[-1].after) == (2, 2)
    assert tandem("search", "docs", "green tea").status == 0


@pytest.mark.parametrize("damage", [delete_ledger, delete_runs, delete_run])
def test_what_is_only_marked_as_deleted_is_restored(
    client: MlflowClient, home_of_nights: Home, tandem: Tandem, damage: Callable[[MlflowClient], None]
) -> None:
    moves = history(client, "docs")
    damage(client)
    assert "which was deleted in MLflow" in tandem("mend", "docs").out
    assert (examine(home_of_nights), history(client, "docs")) == ([], moves)
    assert client.search_experiments(ViewType.DELETED_ONLY) == []
    assert client.get_run(client.get_model_version("docs", "3").run_id).info.lifecycle_stage == "active"


@pytest.mark.parametrize(("damage", "number"), [(delete_version, 2), (delete_alias, 3)])
def test_that_nothing_is_live_is_told_until_a_version_is_put_live(
    client: MlflowClient,
    home_of_nights: Home,
    tandem: Tandem,
    tmp_path: Path,
    damage: Callable[[MlflowClient], None],
    number: int,
) -> None:
    damage(client)
    assert tandem("mend", "docs").status == 0  # writes to the ledger that nothing is live
    remedy = f"tandem promote docs {number}"
    finding = {"what": "docs: nothing is live", "remedy": remedy}
    assert tandem("doctor", "--json").json["findings"] == [finding]
    assert finding in tandem("status", "--json").json["issues"]
    if damage is delete_alias:
        config = write_config(tmp_path, {"golden": str(golden_of_nights()), "gate": {"min_queries": 10}})
        night = tandem("reindex", config, "--json")
        assert (night.status, night.json["decision"]) == (1, "hold")
        assert night.json["reasons"][0] == f"Nothing is live. To put a version live: {remedy}."
    assert tandem(*remedy.split()[1:]).status == 0
    assert examine(home_of_nights) == []
