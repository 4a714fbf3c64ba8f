"""A shadow: two releases are asked again what people asked, pair by pair, until a verdict holds."""

from prefect import flow

from tasks.absorb import current
from tasks.config.settings import find_home
from tasks.config.shadow import ShadowConfig
from tasks.outcome import ended
from tasks.passing import whole
from tasks.records import Shadowed
from tasks.registry.connection import connect
from tasks.registry.versions import pin
from tasks.replay import questions_of, replay
from tasks.report_shadow import keep_shadow, publish, summarise, write_report
from tasks.telling import step
from tasks.tracking import mlflow_run


@flow(name="shadow", flow_run_name="shadow {config.name}")
def shadow(config: ShadowConfig) -> Shadowed:
    """Replay what was asked through both releases, compare every pair of answers, and stop once it is clear enough.

    Args:
        config: Which releases, which questions, and which loss is tolerated.
    """
    home, config = find_home(), current(config)
    champion, candidate = (pin(connect(home), named) for named in (config.champion, config.candidate))
    questions = questions_of(config, home)
    seconds: dict[str, float] = {}
    with mlflow_run(f"shadow-{config.name}", config.name) as run_id:
        with step(seconds, "replay"):
            pairs, outcome = replay(config, champion, candidate, whole(questions))
        done = summarise(config, champion, candidate, pairs, outcome, len(questions), seconds, run_id)
        report = write_report(config, pairs, done)
        keep_shadow(config, whole(pairs), done, report)
    publish(done, report, home)
    return ended(done)
