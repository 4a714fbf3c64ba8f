"""An evaluation: one suite of questions against one or several releases, each stage of an answer scored apart."""

from prefect import flow

from tasks.absorb import current
from tasks.appraise import appraise
from tasks.assess import assess
from tasks.config.evaluation import AnswersConfig
from tasks.config.settings import find_home
from tasks.evaluation.agreement import load_labels
from tasks.evaluation.golden import load_golden
from tasks.evaluation.judgements import hear
from tasks.evaluation.stages import Row
from tasks.outcome import ended
from tasks.passing import whole
from tasks.records import Evaluated, Judgement
from tasks.registry.connection import connect
from tasks.registry.versions import pin
from tasks.report_evaluation import keep_evaluation, publish, score_all, summarise, write_report
from tasks.telling import step
from tasks.tracking import mlflow_run


@flow(name="evaluate", flow_run_name="evaluate {config.name}")
def evaluate(config: AnswersConfig) -> Evaluated:
    """Ask every release every question, score retrieval, generation and the whole, and say where questions fail.

    Where the suite names judges, language models judge the answers as well.

    Args:
        config: Which questions, which releases, and what the first of them must show.
    """
    config = current(config)
    home, queries = find_home(), load_golden(config.questions)
    labels = load_labels(config.labels, [judge.name for judge in config.judges])
    releases = list(dict.fromkeys(pin(connect(home), named) for named in config.releases))
    seconds: dict[str, float] = {}
    with mlflow_run(f"evaluation-{config.name}", config.name) as run_id:
        asked: dict[str, list[Row]] = {}
        judged: dict[str, dict[str, dict[str, Judgement]]] = {}
        for release in releases:
            with step(seconds, f"ask {release}"):
                asked[release] = appraise(release, whole(queries))
            judged[release] = {}
            for judge in config.judges:
                with step(seconds, f"ask {judge.name} about {release}"):
                    judged[release][judge.name] = assess(judge, release, whole(asked[release]))
        panel = hear(judged, asked, labels, config.confidence)
        scores = score_all(config, asked, panel)
        done = summarise(config, asked, panel, scores, seconds, run_id)
        report = write_report(config, asked, panel, scores, done)
        keep_evaluation(config, whole(asked), whole(panel), done, report)
    publish(done, report, home)
    return ended(done)
