"""Learning from use: what people said of answers becomes rows, which count and are trained on once approved."""

from collections.abc import Callable, Mapping
from typing import Any

from prefect import flow

from flows.finetune_dpo import finetune_dpo
from flows.finetune_sft import finetune_sft
from tasks.absorb import current
from tasks.config.curation import CurateConfig
from tasks.config.settings import Home, find_home
from tasks.distill import distill
from tasks.draft import draft
from tasks.environment import user_name
from tasks.errors import TandemError
from tasks.keep_data import KINDS, keep_data
from tasks.lock import model_lock
from tasks.outcome import ended
from tasks.passing import whole
from tasks.records import Curated, Finetune
from tasks.registry.connection import connect
from tasks.registry.runs import close_abandoned
from tasks.report_curation import keep_curation, publish, summarise, write_report
from tasks.review import Desk
from tasks.sift import read_in_use, sift
from tasks.start import Start, due, note_start, start_by_deployment
from tasks.telling import step
from tasks.tracking import mlflow_run

FINE_TUNES: Mapping[str, Callable[[Any], Finetune]] = {"sft": finetune_sft, "dpo": finetune_dpo}


@flow(name="curate", flow_run_name="curate {config.name}")
def curate(config: CurateConfig) -> Curated:
    """Keep what a person decided, draft new rows, make data sets of what is approved, and fine-tune if it is enough.

    Args:
        config: What is learnt from, what must not be, and which fine-tune it is for.
    """
    home, config = find_home(), current(config)
    with model_lock(home.locks, f"{config.name}.curation", config.lock_minutes * 60):
        close_killed(config, home)
        with mlflow_run(f"curation-{config.name}", f"curation-{config.name}") as run_id:
            done, report = one_curation(config, run_id, home)
    publish(done, report, home)
    return ended(done)


def one_curation(config: CurateConfig, run_id: str, home: Home) -> tuple[Curated, str]:
    """The story and its report."""
    desk, by = Desk(config.name, home), user_name()
    seconds: dict[str, float] = {}
    desk.read_file(by)
    in_use = read_in_use(config)
    with step(seconds, "draft"):
        drafted = draft(config)
    with step(seconds, "distill"):
        distilled = distill(config)
    with step(seconds, "sift"):
        sifted = sift([*drafted, *distilled.drafted], desk.drafts(), in_use, config)
    desk.add(sifted.rows)
    desk.write_file(by)
    with step(seconds, "keep"):
        kept = keep_data(config, whole(in_use), run_id)
    starts, fine_tunes = due(config, kept.versions, home)
    with step(seconds, "fine-tune"):
        fine_tunes += [start_fine_tune(start, home) for start in starts]
    done = summarise(config, sifted.rows, sifted.left_out, kept, distilled, fine_tunes, desk, seconds, run_id)
    report = write_report(config, kept, done)
    keep_curation(config, done, report)
    return done, report


def start_fine_tune(start: Start, home: Home) -> str:
    """Start it on the server where it is deployed, else here and now; once for a version. Returns what came of it."""
    if run := start_by_deployment(start):
        note_start(start, f"flow run {run}", home)
        return f"{start.config.name} is fine-tuned by the flow run {run}: {start.config.reason}"
    note_start(start, "here", home)  # before it begins: one that is killed goes on by hand, and never twice by itself
    try:
        made = FINE_TUNES[start.method](start.config)
    except TandemError as error:
        return f"The fine-tune of {start.config.name} from {start.version.pinned} failed: {error}"
    note_start(start, f"run {made.run_id}", home)
    return f"{made.adapter} was fine-tuned, version {made.version}: {made.decision}. {start.config.reason}"


def close_killed(config: CurateConfig, home: Home) -> None:
    """The caller holds the lock, so that no run of these can be alive."""
    client = connect(home)
    for model in (f"curation-{config.name}", *(f"dataset-{config.name}-{kind}" for kind in KINDS)):
        close_abandoned(client, model)
