"""The five questions in their order, how often to refresh, typical situations, and what to do first."""

from collections.abc import Collection, Mapping, Sequence
from dataclasses import dataclass
from fractions import Fraction

from tasks.advice.costs import Approach, BreakEven, cheapest
from tasks.advice.dimensions import HALF_TELLING, behaves, every, learnt, stale, training_days
from tasks.advice.recommendation import LEAST_EXAMPLES, Ranking
from tasks.config.advice import CaseConfig

OFTEN, SELDOM = 0.3, 0.03
"""Shares of the documents that change in a month, from which knowledge changes often, and up to which seldom."""
MANY = 1_000_000
"""Requests a month that are many."""
LARGE = 10_000
"""Documents that are a large archive."""
MUCH, LITTLE = 0.6, 0.35
"""Shares of behaviour among the failures, from which behaviour is what is missing, and up to which knowledge is."""
INTERVALS = {"hour": 1 / 24, "day": 1.0, "week": 7.0, "month": 365 / 12, "quarter": 365 / 4, "year": 365.0}
"""Days from one refresh to the next."""


@dataclass(frozen=True, slots=True)
class Question:
    """One of the five, as the case answers it."""

    question: str
    answer: str
    fields: tuple[str, ...]
    """That the answer rests on."""
    follows: str


@dataclass(frozen=True, slots=True)
class Situation:
    """A typical situation, what it calls for, and which of its marks the case shows."""

    name: str
    calls_for: Approach
    why: str
    marks: Mapping[str, bool]
    """By mark, whether the case shows it."""

    @property
    def shown(self) -> float:
        """Share of the marks."""
        return sum(self.marks.values()) / len(self.marks)


def questions(case: CaseConfig, ranking: Ranking, break_evens: Sequence[BreakEven]) -> list[Question]:
    """In the order in which they narrow the choice: what is missing, how it ages, what is owed, what is there, what
    it may cost and take."""
    return [
        _what_is_missing(case),
        _how_it_ages(case),
        _what_is_owed(case),
        _what_is_there(case),
        _what_it_may_take(case, ranking, break_evens),
    ]


def ages(case: CaseConfig) -> dict[str, float]:
    """By how often an index or an adapter is refreshed, the share of what it knows that is out of date."""
    return {name: stale(case.changed_share, days) for name, days in INTERVALS.items()}


def situations(case: CaseConfig) -> list[Situation]:
    """The typical ones; the case is like the first of those of which it shows most."""
    knowledge, behaviour = case.behaviour_share <= LITTLE, case.behaviour_share >= MUCH
    often, seldom = case.changed_share >= OFTEN, case.changed_share <= SELDOM
    learnable, sources = learnt(case) > case.prompted, case.citations == "required"
    return [
        Situation(
            "Answers from documents that change, with their sources",
            "retrieval",
            "an index follows within a day, an adapter with its next training",
            {"failures are of facts": knowledge, "documents change": not seldom, "sources are required": sources},
        ),
        Situation(
            "A large archive, asked for single facts",
            "retrieval",
            "nobody learns by heart what stands in one document of thousands",
            {
                "failures are of facts": knowledge,
                f"at least {LARGE:,} documents": case.documents >= LARGE,
                "rare questions": case.tail_share >= 0.5,
            },
        ),
        Situation(
            "Few examples and questions to measure with",
            "retrieval",
            "what cannot be measured cannot be trained: begin with what needs no training",
            {"few examples": not learnable, "few golden questions": case.golden < HALF_TELLING},
        ),
        Situation(
            "Labels or short forms in great numbers",
            "fine-tuning",
            "the task is a habit: a small model that has it reads no passages",
            {
                "failures are of behaviour": behaviour,
                "knowledge hardly changes": seldom,
                f"at least {MANY:,} requests a month": case.requests >= MANY,
                "labels or a schema": case.output != "text",
            },
        ),
        Situation(
            "A voice or form of one's own, over stable knowledge",
            "fine-tuning",
            "form is learnt from examples; what hardly changes may be learnt with it",
            {"failures are of behaviour": behaviour, "knowledge hardly changes": seldom, "enough examples": learnable},
        ),
        Situation(
            "A voice or form of one's own, over knowledge that changes",
            "both",
            "the adapter holds the form, the index the facts",
            {
                "failures are of both": LITTLE < case.behaviour_share < MUCH or (behaviour and not seldom),
                "documents change often": often,
                "enough examples": learnable,
            },
        ),
        Situation(
            "Many requests, most of them familiar",
            "both",
            "the model answers alone what it surely knows, and searches for the rest",
            {
                "many are answered alone": case.alone_share >= 0.3,
                f"at least {MANY:,} requests a month": case.requests >= MANY,
                "sources are not required": not sources,
                "enough examples": learnable,
            },
        ),
    ]


