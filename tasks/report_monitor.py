"""The report on a watch: a verdict and a chart in Prefect, an event on each new finding; all measures in MLflow.

It shows no text of a recorded question: such texts stay in MLflow, where they came from.
"""

import json
from collections.abc import Mapping, Sequence
from dataclasses import asdict, replace
from datetime import UTC, datetime
from typing import TYPE_CHECKING

import yaml
from prefect import task
from prefect.events import emit_event
from prefect.events.worker import EventsWorker

from tasks.config.monitoring import MonitorConfig
from tasks.config.settings import Home, find_home
from tasks.evaluation.drift import Drift, level_of_run
from tasks.evaluation.monitor_report import changes_table, plot_watch, say_change, say_value
from tasks.evaluation.series import Change
from tasks.observe import Windows
from tasks.records import Monitored, Spotted
from tasks.register import REPORT_FILE, flat
from tasks.registry.connection import connect
from tasks.registry.runs import DECISION_TAG, last_tags, log
from tasks.report import markdown_table, show_report, table_of
from tasks.upkeep import Upkeep

if TYPE_CHECKING:
    from matplotlib.figure import Figure

FOUND_TAG = "tandem.found"
RELEASE_TAG = "tandem.release"
CHART_FILE = "changes.png"
EVENTS = "tandem.monitor."
"""What the names of the events begin with; the sign of the finding follows."""


def summarise(
    config: MonitorConfig,
    release: str,
    windows: Windows,
    drift: Drift | None,
    changes: Sequence[Change],
    upkeep: Upkeep,
    note: str,
    seconds: dict[str, float],
    run_id: str,
    home: Home,
) -> Monitored:
    """What the watch came to, as one record; what the run before found too is marked as known.

    `note` says why questions or answers were not compared, if they were not.
    """
    found = (*_drifted(config, drift, windows), *map(_worse, filter(lambda one: one.worse, changes)), *upkeep.found)
    before = json.loads(last_tags(connect(home), f"monitor-{config.name}", FOUND_TAG).get(FOUND_TAG, "[]"))
    return Monitored(
        name=config.name,
        release=release,
        decision="found" if found else "quiet",
        found=tuple(replace(each, known=each.key in before) for each in found),
        notes=(*([note] if note else []), *upkeep.notes),
        counts={
            "answers in the reference window": len(windows.reference),
            "newest answers": len(windows.recent),
            "series compared": len(changes),
            "sources": len(upkeep.sources),
        },
        scores={each.name: {"before": each.before, "now": each.now, "p": each.p_value} for each in changes}
        | ({"questions": {"before": 0.5, "now": drift.separation, "p": drift.p_value}} if drift else {}),
        seconds=seconds,
        run_id=run_id,
    )


def write_report(config: MonitorConfig, done: Monitored, changes: Sequence[Change], upkeep: Upkeep) -> str:
    """The watch as markdown."""
    level = level_of_run(config.false_alarms, config.horizon)
    questions = done.scores.get("questions")
    parts = [
        f"# {done.name}: {_headline(done)}",
        "\n\n".join(
            f"- **{each.sign}**{' (known)' if each.known else ''}: {each.sentence} To do: {each.remedy}."
            for each in done.found
        ),
        "\n".join(f"- {note}" for note in done.notes),
        "## Questions" if questions else "",
        f"Separation {questions['now']:.3f} (0.5: alike), p {questions['p']:.2g}." if questions else "",
        *(["## Answers", f"![changes]({CHART_FILE})", table_of(changes_table(changes))] if changes else []),
        f"Something is found at p ≤ {level:.2g}: over {config.horizon} runs the chance of any false alarm is at most "
        f"{config.false_alarms:.0%} for the questions, and as much for the answers' series together."
        if changes
        else "",
        "## Sources",
        table_of(
            [
                {
                    "source": f"{each.index}/{each.source}",
                    "documents": f"{each.documents:,}",
                    "last read": _day(each.listed),
                    "last change": _day(each.changed),
                }
                for each in upkeep.sources
            ]
        ),
        "## Live versions",
        table_of([{"kind": each.kind, "version": each.pinned, "made": _day(each.created)} for each in upkeep.versions]),
        "## Counts",
        markdown_table(["what", "count"], [[what, f"{count:,}"] for what, count in done.counts.items()]),
        "## Time",
        markdown_table(["step", "seconds"], [[step, f"{spent:.2f}"] for step, spent in done.seconds.items()]),
    ]
    return "\n\n".join(part for part in parts if part) + "\n"


