"""The story of a fine-tune, the same for examples and for preferences."""

import shutil
from dataclasses import replace

from tasks.absorb import current
from tasks.check_data import check_data
from tasks.config.settings import Home, find_home
from tasks.config.training import DpoConfig, SftConfig
from tasks.contenders import fetch_parent, find_beside
from tasks.judge import judge_adapter
from tasks.lock import model_lock
from tasks.mend import mend
from tasks.outcome import ended
from tasks.promote import follow_verdict
from tasks.records import Finetune
from tasks.register import keep_report
from tasks.register_adapter import describe_adapter, register_adapter
from tasks.report_adapter import draw, publish, summarise, write_report
from tasks.score import score, scoring_job
from tasks.telling import step
from tasks.tracking import mlflow_run
from tasks.train import die_with_worker, train, training_job


def fine_tune(config: SftConfig | DpoConfig) -> Finetune:
    """Check the data, train, score beside base and champion, judge, register, and put live what may go live."""
    die_with_worker()
    home, config = find_home(), current(config)
    with model_lock(home.locks, config.name, config.lock_minutes * 60):
        mend(config.name, home)
        with mlflow_run(f"adapter-{config.name}", config.name, config.reason) as run_id:
            done, report = one_adapter(config, run_id, home)
    publish(done, report, home)
    return ended(done, config.promote)


def one_adapter(config: SftConfig | DpoConfig, run_id: str, home: Home) -> tuple[Finetune, str]:
    """The story and its report. What is live is untouched until the last step."""
    folder = home.data / "training" / run_id
    seconds: dict[str, float] = {}
    try:
        parent = fetch_parent(config, folder, home)
        with step(seconds, "check"):
            data = check_data(config, run_id, folder / "data")
        with step(seconds, "train"):
            trained = train(config.name, training_job(config, data, parent, folder), run_id)
        beside = find_beside(config, trained, folder, home)
        with step(seconds, "score"):
            scoring = score(
                config.name, scoring_job(config, data, trained, beside, folder, home), config.gate.confidence
            )
        verdict = judge_adapter(config, scoring.contenders, beside.champion, home)
        manifest = describe_adapter(config, trained, data, parent.version, home)
        done = summarise(config, manifest, data, trained, scoring.contenders, verdict, seconds, run_id)
        with step(seconds, "register"):
            report, figures = write_report(done, scoring, config), draw(scoring.contenders, run_id, home)
            version = register_adapter(config, manifest, trained, done, verdict, report, figures)
        followed, live = follow_verdict(version, verdict)
    finally:
        shutil.rmtree(folder, ignore_errors=True)
    done = replace(done, decision=followed.decision, reasons=followed.reasons, live=live)
    report = write_report(done, scoring, config)
    keep_report(run_id, report)
    return done, report
