"""The report on a diagnosis: a markdown artifact in Prefect; the same text, a chart and every failure in MLflow.

The report shows no text of a recorded question or answer, only the ids of their traces: such texts stay in MLflow,
where they came from.
"""

from collections.abc import Iterable, Mapping, Sequence
from typing import TYPE_CHECKING, Any

import yaml
from prefect import task

from tasks.answering.service.tracing import RELEASE_TAG
from tasks.config.diagnosis import DiagnoseConfig
from tasks.config.settings import Home, find_home
from tasks.evaluation.diagnosis import (
    RULES,
    Diagnosis,
    Finding,
    count_causes,
    kind_of,
    plot_causes,
    share_of,
)
from tasks.records import Cause, Diagnosed, IndexManifest, ReleaseManifest
from tasks.register import REPORT_FILE, flat
from tasks.registry.connection import connect
from tasks.registry.runs import log, log_table
from tasks.registry.versions import load_manifest
from tasks.releases import part
from tasks.remedies import Fix, Setup, fix_for
from tasks.report import markdown_table, show_report, table_of

if TYPE_CHECKING:
    from matplotlib.figure import Figure

TABLE_FILE = "diagnosis.json"
CHART_FILE = "causes.png"
CHART = f"![Why answers fail]({CHART_FILE})"
COLUMNS = (
    "id",
    "source",
    "trace_id",
    "question",
    "expected",
    "answer",
    "cause",
    "detail",
    "rule",
    "evidence",
    "fix",
    "tenant",
    "release",
)
LONGEST = 160
"""Characters of a text in a table."""
TOPICS = 20
GAPS = {
    "a gap of knowledge or retrieval": (
        Cause.NOT_IN_SOURCES,
        Cause.NOT_RETRIEVED,
        Cause.NOT_USED,
        Cause.CONTRADICTED,
    ),
    "a gap of behaviour": (Cause.FORM, Cause.WRONGLY_REFUSED),
    "a guardrail": (Cause.GUARDRAIL,),
    "not explained": (Cause.UNEXPLAINED,),
}


def summarise(
    config: DiagnoseConfig,
    release: str,
    diagnosis: Diagnosis,
    asked: int,
    notes: tuple[str, ...],
    seconds: dict[str, float],
    run_id: str,
) -> tuple[Diagnosed, dict[str, Fix]]:
    """What the diagnosis came to, as one record; and the fix for each cause that occurs, the most frequent first."""
    causes = count_causes(diagnosis.findings)
    setup = _setup(release, find_home())
    occurring = sorted(filter(causes.__getitem__, causes), key=lambda kind: -causes[kind])
    fixes = {kind: fix_for(kind, diagnosis, setup) for kind in occurring}
    done = Diagnosed(
        name=config.name,
        release=release,
        asked=asked,
        failed=len(diagnosis.findings),
        causes=causes,
        fixes={kind: fix.sentence for kind, fix in fixes.items()},
        commands={kind: fix.command for kind, fix in fixes.items()},
        notes=notes,
        seconds=seconds,
        run_id=run_id,
    )
    return done, fixes


def write_report(config: DiagnoseConfig, diagnosis: Diagnosis, done: Diagnosed, fixes: dict[str, Fix]) -> str:
    """The diagnosis as markdown."""
    parts = [
        f"# {done.name}: {done.failed} of {done.asked} answers of {done.release} fail",
        "\n".join(f"- {line}" for line in (*_by_gap(diagnosis.findings), *done.notes)),
        *(["## Causes", CHART, table_of(_causes(config, done)), _others(done)] if done.failed else []),
        *(
            ["## What mends them", *(_fix(kind, fix, done.causes[kind]) for kind, fix in fixes.items())]
            if fixes
            else []
        ),
        *(["## What was asked for and is not there", table_of(_topics(diagnosis))] if diagnosis.topics else []),
        *(["## Examples", *_examples(config, diagnosis, fixes)] if fixes and config.examples else []),
        "## The rules",
        "They are asked in this order, and the first one that fits decides.",
        "\n".join(f"{number}. {_named(kind_of(rule))}: {rule.sentence}" for number, rule in enumerate(RULES, start=1)),
        "## Time",
        markdown_table(["step", "seconds"], [[step, f"{spent:.2f}"] for step, spent in done.seconds.items()]),
    ]
    return "\n\n".join(part for part in parts if part) + "\n"


def draw(config: DiagnoseConfig, done: Diagnosed) -> "Mapping[str, Figure]":
    """The figures of the report, by file name; none where nothing fails."""
    return {CHART_FILE: plot_causes(done.causes, config.confidence)} if done.failed else {}


