"""What each way of answering costs by the month, exactly: amounts are fractions, rounded only to be shown.

A way's cost is linear in the requests but for its GPUs, which come one at a time. So where two ways cost the same is
found in closed form between two such steps.
"""

from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from decimal import Decimal
from fractions import Fraction
from itertools import combinations
from math import ceil, floor, log10
from typing import Literal, TypeVar

from tasks.config.advice import CaseConfig, GpuPrice, HostedPrice, PricesConfig, ServicesPrice
from tasks.config.loading import load_config
from tasks.config.settings import find_conf
from tasks.errors import ConfigError

P = TypeVar("P", HostedPrice, GpuPrice)
Approach = Literal["retrieval", "fine-tuning", "both"]
SPECULATIVE, BY_HEART = "speculative", "fine-tuned without retrieval"
"""Ways that answer, sometimes or always, without a search."""
MILLION = 10**6
SECONDS_IN_HOUR = 3600
REACH, MOST_GPUS = 20, 1000
"""Break-evens are looked for up to this multiple of the case's requests, and up to so many GPUs."""


@dataclass(frozen=True, slots=True)
class Way:
    """One way of answering, and what it costs. Amounts by the month or the request."""

    name: str
    approach: Approach
    forbidden: str
    """Why the case rules it out; empty where it may be."""
    hosted: bool
    """Whether a vendor runs the model, and so sees questions and passages."""
    monthly: Mapping[str, Fraction]
    """By item, whatever the requests."""
    each: Mapping[str, Fraction]
    """By item, of a request."""
    gpu_month: Fraction = Fraction(0)
    """Of one GPU that is there all month."""
    min_gpus: int = 0
    gpu_requests: Fraction | None = None
    """Requests a month that one GPU gets through; None where that is unknown."""

    @property
    def fixed(self) -> Fraction:
        """By the month, without GPUs."""
        return sum(self.monthly.values(), Fraction(0))

    @property
    def per_request(self) -> Fraction:
        return sum(self.each.values(), Fraction(0))

    def gpus(self, requests: Fraction) -> int:
        """GPUs that so many requests a month need."""
        needed = ceil(requests / self.gpu_requests) if self.gpu_requests else 0
        return max(self.min_gpus, needed)

    def cost(self, requests: Fraction) -> Fraction:
        """Of a month with so many requests."""
        return self.fixed + self.per_request * requests + self.gpu_month * self.gpus(requests)

    def items(self, requests: Fraction) -> dict[str, Fraction]:
        """What the cost of a month consists of, but for what is less than half a cent."""
        found = {name: amount * requests for name, amount in self.each.items()} | dict(self.monthly)
        if self.min_gpus:
            found[f"GPUs ({self.gpus(requests)})"] = self.gpu_month * self.gpus(requests)
        return {name: amount for name, amount in found.items() if cents(amount)}


@dataclass(frozen=True, slots=True)
class BreakEven:
    """Requests a month from which another of two ways is the cheaper one."""

    below: str
    """The cheaper way below, above."""
    above: str
    requests: Fraction
    """Where both cost the same; at a step, where one more GPU turns it round."""
    cost: Fraction
    """Of the way that is cheaper below, there."""
    step: bool = False


def exact(value: float | Decimal) -> Fraction:
    """The number as it is written: 0.1 is a tenth."""
    return Fraction(str(value))


def cents(amount: Fraction) -> Decimal:
    """Rounded to the cent, half a cent up."""
    return rounded(amount, 2)


def rounded(amount: Fraction, places: int) -> Decimal:
    """Rounded to decimal places, half of the last one up."""
    return Decimal(floor(amount * 10**places + Fraction(1, 2))).scaleb(-places)


def ways(case: CaseConfig, prices: PricesConfig) -> list[Way]:
    """Every way of answering, also those that the case rules out. Raises ConfigError where a price is missing."""
    return _Costs(case, prices).ways()


def cheapest(ways: Sequence[Way], approach: Approach, requests: Fraction) -> Way | None:
    """Of the ways of an approach that the case allows; None where it allows none."""
    allowed = [way for way in ways if way.approach == approach and not way.forbidden]
    return min(allowed, key=lambda way: way.cost(requests), default=None)


def reach(ways: Sequence[Way], requests: Fraction) -> Fraction:
    """Requests a month up to which break-evens are looked for."""
    limits = [way.gpu_requests * max(MOST_GPUS, way.min_gpus) for way in ways if way.gpu_requests]
    return min([requests * REACH, *limits])


def break_evens(ways: Sequence[Way], up_to: Fraction) -> list[BreakEven]:
    """Between every two ways, by rising requests."""
    found = [each for one, other in combinations(ways, 2) for each in _between(one, other, up_to)]
    return sorted(found, key=lambda each: each.requests)


def volumes(ways: Sequence[Way], requests: Fraction, count: int = 240) -> list[Fraction]:
    """Requests to draw curves over: an even scale of logarithms, and both sides of the steps within it."""
    low, high = log10(max(1, float(requests) / 50)), log10(float(requests) * REACH)
    even = [exact(round(10 ** (low + (high - low) * place / (count - 1)), 3)) for place in range(count)]
    steps = {step for way in ways for step in _steps(way, reach(ways, requests)) if even[0] < step}
    return sorted({*even, *steps, *(step + Fraction(1, 1000) for step in steps)})


