"""Tells of configurations that were edited and not deployed: runs go on with what was deployed last."""

import os
from collections.abc import Iterable, Iterator

from prefect.client.schemas.responses import DeploymentResponse

from tasks.deployed import Record, differences, read_record
from tasks.pools import record_of
from tasks.records import Trouble
from tasks.telling import warn

MOST_NAMES = 5
REMEDY = "tandem deploy"


def find_undeployed(deployments: Iterable[DeploymentResponse]) -> Iterator[Trouble]:
    """A finding for each deployment whose file says something else by now."""
    for deployment in deployments:
        record = record_of(deployment)
        if record and (names := differences(record)):
            yield Trouble(_say(record, names, f"the deployment {deployment.name} runs"), REMEDY)


def warn_if_undeployed() -> None:
    """Say in the log of this run that its configuration has been edited since it was deployed."""
    record = read_record(os.environ)
    if record and (names := differences(record)):
        warn(f"{_say(record, names, 'this run works')}: run `{REMEDY}`")


def _say(record: Record, names: list[str], who: str) -> str:
    more = f" and {len(names) - MOST_NAMES} more" if len(names) > MOST_NAMES else ""
    told = ", ".join(names[:MOST_NAMES]) + more
    return f"{record.file} was edited and not deployed ({told}): {who} by what it said before"
