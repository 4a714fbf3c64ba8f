"""Retrieval, fine-tuning, or both: costs to the cent, scores that follow from the case, and what would change them."""

from datetime import date
from decimal import Decimal
from fractions import Fraction
from itertools import pairwise
from math import log
from pathlib import Path
from typing import Any

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from tasks.advice.costs import BreakEven, Way, break_evens, cents, cheapest, load_prices, reach, rounded, ways
from tasks.advice.dimensions import stale
from tasks.advice.questions import own_situation, questions, situations, steps
from tasks.advice.recommendation import flips, rank, shares
from tasks.advice.sensitivity import tornado
from tasks.advice.weighing import summarise, weigh
from tasks.config.advice import CaseConfig, PricesConfig
from tasks.config.loading import load_config, parse_config
from tasks.errors import ConfigError
from tasks.report_advice import write_report

CONF = Path(__file__).resolve().parents[1] / "conf"
HOSTED, OWN = "hosted API with retrieval", "own model with retrieval"
TUNED, BY_HEART, SPECULATIVE = "fine-tuned with retrieval", "fine-tuned without retrieval", "speculative"
NOBODY = dict.fromkeys(
    ("retrieval_build_hours", "retrieval_upkeep_hours", "tuning_build_hours", "tuning_upkeep_hours"), 0
)
"""Published examples count no people."""
PUBLISHED = NOBODY | {
    "training_gpu_hours": 0,
    "training_cost": 4000,
    "trainings_a_year": 4,
    "min_gpus": 2,
    "index_gb": 0,
}


def settings_of(**changes: Any) -> dict[str, Any]:
    return {
        "name": "desk",
        "requests": 500_000,
        "tokens_in": 3200,
        "tokens_in_alone": 600,
        "tokens_out": 400,
        "documents": 1000,
        "changed_share": 0.1,
        "behaviour_share": 0.4,
        "examples": 1000,
        "golden": 200,
        "hosted_model": "large",
        "gpu": "h100",
    } | changes


def case_of(**changes: Any) -> CaseConfig:
    return CaseConfig.model_validate(settings_of(**changes))


def prices_of(**changes: Any) -> PricesConfig:
    """Those of the published examples."""
    nothing = {"retrieval_per_month": 0, "retrieval_per_request": 0, "observability_per_month": 0, "source": "none"}
    own = nothing | {"retrieval_per_month": 900, "observability_per_month": 600}
    models = {"large": (5, 15), "medium": (3, 15), "tuned": ("2.5", 10)}
    return PricesConfig.model_validate(
        {
            "as_of": "2026-11-01",
            "currency": "$",
            "hours_in_month": 730,
            "engineer_hour": 100,
            "storage_per_gb_month": "0.1",
            "hosted": [
                {
                    "name": name,
                    "input_per_million": read,
                    "output_per_million": written,
                    "offline_discount": "0.5",
                    "source": "published",
                }
                for name, (read, written) in models.items()
            ],
            "gpus": [{"name": "h100", "hour": "2.80", "source": "published"}],
            "beside_hosted": nothing,
            "beside_own": own,
        }
        | changes
    )


def by_name(case: CaseConfig, prices: PricesConfig) -> dict[str, Way]:
    return {way.name: way for way in ways(case, prices)}


def crossing(one: Way, other: Way, up_to: int = 10**7) -> BreakEven:
    [found] = break_evens([one, other], Fraction(up_to))
    return found


def test_the_published_example_of_a_hosted_and_a_self_hosted_model_comes_out_to_the_cent() -> None:
    found = by_name(case_of(**PUBLISHED), prices_of())
    hosted, own = found[HOSTED], found[TUNED]
    assert rounded(hosted.per_request, 4) == Decimal("0.0220")
    assert cents(hosted.cost(Fraction(500_000))) == Decimal("11000.00")
    assert cents(own.cost(Fraction(500_000))) == Decimal("6921.33")  # 4000 / 3 + 2 · 2.80 · 730 + 900 + 600
    assert {name: cents(amount) for name, amount in own.items(Fraction(500_000)).items()} == {
        "training": Decimal("1333.33"),
        "GPUs (2)": Decimal("4088.00"),
        "retrieval": Decimal("900.00"),
        "observability": Decimal("600.00"),
    }
    found_at = crossing(hosted, own)
    assert (found_at.below, found_at.above, found_at.step) == (HOSTED, TUNED, False)
    assert rounded(found_at.requests, 2) == Decimal("314606.06")  # published as between 250,000 and 400,000
    assert cents(hosted.cost(found_at.requests)) == cents(own.cost(found_at.requests)) == cents(found_at.cost)


