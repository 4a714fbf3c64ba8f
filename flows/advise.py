"""An advice: retrieval, fine-tuning, or both, for a workload, with what each costs and what would change the answer."""

from datetime import date

from prefect import flow

from tasks.absorb import current
from tasks.advice.costs import load_prices
from tasks.advice.weighing import summarise, weigh
from tasks.config.advice import CaseConfig
from tasks.config.settings import find_home
from tasks.measure import measure
from tasks.outcome import ended
from tasks.passing import whole
from tasks.records import Advised
from tasks.report_advice import draw, keep_advice, publish, write_report
from tasks.telling import step
from tasks.tracking import mlflow_run


@flow(name="advise", flow_run_name="advise {config.name}")
def advise(config: CaseConfig) -> Advised:
    """Let what Tandem has measured count before what the case assumes, weigh the approaches, and say what to do.

    Args:
        config: The workload, and whose measurements count.
    """
    config = current(config)
    home, prices = find_home(), load_prices(config.prices)
    seconds: dict[str, float] = {}
    with mlflow_run(f"advice-{config.name}", config.name) as run_id:
        with step(seconds, "measure"):
            measured, missing = measure(config)
        with step(seconds, "weigh"):
            weighed = weigh(config, prices, measured)
        done = summarise(weighed, missing, seconds, run_id, date.today())
        report, figure = write_report(weighed, done), draw(weighed)
        keep_advice(whole(weighed), whole(done), report, whole(figure))
    publish(done, report, figure, home)
    return ended(done)
