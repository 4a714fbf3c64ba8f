"""A diagnosis: every answer that fails gets its cause, and every cause its cheapest fix."""

from prefect import flow

from tasks.absorb import current
from tasks.appraise import appraise
from tasks.config.diagnosis import DiagnoseConfig
from tasks.config.settings import find_home
from tasks.diagnose import failures_of, find_causes, questions_of
from tasks.outcome import ended
from tasks.passing import whole
from tasks.records import Diagnosed
from tasks.registry.connection import connect
from tasks.registry.versions import pin
from tasks.report_diagnosis import draw, keep_diagnosis, publish, summarise, write_report
from tasks.telling import step
from tasks.tracking import mlflow_run


@flow(name="diagnose", flow_run_name="diagnose {config.name}")
def diagnose(config: DiagnoseConfig) -> Diagnosed:
    """Ask a release what its suite and displeased people ask, and sort the answers that fail by their causes.

    Args:
        config: Which release, which questions, and when an answer has the facts or is in the wrong form.
    """
    home, config = find_home(), current(config)
    release, questions = pin(connect(home), config.release), questions_of(config, home)
    seconds: dict[str, float] = {}
    with mlflow_run(f"diagnosis-{config.name}", config.name) as run_id:
        with step(seconds, "ask"):
            rows = appraise(release, whole(questions.all))
        failures, notes = failures_of(config, questions, rows)
        with step(seconds, "diagnose"):
            diagnosis = find_causes(config, release, whole(rows), whole(failures))
        done, fixes = summarise(config, release, diagnosis, len(rows), (*questions.notes, *notes), seconds, run_id)
        report = write_report(config, diagnosis, done, fixes)
        figures = draw(config, done)
        keep_diagnosis(config, whole(diagnosis), done, fixes, report, whole(figures))
    publish(done, report, figures, home)
    return ended(done)
