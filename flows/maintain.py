"""Keeping house: what does not fit is mended, what is kept no longer is removed, and the disk stays bounded."""

from prefect import flow

from tasks.absorb import current
from tasks.config.maintenance import MaintainConfig
from tasks.config.settings import find_home
from tasks.doctor import left_alone
from tasks.housekeeping import space
from tasks.lock import model_lock
from tasks.outcome import ended
from tasks.passing import whole
from tasks.records import Housekeeping
from tasks.report_maintenance import keep_maintenance, publish, summarise, write_report
from tasks.telling import step
from tasks.tidy import check, compact, tidy
from tasks.tracking import mlflow_run

NAME = "tandem.maintenance"
"""Of its lock and its runs; no model can have a dot in its name."""


@flow(name="maintain", flow_run_name="maintain")
def maintain(config: MaintainConfig) -> Housekeeping:
    """Check what the registry, the tables and the ledger say of one another, remove what is beyond retention, compact.

    Args:
        config: What stays, and whether anything is changed at all.
    """
    home, config = find_home(), current(config)
    seconds: dict[str, float] = {}
    with step(seconds, "check"):
        mended, troubles = check(config.apply)
    with model_lock(home.locks, NAME, 0), mlflow_run("maintenance", NAME) as run_id:
        before = space(home)
        with step(seconds, "tidy"):
            removals = tidy(config)
        with step(seconds, "compact"):
            mended += compact(config)
        done = summarise(config, mended, troubles, removals, left_alone(home), before, space(home), seconds, run_id)
        report = write_report(config, done)
        keep_maintenance(config, whole(done), report)
    publish(done, report, home)
    return ended(done)