def own_situation(found: Sequence[Situation]) -> Situation:
    """The one of which most marks are shown; of several, the one with most marks."""
    return max(found, key=lambda each: (each.shown, len(each.marks)))


def steps(case: CaseConfig, ranking: Ranking, measured: Collection[str], break_evens: Sequence[BreakEven]) -> list[str]:
    """What to do, in order: retrieval first, and fine-tuning on evidence, unless the case calls for it alone."""
    if ranking.first == "neither":
        return [f"Get what is missing first: {'; '.join(dict.fromkeys(ranking.vetoes.values()))}."]
    found = []
    if case.golden < HALF_TELLING:
        found.append(
            f"Write golden questions, {HALF_TELLING} at least where there are {case.golden}: "
            "`tandem golden draft INDEX FILE`. Without them nothing below can be told from chance."
        )
    tune = [
        "Fine-tune on the examples, beside the base model with examples in its prompt: `tandem sft CONF`. "
        "The gate keeps out what does not beat it.",
    ]
    if ranking.first == "fine-tuning":
        return [
            *found,
            *tune,
            "Measure what is left: `tandem diagnose CONF`. Add retrieval only if facts are what is missing.",
            "Watch it: `tandem monitor CONF`; train again when labels or their shares move.",
        ]
    if "right" not in measured:
        found.append("Begin with retrieval: `tandem reindex CONF`, then `tandem release CONF`.")
    if "behaviour_share" not in measured:
        found.append("Sort the failures of real questions by cause: `tandem diagnose CONF`.")
    if ranking.first == "retrieval":
        found.append(_evidence(case, measured))
    else:
        found += [f"Improve the prompt first; it mends some {case.prompted:.0%} of the failures of behaviour.", *tune]
        found.append("Bind index and adapter into a release, and compare: `tandem shadow CONF`.")
    if case.alone_share and case.citations != "required" and ranking.first == "both":
        found.append("Let the model answer alone what it surely knows: a policy with `routing: {alone: true}`.")
    if way := cheapest(ranking.ways, ranking.first, Fraction(case.requests)):
        nearest = [each for each in break_evens if each.below == way.name and each.requests > case.requests]
        found += [
            f"Look at this again near {_count(each.requests)} requests a month: from there on {each.above} is cheaper "
            f"than {each.below}."
            for each in nearest[:1]
        ]
    return [
        *found,
        "Watch questions, scores and costs: `tandem monitor CONF`, and repeat this advice with its figures.",
    ]


def _evidence(case: CaseConfig, measured: Collection[str]) -> str:
    known = "a diagnosis found" if "behaviour_share" in measured else "the case assumes"
    return (
        f"Fine-tune only on evidence: when failures of form, tone or judgement, of which {known} "
        f"{case.behaviour_share:.0%}, are left over that no prompt mends, and there are {LEAST_EXAMPLES} examples at "
        f"the very least ({case.examples:,} now)."
    )


