"""The report on a case: a markdown artifact in Prefect; the same text, its figures as JSON and the plot in MLflow."""

import json
from collections.abc import Mapping, Sequence
from dataclasses import asdict
from fractions import Fraction
from typing import TYPE_CHECKING

import yaml
from prefect import task

from tasks.advice import tables
from tasks.advice.costs import reach
from tasks.advice.plot import plot_costs
from tasks.advice.questions import ages, situations
from tasks.advice.weighing import Weighed, first_of_each
from tasks.config.settings import Home, find_home
from tasks.records import Advised
from tasks.register import REPORT_FILE, flat
from tasks.registry.connection import connect
from tasks.registry.runs import DECISION_TAG, log
from tasks.report import markdown_table, show_report, table_of

if TYPE_CHECKING:
    from matplotlib.figure import Figure

ADVICE_FILE, PLOT_FILE = "advice.json", "costs.png"
TITLES = {
    "retrieval": "retrieval",
    "fine-tuning": "fine-tuning",
    "both": "retrieval and fine-tuning",
    "neither": "nothing can be advised yet",
}
PICTURE = f"![What each way costs, by the number of requests]({PLOT_FILE})"


def write_report(of: Weighed, done: Advised) -> str:
    """The advice as markdown."""
    case = of.case
    swing, farthest = f"{case.swing:.0%}", reach(of.ranking.ways, Fraction(case.requests))
    parts = [
        f"# {done.name}: {TITLES[done.decision]}",
        case.description,
        "\n".join(f"- {reason}" for reason in done.reasons),
        *(
            ["## Before one relies on it", "\n".join(f"- {warning}" for warning in done.warnings)]
            if done.warnings
            else []
        ),
        "## What to do, in this order",
        "\n".join(f"{number}. {step}" for number, step in enumerate(done.steps, start=1)),
        "## Five questions",
        table_of(done.questions),
        "## Seven dimensions",
        "From 0 to 5 each, and their mean by weight.",
        table_of(tables.scores_table(of)),
        table_of(tables.reasons_table(done)),
        "## What it costs a month",
        f"At {case.requests:,} requests a month and the prices of {done.prices_as_of} "
        f"(`{case.prices}`), building paid off over {case.months} months. An "
        "own model is taken to answer as well as the hosted one; `tandem evaluate` tells whether it does.",
        table_of(tables.costs_table(done)),
        table_of(tables.items_table(done)),
        PICTURE,
        "## Where another way becomes the cheaper one",
        _table_or(tables.break_evens_table(done), f"Nowhere up to {float(farthest):,.0f} requests a month."),
        "## What moves the cost most",
        f"Of what is advised, one thing at a time, {swing} down and up.",
        _table_or(tables.swings_table(of), "Nothing is advised."),
        "## What would change the advice",
        _table_or(tables.flips_table(done), "No field by itself, within a hundredth and a hundred times its value."),
        "## How sure it is",
        f"Shares of {case.draws:,} draws (seed {case.seed}), in which weights vary by {case.spread_weights:.0%} down "
        f"and up, assumed fields by {case.spread_assumed:.0%} and measured ones by {case.spread_measured:.0%}.",
        markdown_table(
            ["comes first", "share of the draws"], [[each, f"{part:.1%}"] for each, part in done.draws.items()]
        ),
        "## How much is out of date",
        "On a mean day, of an index or an adapter that is refreshed every …",
        markdown_table(list(ages(case)), [[f"{share:.1%}" for share in ages(case).values()]]),
        "## Typical situations",
        table_of([tables.situation(each, done) for each in situations(case)]),
        "## What it rests on",
        table_of([tables.rests_on(field) for field in done.fields]),
        "## Prices",
        table_of(tables.prices_table(of.prices)),
        "## Time",
        markdown_table(["step", "seconds"], [[step, f"{spent:.2f}"] for step, spent in done.seconds.items()]),
    ]
    return "\n\n".join(part for part in parts if part) + "\n"


def draw(of: Weighed) -> "Figure":
    """What each way costs, by the number of requests."""
    shown = first_of_each(of.break_evens)
    return plot_costs(of.ranking.ways, shown, of.case.requests, of.prices.currency)


@task(name="keep advice")
def keep_advice(of: Weighed, done: Advised, report: str, figure: "Figure") -> None:
    """Log the case, the advice as tags and JSON, costs and totals as metrics, the report and the picture."""
    case = of.case.model_dump(mode="json")
    log(
        connect(find_home()),
        done.run_id,
        params=flat(case),
        metrics={"confidence": done.confidence}
        | {f"total_{approach}": total for approach, total in done.totals.items()}
        | {f"cost_{cost['way'].replace(' ', '_')}": cost["a_month"] for cost in done.costs},
        tags={DECISION_TAG: done.decision, "tandem.prices": done.prices_as_of},
        texts={
            REPORT_FILE: report,
            ADVICE_FILE: json.dumps(asdict(done), indent=1, ensure_ascii=False),
            "case.yaml": yaml.safe_dump(case, sort_keys=False, allow_unicode=True),
            "prices.yaml": yaml.safe_dump(of.prices.model_dump(mode="json"), sort_keys=False, allow_unicode=True),
        },
        figures={PLOT_FILE: figure},
    )


def publish(done: Advised, report: str, figure: "Figure", home: Home) -> None:
    """Show the report with its picture in the Prefect UI, with the way to MLflow."""
    figures, experiment = {PLOT_FILE: figure}, f"advice-{done.name}"
    show_report("advice", experiment, done.name, done.decision, None, done.run_id, report, home, figures)


def _table_or(rows: Sequence[Mapping[str, str]], nothing: str) -> str:
    return table_of(rows) if rows else nothing
