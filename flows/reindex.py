"""The nightly re-index: documents become a new version of an index, which goes live if it is no worse."""

from dataclasses import replace

from prefect import flow

from tasks.absorb import absorb_missed_nights, current, own_deployment
from tasks.collect import collect_all
from tasks.compare import compare
from tasks.config.index import ReindexConfig
from tasks.config.settings import Home, find_home
from tasks.evaluate import evaluate
from tasks.judge import judge
from tasks.lock import model_lock
from tasks.maintain import maintain
from tasks.mend import mend
from tasks.outcome import ended
from tasks.passing import whole
from tasks.prepare import prepare
from tasks.promote import follow_verdict
from tasks.records import Night
from tasks.register import describe_version, keep_report, register
from tasks.report import publish, report_health, summarise, summarise_quiet, write_report
from tasks.telling import step
from tasks.tracking import mlflow_run
from tasks.write import write


@flow(name="reindex", flow_run_name="re-index {config.name}")
def reindex(config: ReindexConfig, allow_deletions: bool = False) -> Night:
    """Re-index documents into LanceDB, score the result beside the live version, and promote it if it is no worse.

    Args:
        config: What to index, how, and what a new version must show.
        allow_deletions: For this run only, follow deletions even where so much is gone that a source looks broken.
    """
    home, config = find_home(), current(config)
    if deployment := own_deployment():
        absorb_missed_nights(deployment)
    with model_lock(home.locks, config.name, config.lock_minutes * 60):
        night, report = one_night(config, allow_deletions, home)
    publish(night, report + report_health(home), home)
    return ended(night, config.promote)


def one_night(config: ReindexConfig, allow_deletions: bool, home: Home) -> tuple[Night, str]:
    """The story of a night and its report. The live version is untouched until the last step."""
    seconds: dict[str, float] = {}
    with step(seconds, "mend"):
        mended = mend(config.name, home)
    with step(seconds, "collect"):
        listings, failures = collect_all(config.sources, config.parsing)
    with step(seconds, "compare"):
        work = compare(config, listings, failures, allow_deletions, mended.newest, home)
    if work.nothing_to_do:
        night = summarise_quiet(config.name, work, mended, seconds)
        return night, write_report(night)

    with mlflow_run(f"index-{config.name}", config.name) as run_id:
        with step(seconds, "prepare"):
            prepared = prepare(config, whole(listings), whole(work))
        with step(seconds, "write"):
            write(whole(work), whole(prepared))
        with step(seconds, "maintain"):
            maintained = maintain(config, work.table)
        manifest = describe_version(config, work, maintained, home)
        with step(seconds, "evaluate"):
            evaluation = evaluate(config, manifest, whole(maintained.documents))
        verdict = judge(config, work, maintained, evaluation, home)
        night = summarise(work, prepared, maintained, evaluation, verdict, manifest, seconds, run_id)
        with step(seconds, "register"):
            version = register(config, manifest, night, verdict, evaluation, write_report(night, evaluation))
        with step(seconds, "promote"):
            followed, live = follow_verdict(version, verdict)
        night = replace(night, decision=followed.decision, reasons=followed.reasons, live=live)
        report = write_report(night, evaluation)
        keep_report(run_id, report)
    return night, report
