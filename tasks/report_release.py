"""The report on a release: a markdown artifact in Prefect, the same text in MLflow."""

from collections.abc import Sequence

from tasks.answering.grounding import Calibrated
from tasks.config.answering import ReleaseConfig
from tasks.config.settings import Home
from tasks.evaluation.adapter_report import differences_table, scores_table
from tasks.evaluation.guardrails import by_check, rate
from tasks.evaluation.releases import RIGHT, Case
from tasks.evaluation.routing import Routed
from tasks.examine import Examined
from tasks.guard import Guarded
from tasks.mend import Mended
from tasks.promote import is_to_wait
from tasks.records import Released, ReleaseManifest, Verdict, number_of
from tasks.register import FAILED_FILE, VERDICT_TAG
from tasks.registry.marks import VERSION_TAG
from tasks.report import VERDICTS, markdown_table, show_report, table_of
from tasks.report_adapter import HOW_TO_APPROVE

SHOWN = 10
"""Questions in the table of those answered wrongly."""
LONGEST = 200
"""Characters of a text in a table."""
CONFIDENCE = 0.95
"""Of the intervals of pass rates."""


def summarise(
    config: ReleaseConfig,
    manifest: ReleaseManifest,
    examined: Examined,
    verdict: Verdict,
    seconds: dict[str, float],
    run_id: str,
) -> Released:
    """What the release came to, as one record."""
    return Released(
        release=config.name,
        decision=verdict.decision,
        reasons=verdict.reasons,
        version=number_of(manifest.tag),
        parts=manifest.parts,
        scores={
            who: {name: score.estimate.mean for name, score in of.items() if score.rows}
            for who, of in examined.contenders.items()
        },
        seconds=seconds,
        run_id=run_id,
    )


def summarise_unchanged(config: ReleaseConfig, manifest: ReleaseManifest, mended: Mended) -> Released:
    """Nothing has changed since the newest version; its verdict still holds."""
    number = number_of(mended.newest[VERSION_TAG])
    reasons = ["Parts, policy, gate and golden queries are those of the newest version."]
    if number != mended.live:
        state = f"Live is version {mended.live}" if mended.live else "Nothing is live"
        reasons.append(f"{state}; the verdict on version {number} was {mended.newest[VERDICT_TAG]}.")
    return Released(config.name, "unchanged", tuple(reasons), number, manifest.parts, mended.live)


def write_report(
    done: Released,
    examined: Examined,
    guarded: Guarded,
    calibrated: Calibrated,
    routed: Routed | None,
    config: ReleaseConfig,
) -> str:
    """The release as markdown."""
    waits = done.live != done.version and is_to_wait(done.decision, config.promote)
    wrong = [case for case in examined.cases if not case.right]
    parts = [
        f"# {done.release}: Version {done.version} {VERDICTS[done.decision]}",
        "\n".join(f"- {reason}" for reason in done.reasons),
        f"Live now: version {done.live}." if done.live else "",
        HOW_TO_APPROVE.format(name=done.release, version=done.version) if waits else "",
        "## Parts",
        markdown_table(["part", "version"], [[kind, part] for kind, part in done.parts.items()]),
        "## Scores",
        table_of(scores_table(examined.contenders)),
        table_of(differences_table({who: {RIGHT: of[RIGHT]} for who, of in examined.contenders.items()})),
        *(["## Guardrails", _guardrails(guarded)] if guarded.outcomes else []),
        "## When it refuses",
        calibrated.sentence,
        *(["## When the model answers alone", routed.sentence] if routed else []),
        *(["## Questions answered wrongly", _wrong(wrong)] if wrong else []),
        "## Time",
        markdown_table(["step", "seconds"], [[step, f"{spent:.2f}"] for step, spent in done.seconds.items()]),
    ]
    return "\n\n".join(part for part in parts if part) + "\n"


def _guardrails(guarded: Guarded) -> str:
    """By check what passed, and what failed first."""
    floors = guarded.suite.floors if guarded.suite else {}
    rows = []
    for check, of in by_check(guarded.outcomes).items():
        found = rate(of, CONFIDENCE)
        first = next((f"{each.attack.question[:LONGEST]}: {each.problem}" for each in of if not each.passed), "")
        interval = f"{found.low:.3f} to {found.high:.3f}"
        floor = f"{floors[check]:.3f}" if check in floors else ""
        rows.append([check, f"{found.passed} of {found.cases}", f"{found.share:.3f}", interval, floor, first])
    table = markdown_table(["check", "passed", "rate", f"{CONFIDENCE:.0%} interval", "floor", "first to fail"], rows)
    return f"{table}\n\nEvery case that failed is in `{FAILED_FILE}` of the run."


def _wrong(cases: Sequence[Case]) -> str:
    """The first ones, with what was expected and what was said."""
    rows = [
        [
            case.query.query,
            ", ".join(case.query.relevant) if case.answerable else "a refusal: its documents were left out",
            case.answer.text[:LONGEST],
            f"{case.answer.confidence:.2f}",
        ]
        for case in cases[:SHOWN]
    ]
    more = f"\n\n… and {len(cases) - SHOWN} more: `answers.jsonl` of the run has every answer" if cases[SHOWN:] else ""
    return markdown_table(["question", "expected", "said", "confidence"], rows) + more


def publish(done: Released, report: str, home: Home) -> None:
    """Show the report in the Prefect UI, with the way to MLflow."""
    name = done.release
    show_report("release", f"release-{name}", name, done.decision, done.version, done.run_id, report, home)
