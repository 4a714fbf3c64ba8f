"""Tells of configurations that were edited and not deployed: runs go on with what was deployed last."""

import os
from collections.abc import Iterable, Iterator
from pathlib import Path

from prefect.client.schemas.responses import DeploymentResponse

from tasks.deployed import Record, differences, listed_in, read_record, read_written
from tasks.pools import record_of
from tasks.records import Trouble
from tasks.telling import warn

MOST_NAMES = 5
REMEDY = "tandem deploy"


def find_undeployed(deployments: Iterable[DeploymentResponse]) -> Iterator[Trouble]:
    """A finding for each deployment whose file says something else by now, or that no file lists any more, or yet."""
    known = [(each.name, record) for each in deployments if (record := record_of(each))]
    for name, record in known:
        for told in _say(record, f"the deployment {name} runs"):
            yield Trouble(told, REMEDY)
    for file in sorted({record.listed_in for _, record in known if record.listed}):
        listed = {(each.get("flow"), str(each.get("name"))) for each in listed_in(read_written(Path(file)))}
        if not listed:  # gone, or not readable
            continue
        deployed = {
            (own.listed["flow"], str(own.listed["name"])) for _, own in known if own.listed and own.listed_in == file
        }
        for _, name in sorted(listed - deployed):
            yield Trouble(f"{file} lists the deployment {name}, which was not deployed", REMEDY)
        for _, name in sorted(deployed - listed):
            what = f"{file} lists the deployment {name} no more, and it is there all the same"
            yield Trouble(what, "delete it in Prefect's page, or list it again")


def warn_if_undeployed() -> None:
    """Say in the log of this run that its configuration has been edited since it was deployed."""
    if record := read_record(os.environ):
        for told in _say(record, "this run works"):
            warn(f"{told}: run `{REMEDY}`")


def _say(record: Record, who: str) -> Iterator[str]:
    for file, names in differences(record).items():
        more = f" and {len(names) - MOST_NAMES} more" if len(names) > MOST_NAMES else ""
        told = ", ".join(names[:MOST_NAMES]) + more
        yield f"{file} was edited and not deployed ({told}): {who} by what it said before"
