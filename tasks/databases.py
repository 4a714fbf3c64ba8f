"""Empty databases of this MLflow and this Prefect, migrated once at installation, for every new home to copy.

``python -m tasks.databases`` makes them. Without them each home waits for the migrations: on two cores 3 s of MLflow's,
and 12 s of Prefect's, which is most of what `tandem up` and a first flow run take there.
"""

import os
import re
import shutil
import sqlite3
import subprocess
import sys
import tempfile
from contextlib import closing, suppress
from importlib.metadata import version
from importlib.util import find_spec
from pathlib import Path

from tasks.errors import ServerError

FOLDER = Path(sys.prefix, "share", "tandem")

MIGRATIONS = {"mlflow": "store/db_migrations/versions", "prefect": "server/database/_migrations/versions"}
"""Where a package keeps its migrations, each in a file that names its revision."""
MIGRATED_BY = {
    "mlflow": [
        *(sys.executable, "-c"),
        "import mlflow, os; mlflow.MlflowClient(os.environ['MLFLOW_TRACKING_URI']).search_experiments()",
    ],
    "prefect": [sys.executable, "-m", "prefect", "server", "database", "upgrade", "--yes"],
}


def main() -> None:
    FOLDER.mkdir(parents=True, exist_ok=True)
    for package in MIGRATED_BY:
        if not prepared(package).exists():
            prepare(package)


def prepare(package: str) -> None:
    """Let the package make its database elsewhere, whatever server the environment names, and keep it whole."""
    with tempfile.TemporaryDirectory(dir=FOLDER) as folder:
        made, whole = Path(folder, "made.db"), Path(folder, "whole.db")
        addresses = {
            "MLFLOW_TRACKING_URI": f"sqlite:///{made}",
            "PREFECT_HOME": folder,
            "PREFECT_SERVER_DATABASE_CONNECTION_URL": f"sqlite+aiosqlite:///{made}",
        }
        subprocess.run(MIGRATED_BY[package], env=os.environ | addresses, check=True, stdout=subprocess.DEVNULL)
        with closing(sqlite3.connect(made)) as database:
            database.execute("VACUUM INTO ?", (str(whole),))
        whole.rename(prepared(package))


def prepared(package: str) -> Path:
    """Where the empty database of the installed version lies, if it was made."""
    return FOLDER / f"{package}-{version(package)}.db"


def prepare_prefect_home(with_database: bool = True) -> None:
    """Make PREFECT_HOME, of which Prefect makes the last folder only, and give it a database unless it has one.

    Raises ServerError where it has one that this Prefect cannot read: Prefect itself would try for minutes.
    """
    home = Path(os.environ["PREFECT_HOME"])
    home.mkdir(parents=True, exist_ok=True)
    file = home / "prefect.db"
    if with_database and file.exists() and (revision := _revision(file)) and not is_known("prefect", revision):
        raise ServerError(f"{file} is a database of {newer_than('prefect')}")
    if not with_database or file.exists() or not prepared("prefect").exists():
        return
    with tempfile.TemporaryDirectory(dir=home) as folder, suppress(OSError):  # then Prefect makes its own
        copied = shutil.copy(prepared("prefect"), folder)
        os.link(copied, home / "prefect.db")  # never over one that a server made meanwhile


def is_known(package: str, revision: str) -> bool:
    """Whether the installed package has the migration that a database was brought to last."""
    spec = find_spec(package)
    assert spec
    assert spec.origin
    migrations = Path(spec.origin).parent / MIGRATIONS[package]
    own = re.compile(rf"^revision\b.*[\"']{re.escape(revision)}[\"']", re.MULTILINE)
    return any(own.search(file.read_text(encoding="utf-8")) for file in migrations.rglob("*.py"))


def newer_than(package: str) -> str:
    """The end of a sentence on a database whose last migration is not known."""
    return f"a newer {package} than {version(package)}, which is installed here: install the one that wrote it"


def _revision(file: Path) -> str:
    """The last migration of an SQLite file; empty where it has none, or is none, which its owner then says."""
    with suppress(sqlite3.Error), closing(sqlite3.connect(f"file:{file}?mode=ro", uri=True)) as database:
        return next((str(row[0]) for row in database.execute("SELECT version_num FROM alembic_version")), "")
    return ""


def free_share(file: Path) -> float:
    """How much of an SQLite file is left over from what was deleted."""
    with closing(sqlite3.connect(file)) as database:
        pages, free = (database.execute(f"PRAGMA {what}").fetchone()[0] for what in ("page_count", "freelist_count"))
    return free / max(pages, 1)


def compact(file: Path) -> None:
    """Give what an SQLite file has left over back to the disk. Raises sqlite3.OperationalError where it is in use."""
    with closing(sqlite3.connect(file, timeout=10)) as database:
        database.execute("VACUUM")
        database.execute("PRAGMA wal_checkpoint(TRUNCATE)")


if __name__ == "__main__":
    main()