def test_the_published_example_of_long_passages_and_a_fine_tuned_model_comes_out_to_the_cent() -> None:
    tokens = {"tokens_in": 10_000, "tokens_out": 0, "tokens_in_alone": 2000}
    models = {"hosted_model": "medium", "tuned_model": "tuned"}
    found = by_name(case_of(**PUBLISHED | tokens | models), prices_of())
    assert rounded(found[HOSTED].per_request, 4) == Decimal("0.0300")
    assert rounded(found[BY_HEART].per_request, 4) == Decimal("0.0050")
    found_at = crossing(found[HOSTED], found[BY_HEART])
    assert (found_at.below, found_at.above) == (HOSTED, BY_HEART)
    assert rounded(found_at.requests, 2) == Decimal("53333.33")  # 4000 / 3 a month, by 2.5 cents saved a request


def test_what_people_and_storage_cost_is_counted_by_hand() -> None:
    people = {"retrieval_build_hours": 60, "retrieval_upkeep_hours": 5, "tuning_build_hours": 120, "months": 12}
    case = case_of(**people, tuning_upkeep_hours=10, index_gb=20, training_gpu_hours=10, trainings_a_year=6)
    items = by_name(case, prices_of())[TUNED].items(Fraction(1))
    assert {name: float(amount) for name, amount in items.items()} == {
        "build retrieval": 500,
        "upkeep of retrieval": 500,
        "build fine-tuning": 1000,
        "upkeep of fine-tuning": 1000,
        "training": 14,
        "storage": 2,
        "retrieval": 900,
        "observability": 600,
        "GPUs (1)": 2044,
    }


def test_gpus_follow_from_requests_and_throughput_and_offline_only_their_work_is_paid() -> None:
    online = case_of(requests=1_000_000, gpu_tokens_per_second=3600, peak=2)
    own = by_name(online, prices_of())[OWN]
    # a GPU gets through one request a second, 2,628,000 a month, half of them on average
    assert own.gpu_requests == 1_314_000
    assert [own.gpus(Fraction(requests)) for requests in (1, 1_314_000, 1_314_001, 2_628_001)] == [1, 1, 2, 3]
    offline = by_name(online.model_copy(update={"mode": "offline"}), prices_of())
    assert offline[OWN].gpus(Fraction(10**9)) == 0
    assert cents(offline[OWN].each["GPU hours"] * 3_600_000) == Decimal("2800.00")
    assert rounded(offline[HOSTED].per_request, 4) == Decimal("0.0110")


def test_where_one_gpu_gets_through_little_break_evens_are_looked_for_up_to_a_thousand_of_them() -> None:
    case = case_of(requests=10**9, gpu_tokens_per_second=36, peak=1)
    found = by_name(case, prices_of())
    assert found[OWN].gpu_requests == 26_280
    assert reach(list(found.values()), Fraction(10**9)) == 26_280_000
    assert reach([found[HOSTED]], Fraction(10**9)) == 20 * 10**9


def test_speculative_routing_pays_for_both_where_a_search_follows() -> None:
    case = case_of(alone_share=0.75, tuned_model="tuned", tokens_in=3000, tokens_in_alone=500, tokens_out=100)
    found = by_name(case, prices_of())
    way = found[SPECULATIVE]
    # 500 and 100 always, 3,000 and 100 for a quarter
    assert rounded(way.each["tokens read"], 6) == Decimal("0.003125")
    assert rounded(way.each["tokens written"], 6) == Decimal("0.001250")
    assert way.per_request < found[TUNED].per_request
    assert SPECULATIVE not in by_name(case_of(alone_share=0), prices_of())


