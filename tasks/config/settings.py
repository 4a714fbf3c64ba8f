"""Where this installation keeps its state: one folder, one variable."""

import os
from dataclasses import dataclass
from glob import glob
from pathlib import Path

from tasks.config.addresses import checked_tracking_uri
from tasks.errors import ConfigError

ENCODED = frozenset('%?#~[]{}<>|*"^`\\')
"""Characters of a path that are percent-encoded in addresses, as all beyond ASCII are."""


@dataclass(frozen=True, slots=True)
class Home:
    """The folder under which all state lies (``TANDEM_HOME``, by default the repository)."""

    root: Path

    @property
    def data(self) -> Path:
        return self.root / "data"

    @property
    def lancedb(self) -> Path:
        return self.data / "lancedb"

    @property
    def cache(self) -> Path:
        return self.data / "cache"

    @property
    def locks(self) -> Path:
        return self.data / "locks"

    @property
    def mlruns(self) -> Path:
        return self.root / "mlruns"

    @property
    def tracking_uri(self) -> str:
        """``MLFLOW_TRACKING_URI`` where it is set, else SQLite under the home.

        Raises ConfigError where the variable holds a password, or a file that depends on the current folder.
        """
        named = os.environ.get("MLFLOW_TRACKING_URI")
        return checked_tracking_uri(named) if named else f"sqlite:///{self.mlruns / 'mlflow.db'}"


def find_home() -> Home:
    """The home of this process: ``TANDEM_HOME``, else the repository this code was installed from.

    Raises ConfigError where its path does not stand for itself in the addresses of databases: SQLAlchemy reads a
    parameter out of it, and LanceDB (0.40) writes the tags of its tables to the percent-encoded path, outside the home.
    """
    named = os.environ.get("TANDEM_HOME")
    root = Path(named).expanduser().resolve() if named else Path(__file__).resolve().parents[2]
    if odd := "".join(sorted({each for each in str(root) if each in ENCODED or not each.isascii()})):
        raise ConfigError(
            f"the path of the home, {root}, holds {odd}, which LanceDB and SQLite write otherwise in their addresses: "
            "name a folder of plain letters, digits, spaces and dashes in TANDEM_HOME. If there is a home already, "
            "move it there, then run `tandem relocate`, and `tandem mend NAME` for each index"
        )
    return Home(root)


def find_conf() -> Path:
    """The folder of configurations that forms choose from: ``TANDEM_CONF``, else conf/ of the repository."""
    named = os.environ.get("TANDEM_CONF")
    return Path(named).expanduser().resolve() if named else Path(__file__).resolve().parents[2] / "conf"


def find_path(named: str | Path) -> Path:
    """The file, folder or glob that a configuration names: from the current folder, or else from the folder of conf/.

    So a command finds the same files wherever it is run, as cron and systemd do from ``/``.
    """
    path = Path(named).expanduser()
    beside_conf = find_conf().parent / path  # an absolute path stays as it is
    return path if glob(str(path)) or not glob(str(beside_conf)) else beside_conf