def _between(one: Way, other: Way, up_to: Fraction) -> Iterator[BreakEven]:
    """Over the stretches, open below and closed above, on which both have as many GPUs as before."""
    ends = sorted({*_steps(one, up_to), *_steps(other, up_to), up_to})
    slope = one.per_request - other.per_request
    start = Fraction(0)
    before: Fraction | None = None
    for end in ends:
        gpus = one.gpu_month * one.gpus(end) - other.gpu_month * other.gpus(end)
        begins = one.fixed - other.fixed + gpus + slope * start
        ends_at = begins + slope * (end - start)
        if before is not None and before * begins < 0:
            below, above = (one, other) if before < 0 else (other, one)
            yield BreakEven(below.name, above.name, start, below.cost(start), step=True)
        if begins and begins * ends_at <= 0:
            below, above = (one, other) if begins < 0 else (other, one)
            requests = start - begins / slope
            yield BreakEven(below.name, above.name, requests, below.cost(requests))
        start, before = end, ends_at


def _steps(way: Way, up_to: Fraction) -> list[Fraction]:
    """Requests above which a way needs one more GPU."""
    if way.gpu_requests is None:
        return []
    last = ceil(up_to / way.gpu_requests)
    return [way.gpu_requests * count for count in range(way.min_gpus, last)]


class _Costs:
    """The items that ways share."""

    def __init__(self, case: CaseConfig, prices: PricesConfig) -> None:
        self._case, self._prices = case, prices
        self._rate, self._months = exact(prices.engineer_hour), case.months
        self._hours = exact(prices.hours_in_month)
        self._gpu = exact(find_price(prices.gpus, case.gpu, "gpu").hour)
        self._out, self._alone = exact(case.tokens_out), exact(case.tokens_in_alone)
        self._in = exact(case.tokens_in)
        self._searched = 1 - exact(case.alone_share)

    def ways(self) -> list[Way]:
        case, prices, own = self._case, self._prices, self._prices.beside_own
        hosted = find_price(prices.hosted, case.hosted_model, "hosted_model")
        tuned = find_price(prices.hosted, case.tuned_model, "tuned_model") if case.tuned_model else None
        beside = prices.beside_hosted if tuned else own
        retrieval = {"build retrieval": self._built(case.retrieval_build_hours)}
        retrieval |= {"upkeep of retrieval": self._people(case.retrieval_upkeep_hours)}
        tuning = {"training": self._training(), "build fine-tuning": self._built(case.tuning_build_hours)}
        tuning |= {"upkeep of fine-tuning": self._people(case.tuning_upkeep_hours)}
        found = [
            self._way("hosted API with retrieval", "retrieval", hosted, prices.beside_hosted, retrieval, self._in),
            self._way("own model with retrieval", "retrieval", None, own, retrieval, self._in),
            self._way("fine-tuned with retrieval", "both", tuned, beside, retrieval | tuning, self._in),
            self._way(BY_HEART, "fine-tuning", tuned, beside, tuning, self._alone, 0),
        ]
        if case.alone_share:
            # the model is asked alone first, and a search follows where it is not sure
            read = self._alone + self._searched * self._in
            written = self._out * (1 + self._searched)
            everything = retrieval | tuning
            found.append(self._way(SPECULATIVE, "both", tuned, beside, everything, read, self._searched, written))
        return found

    def _way(
        self,
        name: str,
        approach: Approach,
        hosted: HostedPrice | None,
        beside: ServicesPrice,
        monthly: Mapping[str, Fraction],
        read: Fraction,
        searches: Fraction | int = 1,
        written: Fraction | None = None,
    ) -> Way:
        """A way that reads and writes so many tokens a request, with `searches` a request."""
        written = self._out if written is None else written
        every = {"observability": exact(beside.observability_per_month)} | dict(monthly)
        each: dict[str, Fraction] = {}
        if searches:
            every["retrieval"] = exact(beside.retrieval_per_month)
            every["storage"] = exact(self._prices.storage_per_gb_month) * exact(self._case.index_gb)
            each["searches"] = exact(beside.retrieval_per_request) * searches
        forbidden = self._forbidden(hosted is not None, name)
        if hosted:
            paid = 1 - exact(hosted.offline_discount) if self._case.mode == "offline" else Fraction(1)
            each["tokens read"] = paid * read * exact(hosted.input_per_million) / MILLION
            each["tokens written"] = paid * written * exact(hosted.output_per_million) / MILLION
            return Way(name, approach, forbidden, True, every, each)
        rate, tokens = exact(self._case.gpu_tokens_per_second), read + written
        if self._case.mode == "offline" and rate:
            each["GPU hours"] = tokens / rate / SECONDS_IN_HOUR * self._gpu
            return Way(name, approach, forbidden, False, every, each)
        capacity = rate * SECONDS_IN_HOUR * self._hours / exact(self._case.peak) / tokens if rate else None
        return Way(
            name, approach, forbidden, False, every, each, self._gpu * self._hours, self._case.min_gpus, capacity
        )

    def _forbidden(self, hosted: bool, name: str) -> str:
        case = self._case
        if hosted and case.residency == "own machines":
            return "documents and questions may not leave one's own machines"
        if name in (SPECULATIVE, BY_HEART) and case.citations == "required":
            return "what is answered without a search cites nothing"
        return ""

    def _training(self) -> Fraction:
        one = exact(self._case.training_gpu_hours) * self._gpu + exact(self._case.training_cost)
        return one * exact(self._case.trainings_a_year) / 12

    def _built(self, hours: float) -> Fraction:
        return self._people(hours) / self._months

    def _people(self, hours: float) -> Fraction:
        return exact(hours) * self._rate


def load_prices(file: str) -> PricesConfig:
    """A file of prices under conf/. Raises ConfigError where it is not there, or has a mistake."""
    return load_config(find_conf() / file, PricesConfig)


def find_price(prices: Sequence[P], name: str, field: str) -> P:
    """The price of that name; ConfigError, which names the field that asks for it, where there is none."""
    for price in prices:
        if price.name == name:
            return price
    known = ", ".join(price.name for price in prices)
    raise ConfigError(f"{field}: the prices have no {name}; they have {known}")
