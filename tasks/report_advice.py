"""The report on a case: a markdown artifact in Prefect; the same text, its figures as JSON and the plot in MLflow."""

import json
from collections.abc import Mapping, Sequence
from dataclasses import asdict, dataclass
from datetime import UTC, date, datetime
from fractions import Fraction
from typing import TYPE_CHECKING, Any

import yaml
from prefect import task

from tasks.advice.costs import BreakEven, break_evens, cents, cheapest, reach, rounded
from tasks.advice.dimensions import APPROACHES
from tasks.advice.plot import plot_costs
from tasks.advice.questions import Situation, ages, own_situation, questions, situations, steps
from tasks.advice.recommendation import CHOICES, NUMBERS, WEIGHT, Choice, Flip, Ranking, flips, rank, shares
from tasks.advice.sensitivity import Swing, tornado
from tasks.config.advice import CaseConfig, PricesConfig
from tasks.config.loading import load_config, parse_config
from tasks.config.settings import Home, find_conf, find_home
from tasks.records import Advised, Measured
from tasks.register import REPORT_FILE, flat
from tasks.registry.connection import connect
from tasks.registry.runs import DECISION_TAG, log
from tasks.report import markdown_table, show_report, table_of

if TYPE_CHECKING:
    from matplotlib.figure import Figure

ADVICE_FILE, PLOT_FILE = "advice.json", "costs.png"
NAMED = ("hosted_model", "tuned_model", "gpu", "min_gpus", "months")
"""Fields of the case that are shown beside those that are varied."""
TITLES = {
    "retrieval": "retrieval",
    "fine-tuning": "fine-tuning",
    "both": "retrieval and fine-tuning",
    "neither": "nothing can be advised yet",
}
SHOWN_FLIPS, SHOWN_SWINGS, SHOWN_BREAK_EVENS = 12, 12, 3
"""Rows of a table; of break-evens, for two ways."""
PICTURE = f"![What each way costs, by the number of requests]({PLOT_FILE})"


@dataclass(frozen=True, slots=True)
class Weighed:
    """A case with what was measured of it, and everything that follows."""

    case: CaseConfig
    given: frozenset[str]
    """Fields that the case gives; the others have their defaults."""
    prices: PricesConfig
    measured: Mapping[str, Measured]
    """By field."""
    ranking: Ranking
    draws: Mapping[Choice, float]
    flips: Sequence[Flip]
    break_evens: Sequence[BreakEven]
    """Of the ways that the case allows."""
    swings: Sequence[Swing]


def load_prices(config: CaseConfig) -> PricesConfig:
    """The prices that the case names. Raises ConfigError where they are not there, or have a mistake."""
    return load_config(find_conf() / config.prices, PricesConfig)


def weigh(config: CaseConfig, prices: PricesConfig, measured: Sequence[Measured]) -> Weighed:
    """Let what was measured count, and work out everything that follows."""
    known = {each.field: each for each in measured}
    values = config.model_dump() | {name: each.value for name, each in known.items()}
    case = parse_config(values, CaseConfig, f"{config.name} with what was measured")
    ranking, requests = rank(case, prices), Fraction(case.requests)
    allowed = [way for way in ranking.ways if not way.forbidden]
    way = cheapest(ranking.ways, ranking.first, requests) if ranking.first != "neither" else None
    return Weighed(
        case=case,
        given=frozenset(config.model_fields_set),
        prices=prices,
        measured=known,
        ranking=ranking,
        draws=shares(case, prices, list(known)),
        flips=flips(case, prices),
        break_evens=break_evens(allowed, reach(allowed, requests)),
        swings=tornado(case, prices, way.name) if way else (),
    )


