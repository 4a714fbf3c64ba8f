"""A case with what was measured of it, and everything that follows: scores, costs, and how sure the advice is."""

from collections.abc import Mapping, Sequence
from dataclasses import asdict, dataclass
from datetime import UTC, date, datetime
from fractions import Fraction
from typing import Any

from tasks.advice.costs import BreakEven, break_evens, cents, cheapest, reach, rounded
from tasks.advice.dimensions import APPROACHES
from tasks.advice.questions import Situation, own_situation, questions, situations, steps
from tasks.advice.recommendation import CHOICES, NUMBERS, Choice, Flip, Ranking, flips, rank, shares
from tasks.advice.sensitivity import Swing, tornado
from tasks.config.advice import CaseConfig, PricesConfig
from tasks.config.loading import parse_config
from tasks.config.settings import find_conf
from tasks.records import Advised, Measured

NAMED = ("hosted_model", "tuned_model", "gpu", "min_gpus", "months")
"""Fields of the case that are shown beside those that are varied."""
SHOWN_BREAK_EVENS = 3
"""Of two ways."""


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
        break_evens=tuple(_break_even(each) for each in first_of_each(of.break_evens)),
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
        f"Its cheapest way is {way.name}: {of.prices.currency}{cents(way.cost(Fraction(case.requests))):,} a month for "
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


def first_of_each(found: Sequence[BreakEven]) -> list[BreakEven]:
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
