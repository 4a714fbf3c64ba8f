"""Runs whose services ended while they ran: by `tandem down`, by a reboot, or because all was killed.

Nobody is left who could report them. They get their proper state here, so that they hold no place in a queue, and the
watcher starts those again that have retries.
"""

from collections.abc import Collection
from contextlib import suppress
from datetime import datetime
from uuid import UUID

import httpx
import psutil
from prefect.client.orchestration import SyncPrefectClient
from prefect.client.schemas.objects import FlowRun, StateType
from prefect.exceptions import PrefectException
from prefect.states import Cancelled, Crashed

from tasks.recover import INTERRUPTED, read_watched

RUN_OF = "PREFECT__FLOW_RUN_ID"
"""Names its flow run to every process of it."""


def end_interrupted(api: str, pools: Collection[str], since: datetime | None = None) -> list[UUID]:
    """Give the runs of these work pools, of which no process is here any more, the state that says so; which they were.

    No worker of the pools may run meanwhile. What crashed after `since` was ended by us as well. The server may have
    ended itself: then the next `tandem up` does it.
    """
    with suppress(httpx.HTTPError, PrefectException), SyncPrefectClient(api) as client:
        alive = _alive()
        ended = [run for run in _read(client, since) if run.work_pool_name in pools and run.id not in alive]
        for run in ended:
            cancelled = run.state is not None and run.state.type == StateType.CANCELLING
            client.set_flow_run_state(run.id, (Cancelled if cancelled else Crashed)(message=INTERRUPTED), force=True)
        return [run.id for run in ended]
    return []


def _read(client: SyncPrefectClient, since: datetime | None) -> list[FlowRun]:
    going = read_watched(client, StateType.PENDING, StateType.RUNNING, StateType.CANCELLING)
    crashed = read_watched(client, StateType.CRASHED, ended_after=since) if since else []
    return going + crashed


def _alive() -> set[UUID]:
    """The flow runs of which a process is here, whoever started it."""
    found = set()
    for process in psutil.process_iter():
        with suppress(psutil.Error, KeyError, ValueError):
            found.add(UUID(process.environ()[RUN_OF]))
    return found