def summarise(of: Weighed, missing: Sequence[str], seconds: dict[str, float], run_id: str, today: date) -> Advised:
    """The advice as one record."""
    case, ranking = of.case, of.ranking
    situation = own_situation(situations(case))
    return Advised(
        name=case.name,
        decision=ranking.first,
        confidence=of.draws.get(ranking.first, 0.0),
        reasons=tuple(_reasons(of, situation)),
        warnings=(*_old_prices(of, today), *missing),
        currency=of.prices.currency,
        prices_as_of=of.prices.as_of.isoformat(),
        fields=tuple(_fields(of)),
        totals={approach: round(total, 3) for approach, total in ranking.totals.items()},
        scores=tuple(_scores(of)),
        questions=tuple(_questions(of)),
        situation=situation.name,
        costs=tuple(_costs(of)),
        break_evens=tuple(_break_even(each) for each in _first_of_each(of.break_evens)),
        sensitivity=tuple(
            asdict(swing) | {"low": float(cents(swing.low)), "high": float(cents(swing.high))} for swing in of.swings
        ),
        draws={str(choice): share for choice, share in of.draws.items()},
        flips=tuple(
            {"field": flip.field, "now": flip.now, "at": flip.at, "becomes": flip.becomes} for flip in of.flips
        ),
        steps=tuple(steps(case, ranking, of.measured, of.break_evens)),
        seconds=seconds,
        run_id=run_id,
    )


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
        table_of(_scores_table(of)),
        table_of(_reasons_table(done)),
        "## What it costs a month",
        f"At {case.requests:,} requests a month and the prices of {done.prices_as_of} "
        f"(`{case.prices}`), building paid off over {case.months} months. An "
        "own model is taken to answer as well as the hosted one; `tandem evaluate` tells whether it does.",
        table_of(_costs_table(done)),
        table_of(_items_table(done)),
        PICTURE,
        "## Where another way becomes the cheaper one",
        _table_or(_break_evens_table(done), f"Nowhere up to {float(farthest):,.0f} requests a month."),
        "## What moves the cost most",
        f"Of what is advised, one thing at a time, {swing} down and up.",
        _table_or(_swings_table(of), "Nothing is advised."),
        "## What would change the advice",
        _table_or(_flips_table(done), "No field by itself, within a hundredth and a hundred times its value."),
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
        table_of([_situation(each, done) for each in situations(case)]),
        "## What it rests on",
        table_of([_rests_on(field) for field in done.fields]),
        "## Prices",
        table_of(_prices_table(of.prices)),
        "## Time",
        markdown_table(["step", "seconds"], [[step, f"{spent:.2f}"] for step, spent in done.seconds.items()]),
    ]
    return "\n\n".join(part for part in parts if part) + "\n"


def draw(of: Weighed) -> "Figure":
    """What each way costs, by the number of requests."""
    shown = _first_of_each(of.break_evens)
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


def _reasons(of: Weighed, situation: Situation) -> list[str]:
    ranking, case = of.ranking, of.case
    out = [f"{approach.capitalize()} is ruled out: {why}." for approach, why in ranking.vetoes.items()]
    if ranking.first == "neither":
        return ["Nothing can be advised yet.", *out]
    left = sorted(
        (approach for approach in APPROACHES if approach not in ranking.vetoes and approach != ranking.first),
        key=lambda approach: -ranking.totals[approach],
    )
    ahead = f", ahead of {left[0]} with {ranking.totals[left[0]]:.2f}" if left else ""
    way = cheapest(ranking.ways, ranking.first, Fraction(case.requests))
    assert way
    calls_for = "the same" if situation.calls_for == ranking.first else situation.calls_for
    return [
        f"{ranking.first.capitalize()} scores {ranking.totals[ranking.first]:.2f} of 5{ahead}.",
        f"It stays first in {of.draws.get(ranking.first, 0):.1%} of {case.draws:,} draws of weights and fields.",
        f"Its cheapest way is {way.name}: {_money(of, cents(way.cost(Fraction(case.requests))))} a month for "
        f"{case.requests:,} requests.",
        f"The case is most like “{situation.name}”, which calls for {calls_for}.",
        *out,
        f"{len(of.measured)} fields are measured, the others assumed.",
    ]


def _old_prices(of: Weighed, today: date) -> list[str]:
    age = (today - of.prices.as_of).days
    if age <= of.case.max_price_age_days:
        return []
    return [
        f"The prices are of {of.prices.as_of}, {age} days old, more than {of.case.max_price_age_days}: look them up "
        f"and write them into {find_conf() / of.case.prices}."
    ]


