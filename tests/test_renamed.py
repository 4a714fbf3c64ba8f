"""A model that somebody renames in MLflow's page keeps its files, and is told of where its old name is used."""

from pathlib import Path

import pytest
from mlflow import MlflowClient

from tasks.config.maintenance import MaintainConfig
from tasks.config.settings import Home
from tasks.doctor import examine
from tasks.housekeeping import find_due
from tasks.index.store import IndexStore
from tasks.mend import mend_all
from tasks.proof import prove
from tasks.registry.connection import connect
from tasks.registry.versions import load_manifest
from tests.command import Tandem, golden_of_nights, write_config
from tests.registry_fixtures import add_version

TOLD = "docs was renamed docs-old in MLflow"
ADVICE = "rename it back there, or write `name: docs-old` in its configuration"
AFTER_60_DAYS = 4e9


@pytest.fixture
def client(home_of_nights: Home) -> MlflowClient:
    client = connect(home_of_nights)
    client.rename_registered_model("docs", "docs-old")
    return client


def tags(client: MlflowClient) -> set[str]:
    manifest = load_manifest(client, "docs-old", "champion")
    return set(IndexStore.open(manifest["uri"], manifest["table"]).tags())


def test_a_renamed_model_is_named_and_the_configuration_with_its_old_name_is_told(
    client: MlflowClient, home_of_nights: Home, tandem: Tandem, tmp_path: Path
) -> None:
    assert [(found.what, found.remedy) for found in examine(home_of_nights)] == [(TOLD, ADVICE)]
    for command in (["reindex", write_config(tmp_path, {})], ["mend", "docs"], ["rollback", "docs"]):
        said = tandem(*command)
        assert (said.status, f"tandem: {TOLD}: {ADVICE}" in said.err) == (1, True)
    assert f"docs has no version champion: {TOLD}" in tandem("search", "docs", "tea").err
    assert tandem("search", "docs-old", "tea").status == 0
    client.rename_registered_model("docs-old", "docs")
    assert examine(home_of_nights) == []


def test_a_renamed_model_goes_on_under_its_new_name(
    client: MlflowClient, home_of_nights: Home, tandem: Tandem, tmp_path: Path
) -> None:
    new = {"name": "docs-old", "golden": str(golden_of_nights()), "gate": {"min_queries": 10}}
    assert tandem("reindex", write_config(tmp_path, new)).status == 0
    assert tags(client) == {"v4"}
    assert tandem("mend", "docs").status == 0  # its ledger ends
    assert examine(home_of_nights) == []
    assert tandem("rollback", "docs-old", "--to", 3).status == 0
    assert tags(client) == {"v1", "v2", "v3"}


def test_a_renamed_model_keeps_its_files_while_another_has_its_old_name(
    client: MlflowClient, home_of_nights: Home
) -> None:
    add_version(client, "docs")  # as a night did before renaming was recognised
    for due in find_due(MaintainConfig(depth=1, days=0, cache_days=0), home_of_nights, AFTER_60_DAYS):
        due.act()
    mend_all("docs", home_of_nights)
    assert {"v2", "v3"} <= tags(client)
    for number in (2, 3):
        prove(load_manifest(client, "docs-old", number))
