"""A real MLflow server on this machine."""

import os
import shutil
import socket
import sqlite3
import subprocess
import sys
from collections.abc import Iterator
from contextlib import closing, contextmanager, suppress
from pathlib import Path

import psutil

from tests.registry_fixtures import empty_home
from tests.waiting import wait_for


def free_port() -> int:
    """A port on which nobody listens just now."""
    with socket.create_server(("127.0.0.1", 0)) as server:
        return int(server.getsockname()[1])


@contextmanager
def mlflow_server(folder: Path, port: int, *options: str) -> Iterator[subprocess.Popen[bytes]]:
    """A server over `mlflow.db` in the folder, made where there is none, with the artifacts beside it."""
    database, log = folder / "mlflow.db", folder / "server.log"
    if not database.exists():
        shutil.copy(empty_home().mlruns / "mlflow.db", database)
        with closing(sqlite3.connect(database)) as opened, opened:  # or it would be a copied home's
            opened.execute("UPDATE experiments SET artifact_location = ?", (str(folder / "artifacts" / "0"),))
    command = [sys.executable, "-m", "mlflow", "server", "--port", str(port), "--workers", "1"]
    command += [
        "--backend-store-uri",
        f"sqlite:///{database}",
        "--artifacts-destination",
        str(folder / "artifacts"),
        *options,
    ]
    environment = os.environ | {"MLFLOW_SERVER_ENABLE_JOB_EXECUTION": "false"}  # half the time to start
    with log.open("ab") as output:
        server = subprocess.Popen(command, cwd=folder, env=environment, stdout=output, stderr=output)
    try:
        wait_for(lambda: listens(server, port, log), 120)
        yield server
    finally:
        stop(server)


def listens(server: subprocess.Popen[bytes], port: int, log: Path) -> bool:
    """Whether this server, and not somebody else who took the port, listens there."""
    assert server.poll() is None, log.read_text()
    try:
        parent = psutil.Process(server.pid)
        found = [process.net_connections("tcp") for process in (parent, *parent.children(recursive=True))]
    except psutil.NoSuchProcess:  # one of its helpers ended in between
        return False
    return any(
        connection.status == psutil.CONN_LISTEN and connection.laddr.port == port
        for connections in found
        for connection in connections
    )


def stop(server: subprocess.Popen[bytes]) -> None:
    """Kill the process and all that it started, sessions of their own included."""
    if server.poll() is None:
        for child in psutil.Process(server.pid).children(recursive=True):
            with suppress(psutil.NoSuchProcess):
                child.kill()
        server.kill()
        server.wait()