cases = st.builds(
    case_of,
    tokens_in=st.integers(100, 20_000),
    tokens_in_alone=st.integers(10, 2000),
    tokens_out=st.integers(0, 1000),
    alone_share=st.sampled_from([0, 0.25, 0.9, 1]),
    gpu_tokens_per_second=st.sampled_from([0, 50, 1234.5, 20_000]),
    mode=st.sampled_from(["online", "offline"]),
    min_gpus=st.integers(1, 4),
    training_cost=st.floats(0, 10_000),
    tuned_model=st.sampled_from(["", "tuned"]),
)


@settings(max_examples=40, deadline=None)
@given(case=cases, volumes=st.lists(st.integers(1, 10**8), min_size=2, max_size=8))
def test_no_way_costs_less_for_more_requests(case: CaseConfig, volumes: list[int]) -> None:
    for way in ways(case, prices_of()):
        costs = [way.cost(Fraction(volume)) for volume in sorted(volumes)]
        assert all(less <= more for less, more in pairwise(costs))


@settings(max_examples=40, deadline=None)
@given(case=cases)
def test_at_a_break_even_both_cost_the_same_to_the_cent_and_the_cheaper_one_changes(case: CaseConfig) -> None:
    up_to = Fraction(5_000_000)
    found = by_name(case, prices_of())
    for each in break_evens(list(found.values()), up_to):
        below, above = found[each.below], found[each.above]
        nearly = Fraction(1, 10**6)
        assert below.cost(each.requests - nearly) < above.cost(each.requests - nearly)
        if each.step:
            assert below.cost(each.requests) < above.cost(each.requests)
            assert below.cost(each.requests + nearly) > above.cost(each.requests + nearly)
        else:
            assert cents(below.cost(each.requests)) == cents(above.cost(each.requests)) == cents(each.cost)


def test_no_break_even_is_missed() -> None:
    case = case_of(gpu_tokens_per_second=400, peak=1, hosted_model="medium")
    found = by_name(case, prices_of())
    one, other = found[HOSTED], found[OWN]
    crossings = [each.requests for each in break_evens([one, other], Fraction(3_000_000))]
    assert crossings
    differences = [
        (volume, one.cost(Fraction(volume)) < other.cost(Fraction(volume))) for volume in range(1, 3 * 10**6, 997)
    ]
    changes = [(low, high) for (low, before), (high, after) in pairwise(differences) if before != after]
    assert all(sum(low <= at <= high for at in crossings) % 2 == 1 for low, high in changes)
    assert len(changes) <= len(crossings)


def test_half_a_cent_is_rounded_up_and_a_price_that_is_missing_is_named() -> None:
    assert [cents(Fraction(value, 1000)) for value in (5, 4, 1005, 2675)] == [
        Decimal("0.01"),
        Decimal("0.00"),
        Decimal("1.01"),
        Decimal("2.68"),
    ]
    with pytest.raises(ConfigError, match="hosted_model: the prices have no huge; they have large, medium, tuned"):
        ways(case_of(hosted_model="huge"), prices_of())
    with pytest.raises(ConfigError, match="gpu: the prices have no b200; they have h100"):
        ways(case_of(gpu="b200"), prices_of())


def test_what_is_out_of_date_follows_from_changes_and_refreshes() -> None:
    month = 365 / 12
    assert stale(0.5, month) == pytest.approx(1 - 0.5 / log(2))  # the mean of 1 - 2^-t over a month
    assert stale(0.0, month) == 0
    assert stale(0.1, 1) < stale(0.1, 7) < stale(0.5, 7) < stale(1.0, 365) <= 1