def _fields(of: Weighed) -> list[dict[str, Any]]:
    """Of the case, the measured ones first."""
    names = sorted((*NUMBERS, *CHOICES, *NAMED), key=lambda name: name not in of.measured)
    return [_field(of, name) for name in names]


def _field(of: Weighed, name: str) -> dict[str, Any]:
    value = getattr(of.case, name)
    shown = float(f"{value:.4g}") if isinstance(value, float) else value
    if (known := of.measured.get(name)) is None:
        origin = "the case" if name in of.given else "a default"
        return {"field": name, "value": shown, "basis": "assumed", "from": origin, "at": ""}
    at = datetime.fromtimestamp(known.at, UTC).isoformat(timespec="minutes")
    return {"field": name, "value": shown, "basis": "measured", "from": known.source, "at": at}


def _scores(of: Weighed) -> list[dict[str, Any]]:
    weights = of.case.weights.model_dump()
    return [
        {
            "dimension": dimension.replace("_", " "),
            "weight": weights[dimension],
            "approach": approach,
            "score": round(score.value, 6),
            "reason": score.reason,
        }
        for dimension, scores in of.ranking.scores.items()
        for approach, score in scores.items()
    ]


def _questions(of: Weighed) -> list[dict[str, str]]:
    return [
        {
            "question": each.question,
            "answer": each.answer,
            "basis": _basis(each.fields, of.measured),
            "what follows": each.follows,
        }
        for each in questions(of.case, of.ranking, of.break_evens)
    ]


def _basis(fields: Sequence[str], measured: Mapping[str, Measured]) -> str:
    known = [name for name in fields if name in measured]
    if len(known) == len(fields):
        return "measured"
    return f"assumed, but for {', '.join(known)}" if known else "assumed"


def _costs(of: Weighed) -> list[dict[str, Any]]:
    requests = Fraction(of.case.requests)
    return [
        {
            "way": way.name,
            "approach": way.approach,
            "ruled_out": way.forbidden,
            "by_the_request": float(rounded(way.per_request, 6)),
            "a_month": float(cents(way.cost(requests))),
            "all_in_a_request": float(rounded(way.cost(requests) / requests, 6)),
            "gpus": way.gpus(requests),
            "items": {name: float(cents(amount)) for name, amount in way.items(requests).items()},
        }
        for way in of.ranking.ways
    ]


def _first_of_each(found: Sequence[BreakEven]) -> list[BreakEven]:
    """Two ways that need one more GPU in turn cross many times: the first of their crossings."""
    counts: dict[frozenset[str], int] = {}
    kept = []
    for each in found:
        pair = frozenset((each.below, each.above))
        counts[pair] = counts.get(pair, 0) + 1
        if counts[pair] <= SHOWN_BREAK_EVENS:
            kept.append(each)
    return kept


def _break_even(each: BreakEven) -> dict[str, Any]:
    return {
        "below": each.below,
        "above": each.above,
        "requests": float(rounded(each.requests, 2)),
        "cost": float(cents(each.cost)),
        "step": each.step,
    }


def _scores_table(of: Weighed) -> list[dict[str, str]]:
    weights = of.case.weights.model_dump()
    rows = [
        {"dimension": dimension.replace("_", " "), "weight": f"{weights[dimension]:g}"}
        | {approach: f"{score.value:.2f}" for approach, score in scores.items()}
        for dimension, scores in of.ranking.scores.items()
    ]
    totals = {approach: f"**{total:.2f}**" for approach, total in of.ranking.totals.items()}
    return [*rows, {"dimension": "**mean**"} | totals]


def _reasons_table(done: Advised) -> list[dict[str, str]]:
    return [
        {"dimension": of["dimension"], "approach": of["approach"], "score": f"{of['score']:.2f}", "why": of["reason"]}
        for of in done.scores
    ]


