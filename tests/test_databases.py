"""New homes begin with copies of empty databases, which are what MLflow and Prefect would have made."""

import os
import sqlite3
from contextlib import closing
from pathlib import Path

import pytest

from tasks import databases
from tasks.config.settings import Home
from tasks.errors import RegistryError, ServerError
from tasks.registry.connection import connect


@pytest.fixture
def folder(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """An installation's folder of prepared databases, with nothing in it; and PREFECT_HOME, not made yet."""
    monkeypatch.setattr(databases, "FOLDER", tmp_path / "share")
    monkeypatch.setenv("PREFECT_HOME", str(tmp_path / "not" / "yet"))
    return tmp_path / "share"


def schema(home: Home) -> list[list[str]]:
    """Of every table its parts, which MLflow's migrations write in any order."""
    made = read(home, "SELECT sql FROM sqlite_master WHERE sql IS NOT NULL ORDER BY name")
    return [sorted(part.strip(", ") for part in sql.splitlines()) for (sql,) in made]


def test_a_copied_mlflow_database_has_the_schema_of_one_that_mlflow_made_and_its_own_artifacts(
    folder: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    made, copied = Home(tmp_path / "made"), Home(tmp_path / "copied")
    connect(made)

    monkeypatch.setattr(databases, "MIGRATED_BY", {"mlflow": databases.MIGRATED_BY["mlflow"]})
    databases.main()
    connect(copied)

    assert [path.name for path in folder.iterdir()] == [databases.prepared("mlflow").name]
    assert schema(copied) == schema(made)
    for home in (made, copied):
        assert read(home, "SELECT artifact_location FROM experiments WHERE experiment_id = 0") == [
            (str(home.mlruns / "artifacts" / "0"),)
        ]


def test_a_new_prefect_home_gets_the_prepared_database_and_a_used_one_keeps_its_own(folder: Path) -> None:
    folder.mkdir()
    databases.prepared("prefect").write_bytes(b"empty")
    databases.prepare_prefect_home()
    database = Path(os.environ["PREFECT_HOME"], "prefect.db")
    assert database.read_bytes() == b"empty"

    database.write_bytes(b"used")
    databases.prepare_prefect_home()
    assert database.read_bytes() == b"used"
    assert [path.name for path in database.parent.iterdir()] == ["prefect.db"]


def test_where_no_database_was_prepared_prefect_makes_its_own_in_its_folder(folder: Path) -> None:
    databases.prepare_prefect_home()
    assert list(Path(os.environ["PREFECT_HOME"]).iterdir()) == []


def test_a_database_of_a_newer_mlflow_or_prefect_is_told_as_that_at_once(
    ready_home: Home, folder: Path, tmp_path: Path
) -> None:
    def as_a_newer_one(database: Path) -> None:
        with closing(sqlite3.connect(database)) as opened, opened:
            opened.execute("CREATE TABLE IF NOT EXISTS alembic_version (version_num TEXT)")
            opened.execute("DELETE FROM alembic_version")
            opened.execute("INSERT INTO alembic_version VALUES ('ffffffffffff')")

    as_a_newer_one(ready_home.mlruns / "mlflow.db")
    with pytest.raises(RegistryError, match=r"has a database of a newer mlflow than .*: install the one that wrote it"):
        connect(ready_home)
    prefect = Path(os.environ["PREFECT_HOME"])
    prefect.mkdir(parents=True)
    as_a_newer_one(prefect / "prefect.db")
    with pytest.raises(ServerError, match="is a database of a newer prefect than"):
        databases.prepare_prefect_home()


@pytest.mark.parametrize("package", sorted(databases.MIGRATIONS))
def test_every_migration_of_what_is_installed_is_known(package: str) -> None:
    database = databases.prepared(package)
    with closing(sqlite3.connect(database)) as opened:
        ((newest,),) = opened.execute("SELECT version_num FROM alembic_version").fetchall()
    assert databases.is_known(package, newest)
    assert not databases.is_known(package, newest[:-1])


def read(home: Home, query: str) -> list[tuple[str]]:
    with closing(sqlite3.connect(home.mlruns / "mlflow.db")) as database:
        return database.execute(query).fetchall()
