"""Which approach comes first, how surely, and what would change it."""

import random
from collections import Counter
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from fractions import Fraction
from typing import Any, Literal, get_args

from tasks.advice.costs import Approach, Way, cheapest, ways
from tasks.advice.dimensions import APPROACHES, Scores, score
from tasks.config.advice import CaseConfig, PricesConfig
from tasks.config.training import AdapterGateConfig

Choice = Approach | Literal["neither"]
CHOSEN: tuple[Choice, ...] = (*APPROACHES, "neither")
LEAST_EXAMPLES: int = AdapterGateConfig.model_fields["min_rows"].default
"""Fewer are not even enough to score an adapter with."""
FARTHEST = 100.0
"""How far from its value, as a factor, a field is tried."""
STEPS = 12
"""Between a field's value and the farthest."""
CLOSE = 0.01
"""How closely the value at which it flips is found, as a share of it."""
COUNTS = ("requests", "documents", "examples", "golden", "tenants")
SHARES = ("changed_share", "tail_share", "behaviour_share", "right", "prompted", "alone_share")
AMOUNTS = (
    "latency_ms",
    "tokens_in",
    "tokens_in_alone",
    "tokens_out",
    "answer_ms",
    "alone_ms",
    "index_gb",
    "refresh_days",
    "gpu_tokens_per_second",
    "peak",
    "trainings_a_year",
    "training_gpu_hours",
    "training_cost",
    "retrieval_build_hours",
    "retrieval_upkeep_hours",
    "tuning_build_hours",
    "tuning_upkeep_hours",
)
NUMBERS = (*COUNTS, *SHARES, *AMOUNTS)
"""Fields that are varied."""
WEIGHT = "weights."
CHOICES = ("mode", "citations", "erasure", "residency", "output")
"""Fields of which another value is tried."""


@dataclass(frozen=True, slots=True)
class Ranking:
    """How the approaches come out for a case."""

    first: Choice
    totals: dict[Approach, float]
    """Weighted means of the scores, from 0 to 5."""
    scores: Scores
    vetoes: dict[Approach, str]
    """Why an approach is ruled out, whatever its total."""
    ways: list[Way]
    """Of answering, with their costs."""


@dataclass(frozen=True, slots=True)
class Flip:
    """The nearest value of a field, one way, at which another approach comes first."""

    field: str
    now: str
    at: str
    becomes: Choice
    distance: float
    """As a factor from 1 on; infinite for another choice."""


def rank(case: CaseConfig, prices: PricesConfig) -> Ranking:
    """Score the approaches and put them in order; the simpler one where two are equal."""
    found = ways(case, prices)
    scores = score(case, found, prices.currency)
    weights = case.weights.model_dump()
    whole = sum(weights.values())
    totals = {
        approach: sum(weights[name] * of[approach].value for name, of in scores.items()) / whole
        for approach in APPROACHES
    }
    vetoes = _vetoes(case, found)
    left = [approach for approach in APPROACHES if approach not in vetoes]
    first: Choice = sorted(left, key=lambda approach: -totals[approach])[0] if left else "neither"
    return Ranking(first, totals, scores, vetoes, found)


def shares(case: CaseConfig, prices: PricesConfig, measured: Sequence[str]) -> dict[Choice, float]:
    """Of draws of weights and fields, the share in which each approach comes first.

    Every number is drawn evenly from within a share of itself, which is smaller for the fields that are `measured`.
    """
    chance = random.Random(case.seed)
    counts = Counter(rank(_drawn(case, measured, chance), prices).first for _ in range(case.draws))
    return {choice: counts[choice] / case.draws for choice in CHOSEN if counts[choice]}


def flips(case: CaseConfig, prices: PricesConfig) -> list[Flip]:
    """For every field, one at a time, the nearest values that change what comes first; the nearest ones first."""
    first = rank(case, prices).first
    found = [*_of_numbers(case, prices, first), *_of_choices(case, prices, first)]
    return sorted(found, key=lambda flip: flip.distance)


