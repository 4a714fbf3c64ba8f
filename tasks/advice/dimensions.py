"""Seven dimensions, scored from 0 to 5 for each approach, every score with its reason.

The scores are a model of the case, not a measurement: each follows from the case's fields by the formula beside it, so
that a score changes with what it rests on.
"""

from collections.abc import Sequence
from dataclasses import dataclass
from fractions import Fraction
from math import exp, log1p
from typing import get_args

from tasks.advice.costs import SPECULATIVE, Approach, Way, cents, cheapest
from tasks.config.advice import CaseConfig

APPROACHES: tuple[Approach, ...] = get_args(Approach)
BEST = 5.0
DAYS_IN_YEAR, DAYS_IN_MONTH = 365.0, 365 / 12
HALF_LEARNT = 500
"""Examples after which half of what a model can learn of a behaviour is learnt: an assumption, near the fewest rows
that a fine-tune takes by default."""
TELLINGS = 10
"""Examples that tell a fact in other words, after which a model has learnt it. Ovadia et al., "Fine-Tuning or
Retrieval?" (EMNLP 2024), find that it takes many paraphrases, and that retrieval still does better."""
HALF_TELLING = 200
"""Questions to measure with, after which half of what there is to see is seen: with 200, a share is known to within
seven points."""


@dataclass(frozen=True, slots=True)
class Score:
    """From 0 to 5, and why."""

    value: float
    reason: str


@dataclass(frozen=True, slots=True)
class Point:
    """One consideration among others of a dimension."""

    weight: float
    met: float
    """From 0 to 1."""
    words: str


Scores = dict[str, dict[Approach, Score]]
"""By dimension, then by approach."""


def score(case: CaseConfig, ways: Sequence[Way], currency: str) -> Scores:
    """All seven dimensions, in the order of the weights.

    Questions are answered from the adapter alone only where that is the cheapest way of both.
    """
    both = cheapest(ways, "both", Fraction(case.requests))
    if both is None or both.name != SPECULATIVE:
        case = case.model_copy(update={"alone_share": 0.0})
    return {
        "freshness": _freshness(case),
        "long_tail": _long_tail(case),
        "latency": _latency(case),
        "cost": _cost(case, ways, currency),
        "control": _control(case, ways),
        "compliance": _compliance(case, ways),
        "evaluability": _evaluability(case),
    }


def stale(changed_share: float, days: float) -> float:
    """Share of what is known that is out of date on a mean day, where it is brought up to date every so many days.

    Documents change independently at a constant rate, `changed_share` of them within a month. After t days 1 - e^(-rt)
    of them have changed; that is averaged over the days between two refreshes.
    """
    rate = -log1p(-min(changed_share, 0.999)) / DAYS_IN_MONTH
    return 1 - (1 - exp(-rate * days)) / (rate * days) if rate else 0.0


def training_days(case: CaseConfig) -> float:
    """From one training to the next."""
    return DAYS_IN_YEAR / case.trainings_a_year


def every(days: float) -> str:
    """How often that is, in words."""
    return "every day" if days == 1 else f"every {days:.3g} days"


def learnt(case: CaseConfig) -> float:
    """Share of the failures of behaviour that the examples mend."""
    return case.examples / (case.examples + HALF_LEARNT)


def told(case: CaseConfig) -> float:
    """Share of the documents whose facts the examples tell often enough."""
    return min(1.0, case.examples / (TELLINGS * case.documents)) if case.documents else 1.0


def behaves(case: CaseConfig) -> float:
    """Share of the failures of behaviour that a fine-tuned model, prompted as well, does not show."""
    return max(case.prompted, learnt(case))


