"""The doctor tells what somebody moved, removed or broke behind Tandem's back, and advises what is safe."""

import shutil
from collections.abc import Callable

import pytest
from mlflow import MlflowClient

from tasks.config.settings import Home
from tasks.doctor import examine
from tasks.index.store import IndexStore
from tasks.mend import mend_all
from tasks.promote import promote_by_hand
from tasks.registry.connection import connect
from tasks.registry.pointers import propose
from tasks.registry.versions import load_manifest


@pytest.fixture
def client(home_of_nights: Home) -> MlflowClient:
    return connect(home_of_nights)


def found(home: Home) -> list[tuple[str, str]]:
    return [(finding.what, finding.remedy) for finding in examine(home)]


@pytest.mark.parametrize(
    ("damage", "what"),
    [
        (lambda client: client.delete_model_version("docs", "2"), "nothing is previous; version 2 was"),
        (lambda client: client.delete_registered_model_alias("docs", "previous"), "nothing is previous"),
        (lambda client: client.set_registered_model_alias("docs", "previous", "1"), "version 1 is previous, but"),
        (lambda client: client.set_registered_model_alias("docs", "candidate", "1"), "but the ledger says none"),
    ],
)
def test_every_pointer_is_compared_with_the_ledger(
    client: MlflowClient, home_of_nights: Home, damage: Callable[[MlflowClient], None], what: str
) -> None:
    damage(client)
    [(said, remedy)] = found(home_of_nights)
    assert what in said
    assert remedy == "tandem mend docs"
    mend_all("docs", home_of_nights)
    assert found(home_of_nights) == []


def test_only_a_version_that_was_live_before_is_advised(client: MlflowClient, home_of_nights: Home) -> None:
    promote_by_hand("docs", 1, "ann", "as it was", home_of_nights)
    client.delete_model_version("docs", "1")
    assert [remedy for _, remedy in found(home_of_nights)] == ["tandem promote docs 3"]
    client.delete_model_version("docs", "3")
    remedies = [remedy for _, remedy in found(home_of_nights)]
    assert "tandem promote docs 2" in remedies


def test_a_candidate_that_does_not_load_is_found(client: MlflowClient, home_of_nights: Home) -> None:
    propose(client, "docs", 1, by="ann", reason="look again")
    manifest = load_manifest(client, "docs", 1)
    store = IndexStore.open(manifest["uri"], manifest["table"])
    store.untag("v1")
    [(said, _)] = found(home_of_nights)
    assert "the tag v1 that protects version 1 (candidate) is gone" in said


def test_a_table_that_was_removed_breaks_every_version_in_it(client: MlflowClient, home_of_nights: Home) -> None:
    shutil.rmtree(home_of_nights.lancedb)
    (champion, rebuild), (previous, hint) = found(home_of_nights)
    assert "version 3 (champion): cannot open the table" in champion
    assert "version 2 (previous): cannot open the table" in previous
    assert (rebuild, hint) == ("tandem promote docs 2", "tandem rollback docs --to 1, if a rollback is needed")
