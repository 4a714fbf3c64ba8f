"""The morning's report: a markdown artifact in Prefect, the same text in MLflow, a table on the terminal."""

from collections.abc import Mapping, Sequence
from typing import TYPE_CHECKING

from prefect import runtime
from prefect.artifacts import create_link_artifact, create_markdown_artifact

from tasks.compare import Work
from tasks.config.settings import Home
from tasks.documents.changes import Changes
from tasks.evaluate import Evaluation
from tasks.evaluation.report import scores_table
from tasks.evaluation.retrieval import RetrievalScores
from tasks.figures import data_url
from tasks.headline import page_of
from tasks.health import examine_health
from tasks.maintain import Maintained
from tasks.mend import Mended
from tasks.progress import artifact_key
from tasks.records import IndexManifest, Night, Prepared, Problem, Verdict, number_of
from tasks.register import VERDICT_TAG
from tasks.registry.marks import VERSION_TAG
from tasks.telling import warn

if TYPE_CHECKING:
    from matplotlib.figure import Figure

VERDICTS = {
    "promote": "passed the gate",
    "hold": "is held for a person to decide",
    "reject": "was rejected; what was live stays live",
    "unchanged": "Nothing changed; no version was made",
}
LONGEST_LIST = 50


def summarise(
    work: Work,
    prepared: Prepared,
    maintained: Maintained,
    evaluation: Evaluation,
    verdict: Verdict,
    manifest: IndexManifest,
    seconds: dict[str, float],
    run_id: str,
) -> Night:
    """What the night did, as one record."""
    counts = count_changes(work.changes) | {
        "files set aside": len(maintained.quarantined),
        "documents with stale passages": maintained.stale,
        "documents converted": prepared.parsed,
        "passages embedded": prepared.embedded,
        "passages reused": prepared.reused,
        "passages in the index": maintained.health.passages,
    }
    return Night(
        index=manifest.index,
        decision=verdict.decision,
        reasons=verdict.reasons,
        version=number_of(manifest.tag),
        counts=counts,
        scores=_means(evaluation.candidate),
        champion_scores=_means(evaluation.champion),
        seconds=seconds,
        quarantined=maintained.quarantined,
        notes=work.notes,
        golden=work.golden,
        run_id=run_id,
    )


def summarise_quiet(name: str, work: Work, mended: Mended, seconds: dict[str, float]) -> Night:
    """A night without anything to do; what held the last version still holds it."""
    held, live = work.changes.held, mended.live
    lost = (f"Nothing is live. To put a version live: {mended.remedy}.",) if mended.remedy else ()
    number = number_of(mended.newest[VERSION_TAG])
    state = f"Live is version {live}" if live else "Nothing is live"
    behind = [f"{state}; the verdict on the newest version, {number}, was {mended.newest[VERDICT_TAG]}."]
    return Night(
        index=name,
        decision="hold" if held or lost else "unchanged",
        reasons=(
            *lost,
            *(held or ("Sources, configuration and golden queries are as they were.",)),
            *(behind if number != live else ()),
        ),
        live=live,
        counts=count_changes(work.changes),
        seconds=seconds,
        notes=work.notes,
        golden=work.golden,
    )


def count_changes(changes: Changes) -> dict[str, int]:
    return {
        "documents added": len(changes.added),
        "documents changed": len(changes.changed),
        "documents moved": len(changes.moved),
        "documents deleted": 0 if changes.held else len(changes.deleted),
        "documents gone but kept": len(changes.deleted) if changes.held else 0,
        "documents unchanged": changes.unchanged,
    }


def _means(scores: RetrievalScores | None) -> dict[str, float]:
    return {metric: estimate.mean for metric, estimate in scores.means.items()} if scores else {}


