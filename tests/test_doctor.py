"""The doctor tells what somebody moved, removed or broke behind Tandem's back, and advises what is safe."""

import shutil
import socket
import sqlite3
from collections.abc import Callable
from contextlib import closing
from dataclasses import asdict
from pathlib import Path
from time import time

import lancedb
import pytest
from mlflow import MlflowClient

from tasks.config.maintenance import MaintainConfig
from tasks.config.settings import Home
from tasks.doctor import examine
from tasks.housekeeping import find_due
from tasks.index.store import IndexStore
from tasks.mend import mend_all
from tasks.promote import promote_by_hand
from tasks.records import AdapterManifest
from tasks.registry.connection import connect
from tasks.registry.pointers import HOLD_TAG, propose
from tasks.registry.runs import PROCESS_TAG, read_text, start_run
from tasks.registry.versions import load_manifest
from tests.command import Tandem
from tests.homes import copy_home, use_home
from tests.released import move, register_manifest, two_releases


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
    said = found(home_of_nights)
    assert what in said[0][0]
    assert {remedy for _, remedy in said} == {"tandem mend docs"}
    mend_all("docs", home_of_nights)
    assert found(home_of_nights) == []


def test_only_a_version_that_was_live_before_is_advised(client: MlflowClient, home_of_nights: Home) -> None:
    promote_by_hand("docs", 1, "ann", "as it was", home_of_nights)
    client.delete_model_version("docs", "1")
    assert [remedy for _, remedy in found(home_of_nights)] == ["tandem promote docs 3", "tandem mend docs"]
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
    (champion, rebuild), (previous, hint), (oldest, give_up) = found(home_of_nights)
    assert "version 3 (champion): cannot open the table" in champion
    assert "version 2 (previous): cannot open the table" in previous
    assert "version 1 can no longer be used: cannot open the table" in oldest
    assert rebuild.startswith("tandem reindex, sft, dpo or release CONF")
    assert hint == "nothing can be rolled back to until the next version goes live"
    assert give_up == "tandem remove docs 1"


def store_of(client: MlflowClient) -> IndexStore:
    manifest = load_manifest(client, "docs", 3)
    return IndexStore.open(manifest["uri"], manifest["table"])


def lose_state(client: MlflowClient) -> None:
    store_of(client).collect({"v2", "v3"})


def lose_files(client: MlflowClient, number: int = 1) -> None:
    shutil.rmtree(client.get_model_version("docs", str(number)).source.removeprefix("file://"))


def break_alias(client: MlflowClient) -> None:
    with closing(sqlite3.connect(client.tracking_uri.removeprefix("sqlite:///"))) as database, database:
        database.execute("UPDATE registered_model_aliases SET version = 7 WHERE alias = 'champion'")


def die_at_work(client: MlflowClient, model: str) -> None:
    run_id = start_run(client, "shadow-desk", "shadow", model)
    client.set_tag(run_id, PROCESS_TAG, f"{socket.gethostname()}#{2**22 + 1} 0.0")


@pytest.mark.parametrize(
    ("damage", "what", "remedy"),
    [
        (lambda client: store_of(client).untag("v1"), "the tag v1 that protects version 1 is gone", "tandem mend docs"),
        (lambda client: store_of(client).tag("v9", 1), "docs: no version goes by v9", "tandem mend docs"),
        (lose_state, "docs: version 1 can no longer be used: cannot open", "tandem remove docs 1"),
        (lose_files, "version 1 can no longer be used: the manifest of docs version 1", "tandem remove docs 1"),
        (break_alias, "docs: champion points at version 7, which is gone", "tandem mend docs; tandem promote docs 3"),
        (lambda client: die_at_work(client, "docs"), "docs: 1 MLflow runs are RUNNING", "tandem mend docs"),
        (lambda client: die_at_work(client, "desk"), "desk: 1 MLflow runs are RUNNING", "tandem mend desk"),
        (
            lambda client: client.set_registered_model_tag("docs", HOLD_TAG, "mine"),
            "docs: MLflow says mine, the ledger not held",
            "tandem mend docs",
        ),
        (
            lambda client: client.delete_registered_model("docs"),
            "docs: the ledger says champion 3, previous 2, and MLflow has no such model",
            "tandem mend docs",
        ),
    ],
)
def test_what_does_not_fit_is_named_with_the_command_that_mends_it(
    client: MlflowClient,
    home_of_nights: Home,
    tandem: Tandem,
    damage: Callable[[MlflowClient], None],
    what: str,
    remedy: str,
) -> None:
    assert found(home_of_nights) == []
    damage(client)
    said = [advised for told, advised in found(home_of_nights) if what in told]
    assert said == [remedy]
    follow(remedy, tandem)
    assert found(home_of_nights) == []
    assert tandem("doctor").out == "Everything is in order.\n"


