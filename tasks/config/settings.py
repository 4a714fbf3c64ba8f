"""Where this installation keeps its state: one folder, one variable."""

import os
from dataclasses import dataclass
from pathlib import Path


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
        """``MLFLOW_TRACKING_URI`` where it is set, else SQLite under the home."""
        return os.environ.get("MLFLOW_TRACKING_URI") or f"sqlite:///{self.mlruns / 'mlflow.db'}"


def find_home() -> Home:
    """The home of this process: ``TANDEM_HOME``, else the repository this code was installed from."""
    named = os.environ.get("TANDEM_HOME")
    return Home(Path(named).expanduser().resolve() if named else Path(__file__).resolve().parents[2])


def prepare_environment(home: Home) -> None:
    """Set, before Prefect and MLflow are imported, what they read from the environment; what is set stays."""
    os.environ.setdefault("PREFECT_HOME", str(home.data / "prefect"))
    os.environ.setdefault("PREFECT_SERVER_ANALYTICS_ENABLED", "false")
    # where no server is set, Prefect starts one for the command; a busy machine needs longer than its 20 s
    os.environ.setdefault("PREFECT_SERVER_EPHEMERAL_STARTUP_TIMEOUT_SECONDS", "120")
    os.environ.setdefault("DO_NOT_TRACK", "1")
    os.environ.setdefault("MLFLOW_DISABLE_TELEMETRY", "true")
    # with a server, MLflow would print links on standard output, where `--json` promises one object
    os.environ.setdefault("MLFLOW_SUPPRESS_PRINTING_URL_TO_STDOUT", "true")
    os.environ.setdefault("HF_HUB_DISABLE_TELEMETRY", "1")


def find_conf() -> Path:
    """The folder of configurations that forms choose from: ``TANDEM_CONF``, else conf/ of the repository."""
    named = os.environ.get("TANDEM_CONF")
    return Path(named).expanduser().resolve() if named else Path(__file__).resolve().parents[2] / "conf"