def write_report(night: Night, evaluation: Evaluation | None = None) -> str:
    """The night as markdown."""
    version = f"Version {night.version} " if night.version else ""
    parts = [
        f"# {night.index}: {version}{VERDICTS[night.decision]}",
        "\n".join(f"- {reason}" for reason in night.reasons),
        f"Live now: version {night.live}." if night.live else "",
        "\n".join(f"- {note}" for note in night.notes),
        "## Documents and passages",
        markdown_table(["what", "count"], [[name, f"{count:,}"] for name, count in night.counts.items()]),
    ]
    if evaluation and evaluation.candidate:
        parts += ["## Scores", table_of(scores_table(evaluation.candidate, evaluation.champion))]
    if evaluation and evaluation.comparison and evaluation.comparison.worst:
        worst = [[query, f"{before:.3f}", f"{now:.3f}"] for query, before, now in evaluation.comparison.worst]
        parts += ["## Queries that lost most", markdown_table(["query", "champion", "candidate"], worst)]
    if night.quarantined:
        parts += ["## Files set aside", _quarantine(night.quarantined)]
    seconds = [[step, f"{spent:.2f}"] for step, spent in night.seconds.items()]
    parts += ["## Time", markdown_table(["step", "seconds"], seconds)]
    return "\n\n".join(part for part in parts if part) + "\n"


def report_health(home: Home) -> str:
    """What is wrong with the installation around the night: told in its log, and as markdown, if there is anything."""
    troubles = examine_health(home).troubles
    for trouble in troubles:
        warn(f"{trouble.what}: {trouble.remedy}")
    if not troubles:
        return ""
    rows = [[trouble.what, trouble.remedy] for trouble in troubles]
    return f"\n## Wrong with the installation\n\n{markdown_table(['what', 'to do'], rows)}\n"


def publish(night: Night, report: str, home: Home) -> None:
    """Show the report in the Prefect UI, with the way to MLflow."""
    show_report(
        "reindex", f"index-{night.index}", night.index, night.decision, night.version, night.run_id, report, home
    )


def show_report(
    flow: str,
    experiment: str,
    name: str,
    decision: str,
    version: int | None,
    run_id: str,
    report: str,
    home: Home,
    figures: "Mapping[str, Figure] | None" = None,
) -> None:
    """Show a flow's report in the Prefect UI, with the way to its run and version in MLflow, if there are any.

    Figures that the report names by their files are put into it.
    """
    if runtime.flow_run.id is None:
        return
    for file, figure in (figures or {}).items():
        report = report.replace(f"({file})", f"({data_url(figure)})")
    page = page_of(name, version, home) if run_id else ""
    where = f"\n\nMLflow ({home.tracking_uri}): experiment `{experiment}`, run `{run_id}`\n" if run_id else ""
    where += f"\n[{name} version {version} in MLflow]({page})\n" if page else ""
    create_markdown_artifact(report + where, key=artifact_key(flow, name), description=f"{name}: {decision}")
    if page:
        create_link_artifact(
            page,
            link_text=f"{name} version {version} in MLflow",
            key=artifact_key("mlflow", name),
            description=f"{name} version {version} in MLflow's registry",
        )


def _quarantine(problems: Sequence[Problem]) -> str:
    shown = [[f"`{problem.document}`", problem.reason] for problem in problems[:LONGEST_LIST]]
    more = len(problems) - len(shown)
    return markdown_table(["file", "reason"], shown) + (f"\n\n… and {more} more" if more > 0 else "")


def table_of(rows: Sequence[Mapping[str, str]]) -> str:
    """Rows by column, as markdown; a cell that a row does not have is empty."""
    columns = list(dict.fromkeys(column for row in rows for column in row))
    return markdown_table(columns, [[row.get(column, "") for column in columns] for row in rows])


def markdown_table(columns: Sequence[str], rows: Sequence[Sequence[str]]) -> str:
    cells = [columns, ["---"] * len(columns), *rows]
    return "\n".join(f"| {' | '.join(_cell(cell) for cell in row)} |" for row in cells)


def _cell(text: str) -> str:
    return " ".join(text.split()).replace("|", "\\|")
