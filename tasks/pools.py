"""Creates work pools and queues with their limits; a limit that a person changed in Prefect's page stays."""

from prefect import get_client
from prefect.client.orchestration import SyncPrefectClient
from prefect.client.schemas.actions import WorkPoolCreate, WorkPoolUpdate
from prefect.client.schemas.filters import DeploymentFilter, DeploymentFilterTags
from prefect.client.schemas.responses import DeploymentResponse
from prefect.exceptions import ObjectAlreadyExists
from prefect.workers.process import ProcessWorker

from tasks.config.deployments import Deployment, DeploymentsConfig, WorkPool
from tasks.deployed import Record, read_record, say_kept, settle
from tasks.recover import WATCHED

LIMIT, POOL, POOL_LIMIT = "limit", "work pool", "limit of its work pool"
"""Things of a deployment's record."""
Records = dict[str, Record]
"""By the name of the deployment, what was deployed last."""


def create_pools(config: DeploymentsConfig, reset: bool = False) -> list[str]:
    """Create the work pools and queues that are missing, and give the others the limits that the file has changed.

    Returns what is kept as a person set it, as sentences; with `reset` nothing is.
    """
    template = ProcessWorker.get_default_base_job_template()  # without it each worker would try to set it at first
    kept: list[str] = []
    with get_client(sync_client=True) as client:
        records = _read_records(client)
        for pool in config.work_pools:
            try:
                client.create_work_pool(
                    WorkPoolCreate(
                        name=pool.name, type="process", base_job_template=template, concurrency_limit=pool.limit
                    )
                )
            except ObjectAlreadyExists:
                kept += _follow_pool(client, pool, records, reset)
        for deployment in config.deployments:
            if deployment.limit:
                kept += _follow_queue(client, deployment, records, reset)
    return kept


def _read_records(client: SyncPrefectClient) -> Records:
    ours = DeploymentFilter(tags=DeploymentFilterTags(all_=[WATCHED]))
    found = {each.name: record_of(each) for each in client.read_deployments(deployment_filter=ours)}
    return {name: record for name, record in found.items() if record}


def record_of(deployment: DeploymentResponse) -> Record | None:
    """What was deployed last, by the deployment itself."""
    return read_record((deployment.job_variables or {}).get("env"))


def _follow_pool(client: SyncPrefectClient, pool: WorkPool, records: Records, reset: bool) -> list[str]:
    there = client.read_work_pool(pool.name)
    last = [each.things[POOL_LIMIT] for each in records.values() if each.things.get(POOL) == pool.name]
    limit, kept = _settle(f"the work pool {pool.name}", last, pool.limit, there.concurrency_limit, reset)
    if limit != there.concurrency_limit:
        client.update_work_pool(pool.name, WorkPoolUpdate(concurrency_limit=limit))
    if there.is_paused and reset:
        client.update_work_pool(pool.name, WorkPoolUpdate(is_paused=False))
    elif there.is_paused:
        kept.append(f"the work pool {pool.name}: kept as set in Prefect: it is paused")
    return kept


def _follow_queue(client: SyncPrefectClient, deployment: Deployment, records: Records, reset: bool) -> list[str]:
    name, pool = deployment.name, deployment.work_pool
    try:
        client.create_work_queue(name, work_pool_name=pool, concurrency_limit=deployment.limit)
        return []
    except ObjectAlreadyExists:
        queue = client.read_work_queue_by_name(name, work_pool_name=pool)
    last = [records[name].things.get(LIMIT)] if name in records else []
    limit, kept = _settle(f"the work queue {name}", last, deployment.limit, queue.concurrency_limit, reset)
    if limit != queue.concurrency_limit:
        client.update_work_queue(queue.id, concurrency_limit=limit)
    if queue.is_paused and reset:
        client.update_work_queue(queue.id, is_paused=False)
    elif queue.is_paused:
        kept.append(f"the work queue {name}: kept as set in Prefect: it is paused")
    return kept


def _settle(
    whose: str, last: list[int | None], file: int | None, server: int | None, reset: bool
) -> tuple[int | None, list[str]]:
    """The limit that is to hold; `last` are those deployed last, none where that is not known."""
    wanted, there = {LIMIT: file}, {LIMIT: server}
    held, kept = settle({LIMIT: last[0]} if last else there, wanted, there)
    if reset:
        held, kept = wanted, []
    return held[LIMIT], say_kept(whose, kept, wanted, held)