def _vetoes(case: CaseConfig, found: Sequence[Way]) -> dict[Approach, str]:
    few = (
        f"{case.examples:,} examples are too few to fine-tune on and to score with: it takes {LEAST_EXAMPLES} at least"
    )
    reasons: dict[Approach, list[str]] = {approach: [] for approach in APPROACHES}
    for approach in APPROACHES:
        if approach != "fine-tuning" and not case.documents:
            reasons[approach].append("there are no documents to retrieve from")
        if approach != "retrieval" and case.examples < LEAST_EXAMPLES:
            reasons[approach].append(few)
        if cheapest(found, approach, Fraction(case.requests)) is None:
            why = dict.fromkeys(way.forbidden for way in found if way.approach == approach)
            reasons[approach] += why
    return {approach: "; ".join(said) for approach, said in reasons.items() if said}


def _drawn(case: CaseConfig, measured: Sequence[str], chance: random.Random) -> CaseConfig:
    values: dict[str, Any] = {}
    for name in NUMBERS:
        spread = case.spread_measured if name in measured else case.spread_assumed
        values[name] = fitting(name, getattr(case, name) * chance.uniform(1 - spread, 1 + spread))
    weights = {
        name: weight * chance.uniform(1 - case.spread_weights, 1 + case.spread_weights)
        for name, weight in case.weights.model_dump().items()
    }
    return case.model_copy(update=values | {"weights": case.weights.model_copy(update=weights)})


def fitting(name: str, value: float) -> float:
    """As the field may be: a whole number of things, no share beyond 1; four digits, so that fractions stay short."""
    if name in COUNTS:
        return round(value)
    value = float(f"{value:.4g}")
    if name in SHARES:
        return min(value, 1.0)
    return max(value, 1.0) if name == "peak" else value


def _of_numbers(case: CaseConfig, prices: PricesConfig, first: Choice) -> Iterator[Flip]:
    for name in (*NUMBERS, *(f"{WEIGHT}{dimension}" for dimension in case.weights.model_dump())):
        for farthest in (1 / FARTHEST, FARTHEST):
            if flip := _search(case, prices, first, name, farthest):
                yield flip


def _search(case: CaseConfig, prices: PricesConfig, first: Choice, name: str, farthest: float) -> Flip | None:
    """Go outwards in even steps of the logarithm until it flips, then halve the step that did."""
    weight = name.removeprefix(WEIGHT)
    value = getattr(case.weights if name != weight else case, weight)

    def at(factor: float) -> tuple[float, Choice]:
        tried = fitting(name, value * factor)
        changed = {"weights": case.weights.model_copy(update={weight: tried})} if name != weight else {name: tried}
        return tried, rank(case.model_copy(update=changed), prices).first

    inside = 1.0
    for step in range(1, STEPS + 1):
        outside = farthest ** (step / STEPS)
        if at(outside)[1] != first:
            break
        inside = outside
    else:
        return None
    while abs(outside / inside - 1) > CLOSE:
        middle = (inside * outside) ** 0.5
        inside, outside = (middle, outside) if at(middle)[1] == first else (inside, middle)
    tried, becomes = at(outside)
    return Flip(name, _number(value), _number(tried), becomes, max(outside, 1 / outside))


def _of_choices(case: CaseConfig, prices: PricesConfig, first: Choice) -> Iterator[Flip]:
    for name in CHOICES:
        now = getattr(case, name)
        options = (True, False) if isinstance(now, bool) else get_args(CaseConfig.model_fields[name].annotation)
        for option in options:
            if option != now and (other := rank(case.model_copy(update={name: option}), prices).first) != first:
                yield Flip(name, _said(now), _said(option), other, float("inf"))


def _number(value: float) -> str:
    """Three digits at least, and those before the point."""
    return f"{value:,.0f}" if value >= 100 else f"{value:.3g}"


def _said(value: Any) -> str:
    return {True: "yes", False: "no"}.get(value, str(value))