def _freshness(case: CaseConfig) -> dict[Approach, Score]:
    index, adapter = stale(case.changed_share, case.refresh_days), stale(case.changed_share, training_days(case))
    mixed = (1 - case.alone_share) * index + case.alone_share * adapter
    alone = f", and {case.alone_share:.0%} are answered from the adapter alone" if case.alone_share else ""
    changes = f"{case.changed_share:.1%} of the documents change in a month"
    return {
        "retrieval": Score(
            BEST * (1 - index),
            f"{changes}; re-indexed {every(case.refresh_days)}, {index:.1%} are out of date on a mean day",
        ),
        "fine-tuning": Score(
            BEST * (1 - adapter),
            f"{changes}; trained {every(training_days(case))}, {adapter:.1%} are out of date on a mean day",
        ),
        "both": Score(BEST * (1 - mixed), f"the index brings what is new: {mixed:.1%} are out of date{alone}"),
    }


def _long_tail(case: CaseConfig) -> dict[Approach, Score]:
    facts, behaviour = 1 - case.behaviour_share, case.behaviour_share
    head, tail = learnt(case), min(learnt(case), told(case))
    by_heart = case.right * ((1 - case.tail_share) * head + case.tail_share * tail)
    found = f"{case.right:.0%} of the questions about facts are right with passages"
    mended = f"{behaves(case):.0%} of the failures of behaviour are mended by prompt or examples"
    return {
        "retrieval": Score(
            BEST * (facts * case.right + behaviour * case.prompted),
            f"{found}; a prompt mends {case.prompted:.0%} of the failures of behaviour, which are {behaviour:.0%}",
        ),
        "fine-tuning": Score(
            BEST * (facts * by_heart + behaviour * behaves(case)),
            f"{case.examples:,} examples tell {told(case):.1%} of {case.documents:,} documents often enough to be "
            f"learnt by heart, and {case.tail_share:.0%} of the questions are rare ones; {mended}",
        ),
        "both": Score(BEST * (facts * case.right + behaviour * behaves(case)), f"{found}; {mended}"),
    }


def _latency(case: CaseConfig) -> dict[Approach, Score]:
    if case.mode == "offline":
        return dict.fromkeys(APPROACHES, Score(BEST, "nobody waits for an answer"))
    mixed = (1 - case.alone_share) * case.answer_ms + case.alone_share * case.alone_ms
    times = {"retrieval": case.answer_ms, "fine-tuning": case.alone_ms, "both": mixed}
    routed = "as routed" if case.alone_share else "with a search"
    how = {"retrieval": "with a search", "fine-tuning": "without a search", "both": routed}
    return {
        approach: Score(
            BEST * min(1.0, max(0.0, 1 - times[approach] / case.latency_ms / 2)),
            f"{times[approach]:,.0f} ms {how[approach]} of {case.latency_ms:,.0f} ms (half of the points at the limit)",
        )
        for approach in APPROACHES
    }


def _cost(case: CaseConfig, ways: Sequence[Way], currency: str) -> dict[Approach, Score]:
    requests = Fraction(case.requests)
    chosen = {approach: cheapest(ways, approach, requests) for approach in APPROACHES}
    least = min((way.cost(requests) for way in chosen.values() if way), default=Fraction(0))
    return {
        approach: Score(
            BEST * float(least / way.cost(requests)) if way.cost(requests) else BEST,
            f"{way.name}: {currency}{cents(way.cost(requests)):,} a month, the least is {currency}{cents(least):,}",
        )
        if way
        else Score(0.0, "no way of it is allowed")
        for approach, way in chosen.items()
    }


def _control(case: CaseConfig, ways: Sequence[Way]) -> dict[Approach, Score]:
    facts, behaviour = 1 - case.behaviour_share, case.behaviour_share
    kept = 0.9 if case.output == "structured" else case.prompted
    searched = 1 - case.alone_share
    form = f"the form is kept for {kept:.0%} by prompt{' and schema' if case.output == 'structured' else ''} alone"
    trained = max(kept, behaves(case))
    return {
        "retrieval": _of(
            Point(facts, 1.0, "a wrong fact is put right with its document"),
            Point(behaviour, kept, form),
            _pinned(case, ways, "retrieval"),
        ),
        "fine-tuning": _of(
            Point(facts, 0.0, "a wrong fact stays until the next training"),
            Point(behaviour, trained, f"the form is trained, and kept for {trained:.0%}"),
            _pinned(case, ways, "fine-tuning"),
        ),
        "both": _of(
            Point(facts, searched, "a wrong fact is put right with its document where it is searched for"),
            Point(behaviour, trained, f"the form is trained, and kept for {trained:.0%}"),
            _pinned(case, ways, "both"),
        ),
    }