@pytest.mark.parametrize(
    ("changes", "dimension", "approach", "less"),
    [
        ({"changed_share": 0.6}, "freshness", "fine-tuning", True),
        ({"trainings_a_year": 50}, "freshness", "fine-tuning", False),
        ({"tail_share": 0.9}, "long_tail", "fine-tuning", True),
        ({"right": 0.95}, "long_tail", "retrieval", False),
        ({"prompted": 0.9}, "long_tail", "retrieval", False),
        ({"examples": 10_000}, "long_tail", "both", False),
        ({"answer_ms": 3000}, "latency", "retrieval", True),
        ({"mode": "offline"}, "latency", "both", False),
        ({"tuning_upkeep_hours": 100}, "cost", "both", True),
        ({"output": "structured"}, "control", "retrieval", False),
        ({"citations": "required"}, "compliance", "both", False),
        ({"tenants": 5}, "compliance", "fine-tuning", False),
        ({"erasure": True}, "compliance", "both", True),
        ({"golden": 1000}, "evaluability", "retrieval", False),
    ],
)
def test_scores_follow_from_the_case_and_say_why(
    changes: dict[str, Any], dimension: str, approach: str, less: bool
) -> None:
    before, after = (rank(case_of(**given), prices_of()).scores[dimension] for given in ({}, changes))
    was, now = before[approach], after[approach]  # type: ignore[index]
    assert (now.value < was.value) if less else (now.value >= was.value)
    assert now != was
    assert all(0 <= score.value <= 5 and score.reason for score in after.values())


def test_what_the_case_forbids_is_ruled_out_whatever_it_scores() -> None:
    cites = rank(case_of(citations="required", behaviour_share=0.95, alone_share=0.5), prices_of())
    assert cites.vetoes == {"fine-tuning": "what is answered without a search cites nothing"}
    assert [way.name for way in cites.ways if way.forbidden] == [BY_HEART, SPECULATIVE]
    at_home = rank(case_of(residency="own machines", requests=1000), prices_of())
    chosen = cheapest(at_home.ways, "retrieval", Fraction(1000))
    assert chosen
    assert chosen.name == OWN
    assert at_home.scores["cost"]["retrieval"].reason.startswith("own model with retrieval: $")
    few = rank(case_of(examples=49), prices_of())
    assert set(few.vetoes) == {"fine-tuning", "both"}
    assert few.first == "retrieval"
    nothing = rank(case_of(examples=0, documents=0), prices_of())
    assert nothing.first == "neither"
    [step] = steps(case_of(examples=0, documents=0), nothing, (), ())
    assert "no documents to retrieve from" in step


@pytest.mark.parametrize(
    ("name", "advised", "way", "situation"),
    [
        ("helpdesk", "retrieval", HOSTED, "Answers from documents that change, with their sources"),
        ("legal_archive", "retrieval", OWN, "A large archive, asked for single facts"),
        ("triage", "fine-tuning", BY_HEART, "Labels or short forms in great numbers"),
        ("brand_support", "both", TUNED, "A voice or form of one's own, over knowledge that changes"),
    ],
)
def test_the_cases_of_conf_get_what_the_field_would_advise(name: str, advised: str, way: str, situation: str) -> None:
    case = load_config(CONF / "cases" / f"{name}.yaml", CaseConfig)
    ranking = rank(case, load_prices(case.prices))
    assert ranking.first == advised
    chosen = cheapest(ranking.ways, ranking.first, Fraction(case.requests))  # type: ignore[arg-type]
    assert chosen
    assert chosen.name == way
    assert own_situation(situations(case)).name == situation
    found = [each.question for each in questions(case, ranking, ())]
    assert found[0] == "Is it knowledge or behaviour that is missing?"
    assert len(found) == 5
    order = " ".join(steps(case, ranking, (), ()))
    retrieval, tuning = order.find("`tandem reindex"), order.lower().find("fine-tune o")
    assert (retrieval == -1) if advised == "fine-tuning" else (0 <= retrieval < tuning)


