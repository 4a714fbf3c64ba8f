"""What a run of the maintenance came to: a markdown artifact in Prefect, the same text and the figures in MLflow."""

from collections import Counter
from collections.abc import Mapping, Sequence

import yaml
from prefect import task

from tasks.config.maintenance import MaintainConfig
from tasks.config.settings import Home, find_home
from tasks.records import Housekeeping, Removal, Trouble
from tasks.register import REPORT_FILE, flat
from tasks.registry.connection import connect
from tasks.registry.runs import DECISION_TAG, log
from tasks.report import markdown_table, show_report


def summarise(
    config: MaintainConfig,
    mended: Sequence[str],
    troubles: Sequence[Trouble],
    removals: Sequence[Removal],
    others: Sequence[str],
    before: Mapping[str, int],
    after: Mapping[str, int],
    seconds: dict[str, float],
    run_id: str,
) -> Housekeeping:
    """The maintenance as one record."""
    return Housekeeping(
        decision="troubles" if troubles else "in order",
        applied=config.apply,
        removals=tuple(removals),
        mended=tuple(mended),
        troubles=tuple(troubles),
        space={kind: (before[kind], after[kind]) for kind in after},
        left_alone=tuple(others),
        seconds=seconds,
        run_id=run_id,
    )


def write_report(config: MaintainConfig, done: Housekeeping) -> str:
    """The maintenance as markdown."""
    heading = "what was done" if done.applied else "what would be done"
    total = [sum(sizes) for sizes in zip(*done.space.values(), strict=True)]
    rows = [[kind, *map(_megabytes, sizes)] for kind, sizes in done.space.items() if any(sizes)]
    parts = [
        f"# Maintenance: {heading}",
        "" if done.applied else "Nothing was changed: with `apply` set in its form or file, it is.",
        "## Space",
        markdown_table(["what", "MB before", "MB after"], [*rows, ["all of it", *map(_megabytes, total)]]),
        "## Kept no longer",
        markdown_table(["what", "which", "count", "why"], [_row(each) for each in done.removals])
        if done.removals
        else f"Nothing: all is within {config.depth} versions and {config.days:g} days.",
        "## Mended",
        "\n".join(f"- {sentence}" for sentence in done.mended) or "Nothing.",
        "## Wrong still",
        markdown_table(["what", "what mends it"], [[each.what, f"`{each.remedy}`"] for each in done.troubles])
        if done.troubles
        else "Nothing: pointers, versions, tables, runs and the ledger fit one another.",
        "## Left alone" if done.left_alone else "",
        "\n".join(f"- {sentence}" for sentence in done.left_alone),
        "## Time",
        markdown_table(["step", "seconds"], [[step, f"{spent:.2f}"] for step, spent in done.seconds.items()]),
    ]
    return "\n\n".join(part for part in parts if part) + "\n"


@task(name="keep maintenance")
def keep_maintenance(config: MaintainConfig, done: Housekeeping, report: str) -> None:
    """Log settings, space and counts by kind, and the report."""
    settings = config.model_dump(mode="json")
    counts: Counter[str] = Counter()
    for each in done.removals:
        counts[each.kind] += each.count
    sizes = {
        f"bytes_{when}.{kind}": float(sizes[place])
        for kind, sizes in done.space.items()
        for place, when in enumerate(("before", "after"))
    }
    log(
        connect(find_home()),
        done.run_id,
        params=flat(settings),
        metrics=sizes
        | {f"count.{kind}": float(count) for kind, count in counts.items()}
        | {f"seconds_{step}": spent for step, spent in done.seconds.items()}
        | {"troubles": float(len(done.troubles))},
        tags={DECISION_TAG: done.decision},
        texts={REPORT_FILE: report, "config.yaml": yaml.safe_dump(settings, sort_keys=False)},
    )


def publish(done: Housekeeping, report: str, home: Home) -> None:
    """Show the report in the Prefect UI, with the way to MLflow."""
    show_report("maintain", "maintenance", "installation", done.decision, None, done.run_id, report, home)


def _row(each: Removal) -> list[str]:
    why = f"**still there**: {each.failed}" if each.failed else each.why
    return [each.kind, each.what, f"{each.count:,}", why]


def _megabytes(size: int) -> str:
    return f"{size / 1e6:,.1f}"
