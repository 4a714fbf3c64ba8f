"""A release: index, adapter, prompt and policy become one version, which is measured and put live as a whole."""

from dataclasses import replace

from prefect import flow

from tasks.absorb import current
from tasks.compose import compose, state_of
from tasks.config.answering import ReleaseConfig
from tasks.config.settings import Home, find_home
from tasks.examine import calibrate_grounding, examine
from tasks.guard import guard, with_guardrails
from tasks.judge import judge_release
from tasks.lock import model_lock
from tasks.mend import mend
from tasks.outcome import ended
from tasks.promote import follow_verdict
from tasks.records import Released, ReleaseManifest
from tasks.register import keep_report
from tasks.register_release import register_release
from tasks.registry.marks import STATE_TAG
from tasks.report_release import publish, summarise, summarise_unchanged, write_report
from tasks.route import route
from tasks.telling import step
from tasks.tracking import mlflow_run


@flow(name="release", flow_run_name="release {config.name}")
def release(config: ReleaseConfig) -> Released:
    """Bind the parts, calibrate when to refuse, ask every golden query beside the live one, attack, judge, register.

    Args:
        config: Which parts to bind, and what the release must show.
    """
    home, config = find_home(), current(config)
    with model_lock(home.locks, config.name, config.lock_minutes * 60):
        mended = mend(config.name, home)
        manifest = compose(config)
        if mended.newest.get(STATE_TAG) == state_of(config, manifest):
            return ended(summarise_unchanged(config, manifest, mended))
        with mlflow_run(f"release-{config.name}", config.name) as run_id:
            done, report = one_release(config, manifest, run_id, home)
    publish(done, report, home)
    return ended(done, config.promote)


def one_release(config: ReleaseConfig, manifest: ReleaseManifest, run_id: str, home: Home) -> tuple[Released, str]:
    """The story and its report. What is live is untouched until the last step."""
    seconds: dict[str, float] = {}
    with step(seconds, "calibrate"):
        manifest, calibrated = calibrate_grounding(config, manifest)
    with step(seconds, "route"):
        manifest, routed = route(config, manifest)
    with step(seconds, "examine"):
        examined = examine(config, manifest)
    with step(seconds, "guard"):
        guarded = guard(config, manifest)
    examined = with_guardrails(examined, guarded)
    verdict = judge_release(config, manifest, examined, guarded, home)
    done = summarise(config, manifest, examined, verdict, seconds, run_id)
    with step(seconds, "register"):
        report = write_report(done, examined, guarded, calibrated, routed, config)
        version = register_release(config, manifest, done, examined, guarded, routed, verdict, report)
    followed, live = follow_verdict(version, verdict)
    done = replace(done, decision=followed.decision, reasons=followed.reasons, live=live)
    report = write_report(done, examined, guarded, calibrated, routed, config)
    keep_report(run_id, report)
    return done, report
