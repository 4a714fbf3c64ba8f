"""Where the embedded MLflow keeps absolute paths. A home that was copied or moved has those of the place it was at.

MLflow makes a relative location absolute, and would read one that stands in its database from wherever a process was
started, so they stay absolute. This module imports no MLflow: a command asks it before anything is started.
"""

import json
import os
import sqlite3
from collections.abc import Iterator
from contextlib import closing
from pathlib import Path
from urllib.parse import unquote, urlsplit

from tasks.config.settings import Home
from tasks.errors import RegistryError

PLACES = (
    ("experiments", "artifact_location"),
    ("runs", "artifact_uri"),
    ("model_versions", "source"),
    ("model_versions", "storage_location"),
    ("logged_models", "artifact_location"),
    ("trace_tags", "value"),
)
"""Columns that hold them; of tags of traces, the one that says where the trace's files lie."""
ARTIFACTS = "mlruns/artifacts"
_RIGHT: set[Path] = set()
"""The databases of which this process knows that all lies in their home."""


def check_locations(home: Home) -> None:
    """Raise RegistryError where MLflow's records name files outside of the home that are another home's."""
    if database_of_home(home) in _RIGHT:
        return
    if elsewhere := roots_elsewhere(home):
        named = ", ".join(map(str, elsewhere))
        raise RegistryError(
            f"the home {home.root} was copied or moved: its records name the files of {named}, which would be read, "
            "written and deleted. Nothing was done: `tandem relocate` makes them name its own"
        )
    _RIGHT.add(database_of_home(home))


def database_of_home(home: Home) -> Path:
    return home.mlruns / "mlflow.db"


def roots_elsewhere(home: Home) -> list[Path]:
    """The roots of the homes in which experiments lie that should lie in this one."""
    if not database_of_home(home).exists():
        return []
    experiments = _experiments(database_of_home(home))
    roots = {root for name, number, at in experiments if (root := _root_of(at or "", {str(name), str(number)}))}
    return sorted(root for root in roots if not _is_same(root, home.root))


def _experiments(database: Path) -> list[tuple[str, int, str | None]]:
    """Name, id and location; none in a file of somebody else's, of which MLflow says what is wrong."""
    try:
        with closing(sqlite3.connect(database, timeout=60)) as opened:
            if not opened.execute("SELECT 1 FROM sqlite_master WHERE name = 'experiments'").fetchone():
                return []
            return opened.execute("SELECT name, experiment_id, artifact_location FROM experiments").fetchall()
    except sqlite3.OperationalError as error:
        raise RegistryError(f"MLflow's database {database} cannot be read: {error}") from error
    except sqlite3.DatabaseError:
        return []


def _root_of(location: str, names: set[str]) -> Path | None:
    """The home of an experiment whose files lie where those of an embedded MLflow do; None where they do not."""
    folder, _, name = (unquote(urlsplit(location).path) if "://" in location else location).rpartition("/")
    root, found, rest = folder.partition(f"/{ARTIFACTS}")
    return Path(root) if name in names and found and not rest and urlsplit(location).scheme in ("", "file") else None


def _is_same(one: Path, other: Path) -> bool:
    return one == other or (one.exists() and other.exists() and os.path.samefile(one, other))


def move_locations(home: Home, before: Path) -> int:
    """Let everything in MLflow's records that names a path below `before` name the same below the home, or nothing."""
    with closing(sqlite3.connect(database_of_home(home), timeout=60)) as database, database:
        database.execute("BEGIN IMMEDIATE")
        known = {name for (name,) in database.execute("SELECT name FROM sqlite_master WHERE type = 'table'")}
        return sum(
            _replace(database, table, column, f"{old}/", f"{new}/")
            for table, column in PLACES
            if table in known
            for old, new in ((before.as_uri(), home.root.absolute().as_uri()), (before, home.root.absolute()))
        )


def _replace(database: sqlite3.Connection, table: str, column: str, old: str, new: str) -> int:
    only = "AND key = 'mlflow.artifactLocation'" if table == "trace_tags" else ""
    return database.execute(
        f"UPDATE {table} SET {column} = ? || substr({column}, ?) WHERE substr({column}, 1, ?) = ? {only}",
        (new, len(old) + 1, len(old), old),
    ).rowcount


def move_manifests(home: Home, before: Path) -> int:
    """The same for the tables that the manifests of indices name. Safe to repeat: whoever is killed begins anew."""
    moved = 0
    for file, manifest in _manifests(home):
        uri = str(manifest.get("uri", ""))
        if uri.startswith(f"{before}/"):
            _write(file, manifest | {"uri": str(home.root.absolute() / Path(uri).relative_to(before))})
            moved += 1
    return moved


def _manifests(home: Home) -> Iterator[tuple[Path, dict[str, object]]]:
    for file in (home.root / ARTIFACTS).glob("*/*/artifacts/model/artifacts/manifest.json"):
        try:
            manifest = json.loads(file.read_text(encoding="utf-8"))
        except ValueError:  # damaged: whoever opens it says so
            continue
        if isinstance(manifest, dict):
            yield file, manifest


def _write(file: Path, manifest: dict[str, object]) -> None:
    aside = file.with_name(f"{file.name}.new")
    aside.write_text(json.dumps(manifest, indent=1), encoding="utf-8")
    aside.replace(file)
