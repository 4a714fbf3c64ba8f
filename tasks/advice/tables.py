"""The tables of an advice: rows by column, as texts for people."""

from collections.abc import Mapping
from fractions import Fraction
from typing import Any

from tasks.advice.costs import cents
from tasks.advice.questions import Situation
from tasks.advice.recommendation import WEIGHT
from tasks.advice.weighing import Weighed
from tasks.config.advice import PricesConfig
from tasks.records import Advised

SHOWN_FLIPS, SHOWN_SWINGS = 12, 12
"""Rows of a table."""


def scores_table(of: Weighed) -> list[dict[str, str]]:
    weights = of.case.weights.model_dump()
    rows = [
        {"dimension": dimension.replace("_", " "), "weight": f"{weights[dimension]:g}"}
        | {approach: f"{score.value:.2f}" for approach, score in scores.items()}
        for dimension, scores in of.ranking.scores.items()
    ]
    totals = {approach: f"**{total:.2f}**" for approach, total in of.ranking.totals.items()}
    return [*rows, {"dimension": "**mean**"} | totals]


def reasons_table(done: Advised) -> list[dict[str, str]]:
    return [
        {"dimension": of["dimension"], "approach": of["approach"], "score": f"{of['score']:.2f}", "why": of["reason"]}
        for of in done.scores
    ]


def costs_table(done: Advised) -> list[dict[str, str]]:
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


def items_table(done: Advised) -> list[dict[str, str]]:
    """By item, what it is of each way's cost."""
    names = list(dict.fromkeys(name for cost in done.costs for name in cost["items"]))
    return [
        {"item": name}
        | {cost["way"]: f"{done.currency}{cost['items'][name]:,.2f}" for cost in done.costs if name in cost["items"]}
        for name in names
    ]


def break_evens_table(done: Advised) -> list[dict[str, str]]:
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


def swings_table(of: Weighed) -> list[dict[str, str]]:
    swings = of.swings[:SHOWN_SWINGS]
    return [
        {
            "what": _words(swing.what),
            f"{of.case.swing:.0%} less": _money(of, swing.low),
            f"{of.case.swing:.0%} more": _money(of, swing.high),
            "difference": _money(of, swing.width),
            "": "█" * max(1, round(12 * swing.width / swings[0].width)),
            "cheapest with less": swing.cheapest_low,
            "cheapest with more": swing.cheapest_high,
        }
        for swing in swings
    ]


def flips_table(done: Advised) -> list[dict[str, str]]:
    return [flip | {"field": _words(flip["field"])} for flip in done.flips[:SHOWN_FLIPS]]


def situation(each: Situation, done: Advised) -> dict[str, str]:
    shown = [mark for mark, is_shown in each.marks.items() if is_shown]
    return {
        "situation": f"**{each.name}** (this case)" if each.name == done.situation else each.name,
        "calls for": each.calls_for,
        "because": each.why,
        "marks": f"{len(shown)} of {len(each.marks)}",
        "marks of this case": ", ".join(shown),
    }


def prices_table(prices: PricesConfig) -> list[dict[str, str]]:
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


def rests_on(field: Mapping[str, Any]) -> dict[str, str]:
    value = field["value"]
    shown = f"{value:,.12g}" if isinstance(value, int | float) and not isinstance(value, bool) else str(value)
    return {**field, "field": _words(field["field"]), "value": shown}


def _words(field: str) -> str:
    """The name of a field, or of the weight of a dimension, for people."""
    return field.replace(WEIGHT, "weight of ").replace("_", " ")


def _money(of: Weighed, amount: Fraction) -> str:
    return f"{of.prices.currency}{cents(amount):,}"


def _small(sign: str, amount: float) -> str:
    return f"{sign}{amount:,.4f}" if amount >= 0.001 or not amount else f"{sign}{amount:,.6f}"