@task(name="keep diagnosis")
def keep_diagnosis(
    config: DiagnoseConfig,
    diagnosis: Diagnosis,
    done: Diagnosed,
    fixes: dict[str, Fix],
    report: str,
    figures: "Mapping[str, Figure]",
) -> None:
    """Log settings, counts, the report, the chart, and every failure with its cause as a table."""
    client = connect(find_home())
    settings = config.model_dump(mode="json")
    of_cause = {f"cause.{cause}": 0 for cause in Cause}
    for finding in diagnosis.findings:
        of_cause[f"cause.{finding.rule.cause}"] += 1
    log(
        client,
        done.run_id,
        params=flat(settings),
        metrics={"asked": done.asked, "failed": done.failed, **of_cause},
        tags={RELEASE_TAG: done.release},
        texts={REPORT_FILE: report, "config.yaml": yaml.safe_dump(settings, sort_keys=False, allow_unicode=True)},
        figures=figures,
    )
    rows = [_as_record(finding, done.release, fixes[finding.kind]) for finding in diagnosis.findings]
    if rows:
        log_table(client, done.run_id, TABLE_FILE, rows)


def publish(done: Diagnosed, report: str, figures: "Mapping[str, Figure]", home: Home) -> None:
    """Show the report and its chart in the Prefect UI, with the way to MLflow."""
    decision, experiment = f"{done.failed} of {done.asked} fail", f"diagnosis-{done.name}"
    show_report("diagnose", experiment, done.name, decision, None, done.run_id, report, home, figures)


def _setup(release: str, home: Home) -> Setup:
    client, (name, _, number) = connect(home), release.partition("@")
    manifest = ReleaseManifest.from_json(load_manifest(client, name, int(number)))
    return Setup.of(manifest, IndexManifest.from_json(part(client, manifest.index)))


def _by_gap(findings: Sequence[Finding]) -> list[str]:
    """How many failures are gaps of what kind."""
    counts = {gap: sum(finding.rule.cause in causes for finding in findings) for gap, causes in GAPS.items()}
    return [f"{count} of {len(findings)}: {gap}." for gap, count in counts.items() if count]


def _causes(config: DiagnoseConfig, done: Diagnosed) -> list[dict[str, str]]:
    return [
        {
            "cause": _named(kind),
            "failures": str(count),
            "share": f"{found.mean:.0%}",
            f"{config.confidence:.0%} interval": f"{found.low:.0%} to {found.high:.0%}",
        }
        for kind, count in sorted(done.causes.items(), key=lambda item: -item[1])
        if count
        for found in [share_of(count, done.failed, config.confidence)]
    ]


def _others(done: Diagnosed) -> str:
    others = [_named(kind) for kind, count in done.causes.items() if not count]
    return f"No answer failed by anything else: {', '.join(others)}." if others else ""


def _fix(kind: str, fix: Fix, count: int) -> str:
    return (
        f"### {_named(kind)} ({count})\n\n{fix.sentence} {fix.takes}\n\n```sh\n{fix.command}\n```\n\n"
        f"In the Prefect UI: {fix.deployment}."
    )


def _topics(diagnosis: Diagnosis) -> list[dict[str, str]]:
    return [{"questions": str(len(of)), "such as": "; ".join(map(_asked, of[:3]))} for of in diagnosis.topics[:TOPICS]]


def _examples(config: DiagnoseConfig, diagnosis: Diagnosis, kinds: Iterable[str]) -> list[str]:
    parts = []
    for kind in kinds:
        of = [finding for finding in diagnosis.findings if finding.kind == kind][: config.examples]
        parts += [f"### {_named(kind)}", table_of([_example(finding) for finding in of])]
    return parts


def _example(finding: Finding) -> dict[str, str]:
    recorded = finding.failure.source == "trace"
    return {
        "question": _asked(finding),
        "expected": "" if recorded else _cut(_expected(finding)),
        "said": "" if recorded else _cut(finding.failure.row.whole.text),
        "what shows it": finding.rule.shown(finding.evidence),
        "rule": str(RULES.index(finding.rule) + 1),
    }


def _as_record(finding: Finding, release: str, fix: Fix) -> dict[str, Any]:
    """A row of the table in MLflow; the text of an answer only where that of the recorded one was kept."""
    failure = finding.failure
    query = failure.row.query
    values = (
        query.id,
        failure.source,
        query.id if failure.source == "trace" else "",
        query.query,
        _expected(finding),
        failure.row.whole.text if failure.keeps_answers else "",
        str(finding.rule.cause),
        finding.rule.detail,
        finding.rule.sentence,
        finding.rule.shown(finding.evidence),
        fix.sentence,
        query.tenant or "",
        release,
    )
    return dict(zip(COLUMNS, values, strict=True))


def _asked(finding: Finding) -> str:
    query = finding.failure.row.query
    return f"`{query.id}`" if finding.failure.source == "trace" else query.query


def _expected(finding: Finding) -> str:
    row = finding.failure.row
    return row.expected or ", ".join(row.query.relevant)


def _named(kind: str) -> str:
    return kind.replace("_", " ")


def _cut(text: str) -> str:
    return text if len(text) <= LONGEST else f"{text[: LONGEST - 1]}…"
