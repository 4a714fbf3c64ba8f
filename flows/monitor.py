"""A watch over a release: whether people ask something else, get worse answers, or get them from stale parts."""

from prefect import flow

from tasks.absorb import current
from tasks.config.monitoring import MonitorConfig
from tasks.config.settings import find_home
from tasks.observe import compare_answers, compare_questions, read_windows, why_not
from tasks.outcome import ended
from tasks.passing import whole
from tasks.records import Monitored
from tasks.registry.connection import connect
from tasks.registry.versions import pin
from tasks.releases import part
from tasks.report_monitor import draw, keep_watch, publish, summarise, write_report
from tasks.telling import step
from tasks.tracking import mlflow_run
from tasks.upkeep import look_after


@flow(name="monitor", flow_run_name="monitor {config.name}")
def monitor(config: MonitorConfig) -> Monitored:
    """Compare the newest answers with earlier ones, look after the live parts, and tell of everything that is new.

    Args:
        config: Which release, how much of its past, and which change is tolerated.
    """
    home, config = find_home(), current(config)
    release = pin(connect(home), f"{config.release}@champion")
    seconds: dict[str, float] = {}
    with mlflow_run(f"monitor-{config.name}", config.name) as run_id:
        with step(seconds, "read"):
            windows = read_windows(config, home)
        drift, changes, note = None, [], why_not(config, windows)
        if not note:
            with step(seconds, "questions"):
                drift, note = compare_questions(config, part(connect(home), release)["index"], whole(windows))
            with step(seconds, "answers"):
                changes = compare_answers(config, windows)
        with step(seconds, "parts"):
            upkeep = look_after(config, release)
        done = summarise(config, release, windows, drift, changes, upkeep, note, seconds, run_id, home)
        report, figures = write_report(config, done, changes, upkeep), draw(changes, drift)
        keep_watch(config, done, whole(drift), report, whole(figures))
    publish(done, report, figures, home)
    return ended(done)
