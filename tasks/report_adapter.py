"""The report on a fine-tune: a markdown artifact in Prefect, the same text and its figures in MLflow."""

from collections.abc import Mapping
from typing import Any

from tasks.config.settings import Home
from tasks.config.training import DpoConfig, SftConfig
from tasks.evaluation.adapter_report import (
    differences_table,
    plot_contenders,
    plot_losses,
    say_worth,
    scores_table,
    slices_table,
    worst_table,
)
from tasks.judge import compared_score
from tasks.promote import is_to_wait
from tasks.records import AdapterManifest, Finetune, PreparedData, Trained, Verdict, number_of
from tasks.registry.connection import connect
from tasks.registry.runs import read_curve
from tasks.report import VERDICTS, markdown_table, show_report, table_of
from tasks.score import Contenders, Scoring

HOW_TO_APPROVE = "It waits for approval: `tandem promote {name} {version}`, or the flow `approve` in the Prefect UI."


def summarise(
    config: SftConfig | DpoConfig,
    manifest: AdapterManifest,
    data: PreparedData,
    trained: Trained,
    contenders: Contenders,
    verdict: Verdict,
    seconds: dict[str, float],
    run_id: str,
) -> Finetune:
    """What the fine-tune did, as one record."""
    return Finetune(
        adapter=config.name,
        method=manifest.method,
        decision=verdict.decision,
        reasons=verdict.reasons,
        version=number_of(manifest.tag),
        counts={f"rows: {what}": count for what, count in data.counts.items()} | {"steps": trained.steps},
        decisions=trained.decisions,
        scores={
            who: {name: score.estimate.mean for name, score in scores.items()} for who, scores in contenders.items()
        },
        seconds=seconds,
        run_id=run_id,
    )


def write_report(done: Finetune, scoring: Scoring, config: SftConfig | DpoConfig) -> str:
    """The fine-tune as markdown."""
    contenders, compared = scoring.contenders, compared_score(config)
    slices = slices_table(contenders, compared, scoring.labels)
    worst = worst_table(contenders, compared, scoring.texts)
    waits = done.live != done.version and is_to_wait(done.decision, config.promote)
    parts = [
        f"# {done.adapter}: Version {done.version} {VERDICTS[done.decision]}",
        "\n".join(f"- {reason}" for reason in done.reasons),
        f"Live now: version {done.live}." if done.live else "",
        HOW_TO_APPROVE.format(name=done.adapter, version=done.version) if waits else "",
        "## Scores",
        table_of(scores_table(contenders)),
        say_worth(contenders, compared, config.gate.confidence),
        "## The candidate beside the others, row by row",
        table_of(differences_table(contenders, config.gate.confidence)),
        *(["## By label", table_of(slices)] if slices else []),
        *(["## Rows answered worst", table_of(worst)] if worst else []),
        "## Data and training",
        markdown_table(["what", "count"], [[name, f"{count:,}"] for name, count in done.counts.items()]),
        "\n".join(f"- {decision}" for decision in done.decisions),
        "## Time",
        markdown_table(["step", "seconds"], [[step, f"{spent:.2f}"] for step, spent in done.seconds.items()]),
    ]
    return "\n\n".join(part for part in parts if part) + "\n"


def draw(contenders: Contenders, run_id: str, home: Home) -> Mapping[str, Any]:
    """The figures of the report, by file name."""
    steps, losses = read_curve(connect(home), run_id, "loss")
    return {"scores.png": plot_contenders(contenders), "loss.png": plot_losses(steps, losses)}


def publish(done: Finetune, report: str, home: Home) -> None:
    """Show the report in the Prefect UI, with the way to MLflow."""
    name = done.adapter
    show_report("finetune", f"adapter-{name}", name, done.decision, done.version, done.run_id, report, home)