def draw(changes: Sequence[Change], drift: Drift | None) -> "Mapping[str, Figure]":
    """The figures of the report, by file name; none where no answers were compared."""
    return {CHART_FILE: plot_watch(changes, drift)} if changes else {}


@task(name="keep watch")
def keep_watch(
    config: MonitorConfig, done: Monitored, drift: Drift | None, report: str, figures: "Mapping[str, Figure]"
) -> None:
    """Log settings, the verdict as tags, measures, findings, the report and its chart."""
    settings = config.model_dump(mode="json")
    measures = {f"{_metric(name)}.{what}": value for name, of in done.scores.items() for what, value in of.items()}
    log(
        connect(find_home()),
        done.run_id,
        params=flat(settings),
        metrics=measures
        | {what.replace(" ", "_"): float(count) for what, count in done.counts.items()}
        | {f"seconds_{step}": spent for step, spent in done.seconds.items()}
        | {"found": float(len(done.found))}
        | ({"distance_of_questions": drift.distance} if drift else {}),
        tags={
            DECISION_TAG: done.decision,
            RELEASE_TAG: done.release,
            FOUND_TAG: json.dumps([each.key for each in done.found]),
        },
        texts={
            REPORT_FILE: report,
            "found.json": json.dumps([asdict(each) for each in done.found], indent=1),
            "config.yaml": yaml.safe_dump(settings, sort_keys=False, allow_unicode=True),
        },
        figures=figures,
    )


def publish(done: Monitored, report: str, figures: "Mapping[str, Figure]", home: Home) -> None:
    """Show the report and its chart in the Prefect UI, and tell whoever listens of each new finding."""
    experiment = f"monitor-{done.name}"
    show_report("monitor", experiment, done.name, done.decision, None, done.run_id, report, home, figures)
    for each in done.found:
        if not each.known:
            _emit(done, each)
    EventsWorker.instance().wait_until_empty()  # or the end of the process takes them along


def _emit(done: Monitored, found: Spotted) -> None:
    name = done.release.partition("@")[0]
    emit_event(
        f"{EVENTS}{found.sign}",
        resource={"prefect.resource.id": f"tandem.release.{name}", "prefect.resource.name": done.release},
        payload={
            "monitor": done.name,
            "release": done.release,
            "what": found.what,
            "sentence": found.sentence,
            "remedy": found.remedy,
            "mlflow_run": done.run_id,
        },
    )


def _drifted(config: MonitorConfig, drift: Drift | None, windows: Windows) -> list[Spotted]:
    level = level_of_run(config.false_alarms, config.horizon)
    if drift is None or drift.p_value > level or drift.separation < config.min_separation:
        return []
    sentence = (
        f"People ask something else: one of the newest {len(drift.recent):,} questions looks newer than one of the "
        f"{len(drift.reference):,} of the reference window with probability {drift.separation:.2f} (0.50 is no "
        f"difference; p = {drift.p_value:.2g}, and {level:.2g} is allowed by chance)."
    )
    remedy = (
        "see by `tandem diagnose` whether the answers suffer; if the change is there to stay, let `reference_from` "
        f"begin at {_day(windows.recent[0].at)}"
    )
    return [Spotted("drift", "questions", sentence, remedy)]


def _worse(change: Change) -> Spotted:
    sentence = (
        f"{change.name[0].upper()}{change.name[1:]}: {say_value(change, change.before)} before, "
        f"{say_value(change, change.now)} now ({say_change(change)}; p = {change.p_value:.2g}, corrected)."
    )
    return Spotted("quality", change.name, sentence, "see by `tandem diagnose` where the newest answers fail")


def _headline(done: Monitored) -> str:
    if not done.found:
        return f"all is quiet around {done.release}"
    new = sum(not each.known for each in done.found)
    count = f"{len(done.found)} findings" if len(done.found) > 1 else "1 finding"
    return f"{count} about {done.release}, {new or 'none'} new"


def _metric(name: str) -> str:
    """A name as MLflow allows it."""
    return "".join(letter if letter.isalnum() else "_" for letter in name)


def _day(seconds: float) -> str:
    return datetime.fromtimestamp(seconds, UTC).astimezone().isoformat(sep=" ", timespec="minutes")
