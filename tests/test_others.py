"""On an MLflow server that others use as well, nothing of theirs is seen or touched, and ours is known by its mark."""

import sqlite3
from collections.abc import Iterator
from contextlib import closing
from pathlib import Path

import pytest
from mlflow.tracking._model_registry.client import ModelRegistryClient

from tasks.config.maintenance import MaintainConfig
from tasks.config.settings import Home
from tasks.doctor import examine
from tasks.errors import RegistryError
from tasks.housekeeping import find_due
from tasks.registry import adoption
from tasks.registry.connection import connect
from tasks.registry.ledger import history
from tasks.registry.marks import KIND_TAG
from tasks.registry.pointers import promote
from tasks.registry.runs import running_with
from tasks.registry.traces import old_traces
from tasks.registry.versions import list_names, list_versions, register_prompt
from tasks.tracking import FLOW_RUN_TAG
from tests.command import Tandem, write_config
from tests.foreign import LONG_AGO, MODEL, add_others, marks, without_marks
from tests.homes import copy_home, use_home
from tests.registry_fixtures import add_version, connected, loads
from tests.released import two_releases

TURNS = [{"role": "system", "content": "{{ passages }}"}]


@pytest.fixture(autouse=True)
def _adopted_anew() -> Iterator[None]:
    adoption._DONE.clear()
    yield
    adoption._DONE.clear()


def test_no_command_sees_or_touches_what_others_keep_on_the_server(
    home_of_nights: Home, tandem: Tandem, tmp_path: Path
) -> None:
    others = add_others(home_of_nights)
    assert tandem("doctor", "--json").json["findings"] == []
    assert [row["name"] for row in tandem("status", "--json").json["models"]] == ["docs"]
    assert tandem("history", MODEL, "--json").json["moves"] == []
    file = tmp_path / "maintain.yaml"
    file.write_text("depth: 1\ndays: 0\ncache_days: 0\n")
    done = tandem("maintain", file, "--apply", "--json")
    assert (done.status, {removal["what"] for removal in done.json["removals"]} & {MODEL, "churn-team"}) == (0, set())
    for command in ("mend", "collect", "rollback", "unhold"):
        assert tandem(command, MODEL).err.startswith(f"tandem: the model {MODEL} in MLflow was not made by Tandem")
    for command in ("promote", "remove"):
        assert tandem(command, MODEL, 1).err.startswith(f"tandem: the model {MODEL} in MLflow was not made by Tandem")
    for command in (["rollback", "docs"], ["unhold", "docs"], ["mend", "docs"], ["collect", "docs", "--keep", 1]):
        assert tandem(*command).status == 0, command
    assert others.touched() == []
    client = connect(home_of_nights)
    assert running_with(client, FLOW_RUN_TAG) == {}
    assert "churn-team" not in old_traces(client, LONG_AGO / 1000 + 1)


def test_a_name_that_another_team_has_is_refused_at_the_start_of_the_night(
    home_of_nights: Home, tandem: Tandem, tmp_path: Path
) -> None:
    others = add_others(home_of_nights)
    said = tandem("reindex", write_config(tmp_path, {"name": MODEL}))
    assert (said.status, said.err.count("was not made by Tandem, so it is left alone: give yours another name")) == (
        1,
        1,
    )
    client = connect(home_of_nights)
    with pytest.raises(RegistryError, match="their-prompt in MLflow was not made by Tandem"):
        register_prompt(client, "their-prompt", TURNS)
    assert others.touched() == []


def test_an_experiment_of_others_that_is_named_like_ours_is_left_to_them(home: Home) -> None:
    connected(home)
    _forget_ledger(home)
    others = add_others(home, "ledger")
    client = connect(home)
    add_version(client)
    promote(client, "docs", 1, by="ann", reason="first", prove=loads)
    assert [move.after for move in history(client, "docs")] == [1]
    assert client.get_experiment_by_name("tandem-ledger").tags["tandem.experiment"] == "ledger"
    assert others.touched() == []


def test_what_is_older_than_the_mark_is_known_by_its_manifest_once_and_marked(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    home = use_home(copy_home(two_releases(), tmp_path / "home"), monkeypatch)
    before = marks(home)
    without_marks(home)
    others = add_others(home)
    assert list_names(connect(home)) == ["answer", "desk", "docs"]
    assert marks(home) == before | {("answer", KIND_TAG, "prompt")}
    assert [version.number for version in list_versions(connect(home), "desk")] == [1, 2]
    assert others.touched() == []


def test_the_manifests_of_others_are_not_read_again(home_of_nights: Home, monkeypatch: pytest.MonkeyPatch) -> None:
    add_others(home_of_nights)
    without_marks(home_of_nights)
    connect(home_of_nights)
    adoption._DONE.clear()
    asked: list[str] = []
    monkeypatch.setattr(ModelRegistryClient, "search_model_versions", lambda _, query, *__, **___: asked.append(query))
    connect(home_of_nights)
    assert asked == []


def test_a_version_that_others_put_into_a_model_of_ours_stays(home_of_nights: Home) -> None:
    client = connect(home_of_nights)
    theirs = client.create_model_version("docs", "file:///elsewhere").version
    _age(home_of_nights)
    for due in find_due(MaintainConfig(depth=1, days=0, cache_days=0), home_of_nights, 4e9):
        due.act()
    assert client.get_model_version("docs", theirs).source == "file:///elsewhere"
    assert examine(home_of_nights) == []
    client.set_registered_model_alias("docs", "champion", theirs)
    found = {trouble.what: trouble.remedy for trouble in examine(home_of_nights)}
    assert found[f"docs: version {theirs} (champion) was not made by Tandem"] == "tandem promote docs 3"


def _age(home: Home) -> None:
    with closing(sqlite3.connect(home.mlruns / "mlflow.db")) as database, database:
        database.execute("UPDATE model_versions SET creation_time = ?", (LONG_AGO,))


def _forget_ledger(home: Home) -> None:
    with closing(sqlite3.connect(home.mlruns / "mlflow.db")) as database, database:
        database.execute("DELETE FROM experiment_tags")
        database.execute("DELETE FROM experiments WHERE name = 'ledger'")
