"""A home whose services `tandem up` started, and what a test does with the runs of its workers."""

import asyncio
import json
import os
import subprocess
import sys
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any
from urllib.parse import unquote
from uuid import UUID

import asyncpg
import psutil
import yaml
from prefect import get_client
from prefect.client.schemas.objects import FlowRun, StateType
from prefect.settings import PREFECT_API_URL, temporary_settings
from prefect.states import Cancelling

from tasks import postgres
from tasks.config.services import read_services, runs
from tasks.config.settings import Home
from tasks.programs import SUPERVISOR
from tasks.services import down
from tests.servers import free_port
from tests.waiting import wait_for

TANDEM = Path(sys.executable).with_name("tandem")
OWN = ("TANDEM_HOME", "PREFECT_HOME", "PREFECT_API_URL", "MLFLOW_TRACKING_URI")


def tandem(home: Home, *arguments: object) -> subprocess.CompletedProcess[str]:
    """The command in a process of its own, which knows of no home and no server but these."""
    environment = {name: value for name, value in os.environ.items() if name not in OWN}
    environment["TANDEM_HOME"] = str(home.root)
    command = [str(TANDEM), *map(str, arguments)]
    return subprocess.run(command, env=environment, capture_output=True, text=True, timeout=600)


def write_deployments(folder: Path, *deployments: dict[str, Any]) -> Path:
    pools = [{"name": "cpu"}, {"name": "gpu", "limit": 1}]
    file = folder / "deployments.yaml"
    file.write_text(yaml.safe_dump({"work_pools": pools, "deployments": list(deployments)}))
    return file


@dataclass(frozen=True)
class Installation:
    """A home whose services are up, with these deployments."""

    home: Home
    deployments: Path
    first: dict[str, Any]
    """What the first `tandem up --json` printed."""
    said: str
    """What it printed for people beside."""

    def start(self, deployment: str, **parameters: Any) -> UUID:
        """Create a run of the deployment, named ``flow/deployment``."""
        with get_client(sync_client=True) as client:
            found = client.read_deployment_by_name(deployment)
            return client.create_flow_run_from_deployment(found.id, parameters=parameters).id

    def address(self, server: str) -> str:
        return str(next(row["address"] for row in self.first["services"] if row["name"] == server))

    def pid(self, service: str) -> int:
        return read_services(self.home)[service].pid

    def end_supervisor(self) -> None:
        """What is killed then stays so."""
        psutil.Process(self.pid(SUPERVISOR)).kill()
        wait_for(lambda: not runs(read_services(self.home)[SUPERVISOR]))


@contextmanager
def installed(folder: Path, *deployments: dict[str, Any]) -> Iterator[Installation]:
    """Services of a new home, which this process uses while the block lasts; nothing of it runs afterwards."""
    home, file = Home(folder / "home"), write_deployments(folder, *deployments)
    up = tandem(home, "up", file, "--mlflow-port", free_port(), "--prefect-port", free_port(), "--json")
    try:
        assert up.returncode == 0, up.stderr
        with temporary_settings({PREFECT_API_URL: f"http://127.0.0.1:{read_services(home)['prefect'].port}/api"}):
            yield Installation(home, file, json.loads(up.stdout), up.stderr)
    finally:
        down(home)


def socket_folder(home: Home) -> Path:
    return Path(unquote(postgres.url_of(home).rpartition("host=")[2]))


def ask_prefect(home: Home, query: str) -> list[tuple[Any, ...]]:
    """The rows that Prefect's database, which runs, answers with."""

    async def answer() -> list[tuple[Any, ...]]:
        connection = await asyncpg.connect(user="postgres", database="prefect", host=str(socket_folder(home)))
        try:
            return [tuple(row) for row in await connection.fetch(query)]
        finally:
            await connection.close()

    return asyncio.run(answer())


def state(run: UUID) -> str:
    return str(read(run).state_name)


def completed(run: UUID) -> bool:
    """Whether it did its work, whatever came of it: a state's name says that."""
    return read(run).state_type == StateType.COMPLETED


def read(run: UUID) -> FlowRun:
    with get_client(sync_client=True) as client:
        return client.read_flow_run(run)


def history(run: UUID) -> str:
    """Its states, one a line."""
    with get_client(sync_client=True) as client:
        states = client.read_flow_run_states(run)
    return "\n".join(f"{state.timestamp:%H:%M:%S} {state.name} {state.message or ''}" for state in states)


def cancel(run: UUID) -> None:
    """What the Prefect UI does."""
    with get_client(sync_client=True) as client:
        client.set_flow_run_state(run, Cancelling())


def heartbeats(run: UUID) -> list[Any]:
    with get_client(sync_client=True) as client:
        wanted = {"event": {"name": ["prefect.flow-run.heartbeat"]}, "resource": {"id": [f"prefect.flow-run.{run}"]}}
        return list(client.request("POST", "/events/filter", json={"filter": wanted}).json()["events"])


def lives(pid: int) -> bool:
    return psutil.pid_exists(pid) and psutil.Process(pid).status() != psutil.STATUS_ZOMBIE