def _pinned(case: CaseConfig, ways: Sequence[Way], approach: Approach) -> Point:
    way = cheapest(ways, approach, Fraction(case.requests))
    if way and way.hosted:
        if approach == "retrieval":
            return Point(0.5, 0.0, "its vendor may change or withdraw the model")
        return Point(0.5, 0.5, "its vendor may withdraw the base model")
    return Point(0.5, 1.0, "the model is one's own, and stays")


def _compliance(case: CaseConfig, ways: Sequence[Way]) -> dict[Approach, Score]:
    return {approach: _of(*_obligations(case, ways, approach)) for approach in APPROACHES}


def _obligations(case: CaseConfig, ways: Sequence[Way], approach: Approach) -> list[Point]:
    """Those that the case has."""
    points = []
    searched = {"retrieval": 1.0, "fine-tuning": 0.0, "both": 1 - case.alone_share}[approach]
    if case.citations == "required":
        # whoever asks for sources is always searched for
        cites = float(approach != "fine-tuning")
        points.append(Point(2, cites, "every answer names its sources" if cites else "answers name no sources"))
    elif case.citations == "welcome":
        points.append(Point(1, searched, f"{searched:.0%} of the answers name their sources"))
    if case.erasure:
        met, words = {
            "retrieval": (1.0, "what must be forgotten is deleted from the index"),
            "fine-tuning": (0.0, "what must be forgotten takes a new training"),
            "both": (0.75, "what must be forgotten is deleted from the index, and must be kept out of the examples"),
        }[approach]
        points.append(Point(1, met, words))
    if case.tenants > 1:
        met, words = {
            "retrieval": (1.0, f"{case.tenants:,} tenants are kept apart by the search's filter"),
            "fine-tuning": (
                1 / case.tenants,
                f"{case.tenants:,} tenants take an adapter each, or share one that leaks",
            ),
            "both": (0.9, f"{case.tenants:,} tenants are kept apart by the filter; the examples must hold no secrets"),
        }[approach]
        points.append(Point(1, met, words))
    if case.residency != "anywhere":
        way = cheapest(ways, approach, Fraction(case.requests))
        out = way is None or way.hosted
        words = "data go to the vendor, by contract within the region" if out else "data stay on one's own machines"
        points.append(Point(1, 0.5 if out else 1.0, words))
    return points or [Point(1, 1.0, "the case asks for nothing of the kind")]


def _evaluability(case: CaseConfig) -> dict[Approach, Score]:
    told_apart = case.golden / (case.golden + HALF_TELLING)
    held_out = case.examples / 10
    rows = held_out / (held_out + HALF_TELLING)
    questions = Point(1, told_apart, f"{case.golden:,} golden questions to measure with")
    examples = Point(1, rows, f"{held_out:,.0f} examples to hold out, a tenth")
    facts = 1 - case.behaviour_share
    stages = "retrieval and answer are scored apart, and facts are checked against passages"
    return {
        "retrieval": _of(Point(facts, 1.0, stages), questions),
        "fine-tuning": _of(Point(facts, 0.0, "a wrong fact can be laid to no passage"), questions, examples),
        "both": _of(Point(facts, 1 - case.alone_share, stages), questions, examples),
    }


def _of(*points: Point) -> Score:
    """The weighted mean of considerations; those that weigh nothing are not mentioned."""
    heard = [point for point in points if point.weight]
    mean = sum(point.weight * point.met for point in heard) / sum(point.weight for point in heard)
    return Score(BEST * mean, "; ".join(point.words for point in heard))
