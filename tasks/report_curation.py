"""The report on learning from use: a markdown artifact in Prefect, the same text and counts in MLflow, no row."""

from collections import Counter
from collections.abc import Mapping, Sequence
from typing import Any

import yaml
from prefect import task

from tasks.config.curation import CurateConfig
from tasks.config.settings import Home, find_home
from tasks.distill import Distilled
from tasks.keep_data import Kept
from tasks.records import Curated, Draft
from tasks.register import REPORT_FILE, flat
from tasks.registry.connection import connect
from tasks.registry.runs import DECISION_TAG, log
from tasks.report import markdown_table, show_report
from tasks.review import Desk

DECISIONS = {
    "new versions": "new versions of its data sets",
    "waits": "rows wait to be decided on",
    "nothing new": "nothing new",
}
STATES = ("waiting", "approved", "rejected")


def summarise(
    config: CurateConfig,
    rows: Sequence[Draft],
    left_out: Mapping[str, int],
    kept: Kept,
    distilled: Distilled,
    fine_tunes: Sequence[str],
    desk: Desk,
    seconds: dict[str, float],
    run_id: str,
) -> Curated:
    """What it came to, as one record."""
    counts = desk.counts()
    waiting = sum(of["waiting"] for of in counts.values())
    drafted: dict[str, Counter[str]] = {}
    for row in rows:
        drafted.setdefault(row.source, Counter())[row.kind] += 1
    wait = [f"{waiting} rows wait in {desk.file}: decide on them there, then run it again."] if waiting else []
    return Curated(
        name=config.name,
        decision="new versions" if kept.new else "waits" if waiting else "nothing new",
        reasons=(*wait, *fine_tunes, *distilled.reasons),
        drafted={source: dict(of) for source, of in drafted.items()},
        left_out=dict(sorted((Counter(left_out) + kept.left_out).items(), key=lambda item: -item[1])),
        rows=counts,
        versions={kind: version.pinned for kind, version in kept.versions.items()},
        review=str(desk.file),
        spent=distilled.spent,
        seconds=seconds,
        run_id=run_id,
    )


def write_report(config: CurateConfig, kept: Kept, done: Curated) -> str:
    """The curation as markdown."""
    kinds = list(dict.fromkeys(kind for of in done.drafted.values() for kind in of))
    caps = ", ".join(f"{most:,} of a {what}" for what, most in config.caps.model_dump().items())
    drafted = [[source, *(str(of.get(kind, 0)) for kind in kinds)] for source, of in done.drafted.items()]
    states = [[kind, *(str(of[state]) for state in STATES)] for kind, of in done.rows.items()]
    versions = [
        [version.pinned, str(version.train), str(version.held_out), f"`{version.run_id}`"]
        for version in kept.versions.values()
    ]
    parts = [
        f"# {done.name}: {DECISIONS[done.decision]}",
        "\n".join(f"- {reason}" for reason in done.reasons),
        *(["## New rows that wait", markdown_table(["from", *kinds], drafted)] if drafted else []),
        f"At most {caps} are taken of each kind, the newest first; {config.held_out_share:.0%} of the questions, with "
        "all that are near them, are held out.",
        *(["## Rows", markdown_table(["kind", *STATES], states)] if states else []),
        *(
            ["## Data sets", markdown_table(["version", "to train on", "held out", "run"], versions)]
            if versions
            else []
        ),
        *(["## Left out", _left_out(done)] if done.left_out else []),
        "## Time",
        markdown_table(["step", "seconds"], [[step, f"{spent:.2f}"] for step, spent in done.seconds.items()]),
    ]
    return "\n\n".join(part for part in parts if part) + "\n"


@task(name="keep curation")
def keep_curation(config: CurateConfig, done: Curated, report: str) -> None:
    """Log settings, counts, what it came to, and the report."""
    settings = config.model_dump(mode="json")
    log(
        connect(find_home()),
        done.run_id,
        params=flat(settings),
        metrics=_metrics(done),
        tags={DECISION_TAG: done.decision, **{f"tandem.data.{kind}": name for kind, name in done.versions.items()}},
        texts={REPORT_FILE: report, "config.yaml": yaml.safe_dump(settings, sort_keys=False, allow_unicode=True)},
    )


def publish(done: Curated, report: str, home: Home) -> None:
    """Show the report in the Prefect UI, with the way to MLflow."""
    show_report("curate", f"curation-{done.name}", done.name, done.decision, None, done.run_id, report, home)


def _left_out(done: Curated) -> str:
    return markdown_table(["because", "rows"], [[why, str(count)] for why, count in done.left_out.items()])


def _metrics(done: Curated) -> dict[str, Any]:
    drafted = {f"drafted.{source}.{kind}": count for source, of in done.drafted.items() for kind, count in of.items()}
    rows = {f"{state}.{kind}": count for kind, of in done.rows.items() for state, count in of.items()}
    return drafted | rows | {"left_out": sum(done.left_out.values()), "spent": done.spent}