def test_a_flip_is_where_the_advice_changes_and_just_before_it_does_not() -> None:
    case, prices = load_config(CONF / "cases" / "brand_support.yaml", CaseConfig), load_prices(case_of().prices)
    every = flips(case, prices)
    found = {flip.field: flip for flip in every}
    assert rank(case, prices).first == "both"
    for field, outwards in (("behaviour_share", 0.99), ("prompted", 1.01), ("examples", 0.99)):
        at = float(found[field].at.replace(",", ""))
        there, before = (case.model_copy(update={field: at * factor}) for factor in (outwards, outwards**-2))
        assert rank(there, prices).first == found[field].becomes == "retrieval"
        assert rank(before, prices).first == "both"
    assert found["mode"].at == "offline"
    assert found["weights.cost"].becomes == "retrieval"
    distances = [flip.distance for flip in every]
    assert distances == sorted(distances)


def test_draws_are_the_same_for_a_seed_and_none_differs_where_nothing_varies() -> None:
    case, prices = load_config(CONF / "cases" / "triage.yaml", CaseConfig), load_prices(case_of().prices)
    fewer = case.model_copy(update={"draws": 200})
    found = shares(fewer, prices, ())
    assert found == shares(fewer, prices, ())
    assert 0.5 < found["fine-tuning"] < 1
    assert sum(found.values()) == pytest.approx(1)
    still = fewer.model_copy(update=dict.fromkeys(("spread_weights", "spread_assumed", "spread_measured"), 0.0))
    assert shares(still, prices, ()) == {"fine-tuning": 1.0}
    surer = fewer.model_copy(update={"spread_measured": 0.0, "spread_weights": 0.0})
    assert shares(surer, prices, tuple(CaseConfig.model_fields)) == {"fine-tuning": 1.0}


def test_the_sensitivity_changes_one_thing_at_a_time_and_puts_the_widest_first() -> None:
    found = tornado(case_of(**PUBLISHED), prices_of(), TUNED)
    assert [swing.what for swing in found][:3] == [
        "price of GPU hours",
        "trainings_a_year",
        "training_cost",
    ]
    gpus = found[0]
    assert (cents(gpus.low), cents(gpus.high)) == (Decimal("5899.33"), Decimal("7943.33"))  # 4,088 a quarter less, more
    assert "price of tokens read" not in {swing.what for swing in found}
    hosted = {swing.what: swing for swing in tornado(case_of(**PUBLISHED), prices_of(), HOSTED)}
    assert (cents(hosted["requests"].low), cents(hosted["requests"].high)) == (Decimal("8250.00"), Decimal("13750.00"))
    assert "price of GPU hours" not in hosted


def test_old_prices_are_warned_of_and_the_report_names_their_day() -> None:
    case, prices = case_of(draws=100), prices_of()
    weighed = weigh(case, prices, [])
    old = summarise(weighed, [], {}, "", date(2027, 1, 31))
    assert old.warnings[0].startswith("The prices are of 2026-11-01, 91 days old, more than 90: look them up")
    new = summarise(weighed, [], {}, "", date(2027, 1, 30))
    assert new.warnings == ()
    assert "the prices of 2026-11-01" in write_report(weighed, new)


@pytest.mark.parametrize(
    ("change", "said"),
    [
        ({"requests": 0}, "requests: Input should be greater than or equal to 1"),
        ({"weights": {"costs": 1}}, "weights.costs: unknown key; did you mean cost?"),
        ({"release": "helpdesk"}, "release: String should match pattern"),
    ],
)
def test_a_mistake_in_a_case_is_named_with_its_place(change: dict[str, Any], said: str) -> None:
    with pytest.raises(ConfigError) as caught:
        parse_config(settings_of(**change), CaseConfig, "here.yaml")
    assert said in str(caught.value)


def test_a_case_whose_weights_are_all_0_and_prices_of_one_name_are_refused() -> None:
    none = dict.fromkeys(case_of().weights.model_dump(), 0)
    with pytest.raises(ConfigError, match="every weight is 0: let at least one dimension count"):
        parse_config(settings_of(weights=none), CaseConfig, "here.yaml")
    gpus = [{"name": "h100", "hour": 1, "source": "a"}] * 2
    with pytest.raises(ConfigError, match="two prices are called h100"):
        parse_config(prices_of().model_dump() | {"gpus": gpus}, PricesConfig, "here.yaml")
