"""How much each assumption moves the cost: one thing at a time, down and up."""

from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from decimal import Decimal
from fractions import Fraction
from typing import Any

from tasks.advice.costs import cents, ways
from tasks.advice.recommendation import NUMBERS, fitting
from tasks.config.advice import CaseConfig, PricesConfig

SEARCHES = ("retrieval_per_month", "retrieval_per_request")
PRICES = {
    "price of tokens read": ("hosted", ("input_per_million",)),
    "price of tokens written": ("hosted", ("output_per_million",)),
    "price of GPU hours": ("gpus", ("hour",)),
    "price of people's hours": ("", ("engineer_hour",)),
    "price of storage": ("", ("storage_per_gb_month",)),
    "price of retrieval beside a hosted model": ("beside_hosted", SEARCHES),
    "price of retrieval beside one's own": ("beside_own", SEARCHES),
    "price of observability beside a hosted model": ("beside_hosted", ("observability_per_month",)),
    "price of observability beside one's own": ("beside_own", ("observability_per_month",)),
}
"""What is multiplied together: a part of the prices, empty for the whole, and its amounts."""


Inputs = tuple[CaseConfig, PricesConfig]


@dataclass(frozen=True, slots=True)
class Swing:
    """What a way costs a month where one thing is less, or more, by the swing."""

    what: str
    low: Fraction
    high: Fraction
    cheapest_low: str
    """The cheapest way that the case allows, then."""
    cheapest_high: str

    @property
    def width(self) -> Fraction:
        return abs(self.high - self.low)


def tornado(case: CaseConfig, prices: PricesConfig, way: str) -> list[Swing]:
    """The things that move the cost of a way by a cent at least, widest first."""
    found = []
    for what, less, more in _varied(case, prices):
        low, cheapest_low = _costs(*less, way)
        high, cheapest_high = _costs(*more, way)
        found.append(Swing(what, low, high, cheapest_low, cheapest_high))
    return sorted((swing for swing in found if cents(swing.width)), key=lambda swing: -swing.width)


def _costs(case: CaseConfig, prices: PricesConfig, name: str) -> tuple[Fraction, str]:
    requests = Fraction(case.requests)
    found = {way.name: way for way in ways(case, prices)}
    allowed = [each for each, way in found.items() if not way.forbidden]
    return found[name].cost(requests), min(allowed, key=lambda each: found[each].cost(requests), default="none")


def _varied(case: CaseConfig, prices: PricesConfig) -> Iterator[tuple[str, Inputs, Inputs]]:
    """By what is varied, the inputs with less and with more of it."""
    less, more = 1 - case.swing, 1 + case.swing
    for name in NUMBERS:
        yield name, (_field(case, name, less), prices), (_field(case, name, more), prices)
    for name, (part, amounts) in PRICES.items():
        yield name, (case, _price(prices, part, amounts, less)), (case, _price(prices, part, amounts, more))


def _field(case: CaseConfig, name: str, factor: float) -> CaseConfig:
    return case.model_copy(update={name: fitting(name, getattr(case, name) * factor)})


def _price(prices: PricesConfig, part: str, amounts: Sequence[str], factor: float) -> PricesConfig:
    """With these amounts of a part of the prices, or of all it lists, multiplied."""
    times = Decimal(str(factor))

    def scaled(of: Any) -> Any:
        return of.model_copy(update={name: getattr(of, name) * times for name in amounts})

    if not part:
        return scaled(prices)
    found = getattr(prices, part)
    return prices.model_copy(update={part: tuple(map(scaled, found)) if isinstance(found, tuple) else scaled(found)})