def _costs_table(done: Advised) -> list[dict[str, str]]:
    sign = done.currency
    return [
        {
            "way": cost["way"],
            "of": cost["approach"],
            "each request more": _small(sign, cost["by_the_request"]),
            "a month": f"{sign}{cost['a_month']:,.2f}",
            "all in, a request": _small(sign, cost["all_in_a_request"]),
            "GPUs": str(cost["gpus"] or ""),
            "ruled out": cost["ruled_out"],
        }
        for cost in done.costs
    ]


def _items_table(done: Advised) -> list[dict[str, str]]:
    """By item, what it is of each way's cost."""
    names = list(dict.fromkeys(name for cost in done.costs for name in cost["items"]))
    return [
        {"item": name}
        | {cost["way"]: f"{done.currency}{cost['items'][name]:,.2f}" for cost in done.costs if name in cost["items"]}
        for name in names
    ]


def _break_evens_table(done: Advised) -> list[dict[str, str]]:
    return [
        {
            "requests a month": f"{each['requests']:,.0f}",
            "from there on cheaper": each["above"],
            "than": each["below"],
            "cost there": f"{done.currency}{each['cost']:,.2f}",
            "": "where one more GPU is needed" if each["step"] else "",
        }
        for each in done.break_evens
    ]


def _swings_table(of: Weighed) -> list[dict[str, str]]:
    swings = of.swings[:SHOWN_SWINGS]
    return [
        {
            "what": _words(swing.what),
            f"{of.case.swing:.0%} less": _money(of, cents(swing.low)),
            f"{of.case.swing:.0%} more": _money(of, cents(swing.high)),
            "difference": _money(of, cents(swing.width)),
            "": "█" * max(1, round(12 * swing.width / swings[0].width)),
            "cheapest with less": swing.cheapest_low,
            "cheapest with more": swing.cheapest_high,
        }
        for swing in swings
    ]


def _flips_table(done: Advised) -> list[dict[str, str]]:
    return [flip | {"field": _words(flip["field"])} for flip in done.flips[:SHOWN_FLIPS]]


def _situation(each: Situation, done: Advised) -> dict[str, str]:
    shown = [mark for mark, is_shown in each.marks.items() if is_shown]
    return {
        "situation": f"**{each.name}** (this case)" if each.name == done.situation else each.name,
        "calls for": each.calls_for,
        "because": each.why,
        "marks": f"{len(shown)} of {len(each.marks)}",
        "marks of this case": ", ".join(shown),
    }


def _prices_table(prices: PricesConfig) -> list[dict[str, str]]:
    sign = prices.currency
    rows = [
        {
            "price": each.name,
            "amount": f"{sign}{each.input_per_million} and {sign}{each.output_per_million} a million tokens",
            "from": each.source,
        }
        for each in prices.hosted
    ]
    rows += [{"price": each.name, "amount": f"{sign}{each.hour} an hour", "from": each.source} for each in prices.gpus]
    for name, beside in (("beside a hosted model", prices.beside_hosted), ("beside one's own", prices.beside_own)):
        amount = (
            f"retrieval {sign}{beside.retrieval_per_month} a month and {sign}{beside.retrieval_per_request} a search, "
            f"observability {sign}{beside.observability_per_month} a month"
        )
        rows.append({"price": name, "amount": amount, "from": beside.source})
    return rows


def _rests_on(field: Mapping[str, Any]) -> dict[str, str]:
    value = field["value"]
    shown = f"{value:,.12g}" if isinstance(value, int | float) and not isinstance(value, bool) else str(value)
    return {**field, "field": _words(field["field"]), "value": shown}


def _words(field: str) -> str:
    """The name of a field, or of the weight of a dimension, for people."""
    return field.replace(WEIGHT, "weight of ").replace("_", " ")


def _table_or(rows: Sequence[Mapping[str, str]], nothing: str) -> str:
    return table_of(rows) if rows else nothing


def _money(of: Weighed, amount: object) -> str:
    return f"{of.prices.currency}{amount:,}"


def _small(sign: str, amount: float) -> str:
    return f"{sign}{amount:,.4f}" if amount >= 0.001 or not amount else f"{sign}{amount:,.6f}"