def _what_is_missing(case: CaseConfig) -> Question:
    share = case.behaviour_share
    answer, follows = "both", "facts from an index, behaviour from the prompt first and then from an adapter"
    if share >= MUCH:
        answer, follows = "behaviour", "more passages do not help; instructions, then examples to train on do"
    elif share <= LITTLE:
        answer, follows = "knowledge", "training does not help; documents and their retrieval do"
    return Question(
        "Is it knowledge or behaviour that is missing?",
        f"{answer}: {share:.0%} of the failures are of form, tone, structure or judgement, {1 - share:.0%} of facts",
        ("behaviour_share",),
        follows,
    )


def _how_it_ages(case: CaseConfig) -> Question:
    index, adapter = stale(case.changed_share, case.refresh_days), stale(case.changed_share, training_days(case))
    follows = "what an adapter knew would stay true, if it could learn it"
    if adapter > 0.05:
        follows = "knowledge belongs into an index; an adapter may hold what does not change"
    return Question(
        "How often does it change?",
        f"{case.changed_share:.1%} of the documents in a month: {index:.1%} of an index refreshed "
        f"{every(case.refresh_days)} are out of date, {adapter:.1%} of an adapter trained {every(training_days(case))}",
        ("changed_share", "refresh_days", "trainings_a_year"),
        follows,
    )


def _what_is_owed(case: CaseConfig) -> Question:
    owed = {
        "sources": case.citations == "required",
        "erasure on demand": case.erasure,
        f"{case.tenants:,} tenants kept apart": case.tenants > 1,
        "data kept within the region": case.residency == "region",
        "data kept on one's own machines": case.residency == "own machines",
    }
    asked = [name for name, is_so in owed.items() if is_so]
    follows = "any approach may do"
    if case.citations == "required":
        follows = "every answer is searched for: fine-tuning alone is ruled out"
    elif asked:
        follows = "retrieval gives these by deleting and filtering; an adapter must never see what is not for everybody"
    return Question(
        "Must it cite, forget, or keep apart?",
        ", ".join(asked) or "no",
        ("citations", "erasure", "tenants", "residency"),
        follows,
    )


def _what_is_there(case: CaseConfig) -> Question:
    follows = f"an adapter would mend some {learnt(case):.0%} of the failures of behaviour"
    if case.examples < LEAST_EXAMPLES:
        follows = f"nothing to fine-tune on: gather {LEAST_EXAMPLES} examples at the very least, from use"
    elif behaves(case) == case.prompted:
        follows += f", a prompt {case.prompted:.0%}: fine-tuning does not pay yet"
    if case.golden < HALF_TELLING:
        follows += f"; write golden questions first, {HALF_TELLING} at least"
    return Question(
        "What is there to learn from, and to measure with?",
        f"{case.examples:,} labelled examples, {case.golden:,} golden questions, {case.documents:,} documents",
        ("examples", "golden", "documents"),
        follows,
    )


def _what_it_may_take(case: CaseConfig, ranking: Ranking, break_evens: Sequence[BreakEven]) -> Question:
    requests = Fraction(case.requests)
    found = [way for approach in ranking.totals if (way := cheapest(ranking.ways, approach, requests))]
    least = min(found, key=lambda way: way.cost(requests)).name if found else "no way"
    late = case.mode == "online" and case.answer_ms > case.latency_ms
    waits = "nobody waits" if case.mode == "offline" else f"95% within {case.latency_ms:,.0f} ms"
    near = next((each for each in break_evens if each.below == least and each.requests > requests), None)
    follows = f"{least} is the cheapest allowed"
    if near:
        follows += f"; from {_count(near.requests)} requests on {near.above} is cheaper than {near.below}"
    if late:
        follows += f"; an answer with a search takes {case.answer_ms:,.0f} ms, too long as it is"
    fields = ("requests", "tokens_in", "tokens_out", "latency_ms", "answer_ms")
    return Question(
        "What do volume and latency allow?", f"{case.requests:,} requests a month, {waits}", fields, follows
    )


def _count(requests: Fraction) -> str:
    return f"{float(requests):,.0f}"