def follow(remedy: str, tandem: Tandem) -> None:
    for command in remedy.split("; "):
        program, *arguments = command.split()
        assert program == "tandem"
        assert tandem(*arguments).status == 0, command


def test_a_run_whose_process_works_on_it_is_left_alone(client: MlflowClient, home_of_nights: Home) -> None:
    run_id = start_run(client, "shadow-docs", "shadow", "docs")
    assert found(home_of_nights) == []
    assert mend_all("docs", home_of_nights) == []
    assert client.get_run(run_id).info.status == "RUNNING"


def test_a_release_whose_part_is_gone_goes_before_what_is_left_of_the_part(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, tandem: Tandem
) -> None:
    home = use_home(copy_home(two_releases(), tmp_path / "home"), monkeypatch)
    client = connect(home)
    mend_all("desk", home)
    client.delete_registered_model_alias("desk", "previous")
    mend_all("desk", home)
    assert found(home) == []
    manifest = load_manifest(client, "docs", 1)
    IndexStore.open(manifest["uri"], manifest["table"]).collect({"v2"})
    (release, first), (index, both) = found(home)
    assert "desk: version 1 can no longer be used: cannot open" in release
    assert "docs: version 1 can no longer be used: cannot open" in index
    assert (first, both) == ("tandem remove desk 1", "tandem remove desk 1; tandem remove docs 1")
    follow(both, tandem)
    assert found(home) == []


def test_an_adapter_whose_files_are_gone_is_named_and_goes(
    client: MlflowClient, home_of_nights: Home, tandem: Tandem
) -> None:
    base = {"model": "tiny", "revision": None}
    manifest = AdapterManifest("tone", "v1", "sft", base, "", "", "", "", "", 1, {})
    register_manifest(client, "tone", asdict(manifest), "tasks.adapters:answering")
    [(said, remedy)] = found(home_of_nights)
    assert said == "tone: version 1 can no longer be used: the files of tone version 1 are gone"
    follow(remedy, tandem)
    assert found(home_of_nights) == []


def test_a_part_of_the_live_release_that_is_gone_is_told_of_the_release(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, tandem: Tandem
) -> None:
    home = use_home(copy_home(two_releases(), tmp_path / "home"), monkeypatch)
    for number in (1, 2):
        move(connect(home), number)
        mend_all("desk", home)
    lose_files(connect(home), 2)
    [(said, remedy)] = found(home)
    assert "desk: version 2 (champion): the manifest of docs version 2 cannot be read" in said
    assert remedy == "tandem promote desk 1"
    follow(remedy, tandem)
    assert remedy not in [advised for _, advised in found(home)]


@pytest.mark.parametrize("table", ["churn", "churn-features"])
def test_a_table_of_somebody_else_is_named_and_left_alone_by_doctor_and_maintenance(
    client: MlflowClient, home_of_nights: Home, tandem: Tandem, tmp_path: Path, table: str
) -> None:
    lancedb.connect(home_of_nights.lancedb).create_table(table, [{"customer": 7, "churned": True}])
    said = tandem("doctor", "--json")
    assert (said.status, said.json["findings"]) == (0, [])
    sentence = f"the table {table} in {home_of_nights.lancedb} was not written by Tandem: it is left alone"
    assert said.json["left_alone"] == [sentence]
    assert sentence in tandem("doctor").out
    file = tmp_path / "maintain.yaml"
    file.write_text("depth: 1\ndays: 0\n")
    done = tandem("maintain", file, "--apply", "--json")
    assert (done.status, done.json["left_alone"], done.json["troubles"]) == (0, [sentence], [])
    assert {"versions", "vectors"} & {removal["kind"] for removal in done.json["removals"]}
    assert sentence in read_text(client, done.json["run_id"], "report.md")
    assert lancedb.connect(home_of_nights.lancedb).open_table(table).count_rows() == 1


def test_the_caches_of_a_home_are_cleaned_also_beside_a_table_of_somebody_else(home_of_nights: Home) -> None:
    lancedb.connect(home_of_nights.lancedb).create_table("churn", [{"customer": 7}])
    kinds = {
        due.removal.kind for due in find_due(MaintainConfig(depth=1, days=0, cache_days=0), home_of_nights, time())
    }
    assert "vectors" in kinds
