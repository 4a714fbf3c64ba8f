"""The surroundings of a command: what Prefect, MLflow and the network's libraries take from elsewhere."""

import getpass
import os
import sys
import tempfile
from contextlib import chdir
from pathlib import Path
from secrets import token_hex

from tasks.config.addresses import refuse_secret
from tasks.config.settings import Home

LOOPBACK = ("127.0.0.1", "localhost", "::1")
PREFECT_FILES = {"prefect.toml": "", ".env": "PREFECT_", "pyproject.toml": "[tool.prefect"}
"""Files of the current folder that Prefect reads, and the text by which they hold settings of Prefect."""


def prepare_environment(home: Home) -> None:
    """Set, before Prefect and MLflow are imported, what they read from the environment; what is set stays.

    Of Prefect's settings only those of the environment hold: a file or a profile may be of another project.

    Raises ConfigError where the address of a server holds a password.
    """
    refuse_secret("PREFECT_API_URL", os.environ.get("PREFECT_API_URL", ""), "set PREFECT_API_AUTH_STRING instead")
    _ask_loopback_directly()
    _name_the_user(home)
    os.environ.setdefault("PREFECT_HOME", str(home.data / "prefect"))
    os.environ["PREFECT_PROFILES_PATH"] = str(home.data / "prefect" / "profiles.toml")
    os.environ.setdefault("PREFECT_SERVER_ANALYTICS_ENABLED", "false")
    # where no server is set, Prefect starts one for the command; a busy machine needs longer than its 20 s
    os.environ.setdefault("PREFECT_SERVER_EPHEMERAL_STARTUP_TIMEOUT_SECONDS", "120")
    os.environ.setdefault("DO_NOT_TRACK", "1")
    os.environ.setdefault("MLFLOW_DISABLE_TELEMETRY", "true")
    # with a server, MLflow would print links on standard output, where `--json` promises one object
    os.environ.setdefault("MLFLOW_SUPPRESS_PRINTING_URL_TO_STDOUT", "true")
    os.environ.setdefault("HF_HUB_DISABLE_TELEMETRY", "1")


def leave_prefect_files_alone() -> None:
    """Let Prefect read its settings where no file can set them, and say which files here are not used.

    It reads them once, when it is imported; the server that it may start for a command reads them again.
    """
    if not (files := [name for name, text in PREFECT_FILES.items() if _says(name, text)]):
        return
    print(f"{' and '.join(files)} here: not used for Prefect; set PREFECT_… in the environment", file=sys.stderr)
    if not os.environ.get("PREFECT_API_URL"):
        database, password = Path(os.environ["PREFECT_HOME"], "prefect.db"), f"tandem:{token_hex(16)}"
        os.environ |= {
            "PREFECT_API_URL": "",
            "PREFECT_API_KEY": "",
            "PREFECT_API_AUTH_STRING": password,
            "PREFECT_SERVER_API_AUTH_STRING": password,
            "PREFECT_SERVER_ALLOW_EPHEMERAL_MODE": "true",
            "PREFECT_SERVER_DATABASE_CONNECTION_URL": f"sqlite+aiosqlite:///{database}",
        }
    with tempfile.TemporaryDirectory() as empty, chdir(empty):
        import prefect  # noqa: F401


def forget_environment() -> None:
    """Take out every variable that is meant for somebody's own Prefect or MLflow."""
    for name in [name for name in os.environ if name.startswith(("PREFECT_", "MLFLOW_"))]:
        del os.environ[name]


def _says(name: str, text: str) -> bool:
    try:
        return text in Path(name).read_text(encoding="utf-8", errors="replace")
    except OSError:
        return False


def _ask_loopback_directly() -> None:
    """A proxy that the environment names would look for servers of this machine on its own."""
    named = os.environ.get("no_proxy") or os.environ.get("NO_PROXY", "")
    hosts = [host for host in named.split(",") if host]
    direct = ",".join([*hosts, *(host for host in LOOPBACK if host not in hosts)])
    os.environ |= {"NO_PROXY": direct, "no_proxy": direct}


def user_name() -> str:
    """Who runs this process: the name, or the number of a user without one, as in a container."""
    try:
        return getpass.getuser()
    except (KeyError, OSError):
        return f"user-{os.getuid()}"


def _name_the_user(home: Home) -> None:
    """Give a user that the system does not know, as in a container, what libraries look up when they are imported."""
    os.environ.setdefault("LOGNAME", user_name())
    try:
        Path.home()
    except RuntimeError:
        os.environ["HOME"] = str(home.data)
