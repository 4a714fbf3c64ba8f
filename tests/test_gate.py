"""The gate: what never passes, what is held, and how well a loss is told from noise."""

import functools
import math
from dataclasses import replace
from typing import Any, Literal

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from tasks.config.index import GateConfig
from tasks.evaluation.gate import decide
from tasks.evaluation.retrieval import METRICS, RetrievalScores, compare
from tasks.evaluation.statistics import Estimate, estimate
from tasks.records import Verdict

Promote = Literal["auto", "ask", "never"]


def scores_of(values: "np.ndarray[Any, Any]") -> RetrievalScores:
    """The same value by query for every metric."""
    mean = estimate(values)
    return RetrievalScores(
        queries=tuple(f"q{n}" for n in range(len(values))),
        values=dict.fromkeys(METRICS, tuple(values.tolist())),
        means=dict.fromkeys(METRICS, mean),
        slices={},
    )


GOOD = scores_of(np.array([1.0, 0.5, 1.0, 0.0] * 25))


def verdict(scores: RetrievalScores | None = GOOD, beside: RetrievalScores | None = None, **changes: Any) -> Verdict:
    arguments: dict[str, Any] = {
        "gate": GateConfig(),
        "promote": "auto",
        "golden": "golden.jsonl",
        "scores": scores,
        "champion": 3 if beside else None,
        "comparison": compare(scores, beside) if scores and beside else None,
        "documents": 30,
        "passages": 100,
        "quarantined": 0,
    }
    return decide(**arguments | changes)


def test_a_first_version_with_good_scores_passes_and_says_why() -> None:
    found = verdict()
    assert found.decision == "promote"
    assert found.reasons[0].startswith("ndcg@10 0.625 (95% interval 0.5")
    assert "no champion" in found.reasons[1]


@pytest.mark.parametrize(
    ("changes", "reason"),
    [
        ({"passages": 0}, "The index is empty: 30 documents gave no passage."),
        ({"quarantined": 2}, "2 of 30 files could not be converted; at most 5.0% may"),
        ({"documents": 0, "quarantined": 1}, "1 of 0 files"),
        ({"scores": None}, "gave no complete scores"),
        ({"gate": GateConfig(min_queries=101)}, "100 golden queries are too few to judge by; at least 101"),
        ({"gate": GateConfig(floors={"mrr": 0.7})}, "mrr 0.625 is below its floor of 0.700"),
        ({"index_problems": ["7 rows are not in the vector index."]}, "7 rows are not in the vector index."),
    ],
)
def test_what_speaks_against_a_version_rejects_it_with_the_numbers(changes: dict[str, Any], reason: str) -> None:
    found = verdict(**changes)
    assert found.decision == "reject"
    assert reason in found.reasons[0]


@pytest.mark.parametrize(
    ("changes", "reason"),
    [
        ({"held": "Ada rolled back to 2."}, "The model is held: Ada rolled back to 2."),
        ({"safety": ["40 of 100 documents are gone."]}, "40 of 100 documents are gone."),
        ({"scores": None, "golden": None}, "There are no golden queries"),
        ({"champion": 3, "comparison": None}, "The champion, version 3, could not be scored"),
    ],
)
def test_what_asks_for_a_person_holds_a_version(changes: dict[str, Any], reason: str) -> None:
    found = verdict(**changes)
    assert found.decision == "hold"
    assert reason in found.reasons[0]


@pytest.mark.parametrize(
    ("promote", "reason"), [("ask", "waits as candidate for a person's approval"), ("never", "is only registered")]
)
def test_a_version_that_passes_and_may_not_go_live_at_once_says_so_first(promote: Promote, reason: str) -> None:
    found = verdict(promote=promote)
    assert (found.decision, found.promote) == ("promote", promote)
    assert reason in found.reasons[0]


def test_what_rejects_outweighs_what_holds_and_both_are_told() -> None:
    found = verdict(passages=0, held="Ada said so.")
    assert found.decision == "reject"
    assert "empty" in found.reasons[0]
    assert "Ada" in found.reasons[1]


def with_losses(*lost: float, queries: int = 100) -> tuple[RetrievalScores, RetrievalScores]:
    """Candidate and champion: the champion has 1 everywhere, the candidate less on the first queries."""
    values = np.ones(queries)
    values[: len(lost)] -= lost
    return scores_of(values), scores_of(np.ones(queries))


def test_a_loss_that_is_no_noise_is_rejected_with_both_numbers() -> None:
    found = verdict(*with_losses(*[1.0] * 8))
    assert found.decision == "reject"
    assert "ndcg@10 0.920, champion (version 3) 1.000; difference -0.080, 95% interval -0.1" in found.reasons[0]
    assert "p 0.008, 100 queries" in found.reasons[0]


def test_a_loss_that_may_be_noise_is_for_a_person() -> None:
    found = verdict(*with_losses(*[1.0] * 4))  # p = 2/16
    assert found.decision == "hold"
    assert "may be noise" in found.reasons[0]


def test_one_lost_query_blocks_nothing_and_is_named() -> None:
    found = verdict(*with_losses(1.0, queries=20))
    assert found.decision == "promote"
    assert "hangs on one query (q0: 1.000 to 0.000)" in found.reasons[1]


def test_a_proven_loss_within_the_tolerated_is_reported_and_passes() -> None:
    found = verdict(*with_losses(*[0.1] * 10))
    assert found.decision == "promote"
    assert "A loss, but within the tolerated 0.020" in found.reasons[1]


def test_too_few_shared_queries_are_no_comparison() -> None:
    champion = scores_of(np.ones(10))
    assert verdict(scores_of(np.ones(100)), champion).decision == "reject"


outcomes = st.lists(st.sampled_from([0.0, 1 / 3, 0.5, 0.63, 1.0]), min_size=20, max_size=60).map(np.array)


@settings(max_examples=25, deadline=None)
@given(outcomes)
def test_an_identical_candidate_is_never_stopped_for_loss(values: "np.ndarray[Any, Any]") -> None:
    scores = scores_of(values)
    assert verdict(scores, scores).decision == "promote"


@settings(max_examples=60, deadline=None)
@given(st.data())
def test_nan_anywhere_never_promotes(data: st.DataObject) -> None:
    scores: Any = GOOD
    comparison: Any = compare(GOOD, GOOD)
    place = data.draw(
        st.sampled_from(["value", "mean", "low", "high", "gone", "difference", "p_value", "without_worst", "other"])
    )
    bad = data.draw(st.sampled_from([math.nan, math.inf, -math.inf]))
    metric = data.draw(st.sampled_from(METRICS))
    if place == "value":
        scores = replace(scores, values=scores.values | {metric: (bad, *scores.values[metric][1:])})
    elif place == "gone":
        scores = replace(scores, means={name: mean for name, mean in scores.means.items() if name != metric})
    elif place in ("mean", "low", "high"):
        scores = replace(scores, means=scores.means | {metric: replace(scores.means[metric], **{place: bad})})
    elif place == "difference":
        comparison = replace(comparison, difference=Estimate(bad, 0.0, 0.0, 100))
    else:
        comparison = replace(comparison, **{place: bad})
    assert verdict(scores, champion=3, comparison=comparison).decision == "reject"


@functools.cache
def simulate(loss: float, changed: float, nights: int = 100, queries: int = 100) -> dict[str, float]:
    """Shares of decisions when this share of queries changes at random and the mean score falls by ``loss``.

    Outcomes are reciprocal ranks; a true loss sets answered queries to 0.
    """
    rng = np.random.default_rng(7)
    decisions = []
    for _ in range(nights):
        outcomes = rng.choice([1.0, 0.5, 1 / 3, 0.0], p=[0.6, 0.2, 0.1, 0.1], size=(2, queries))
        champion = outcomes[0]
        candidate = np.where(rng.random(queries) < changed, outcomes[1], champion)
        candidate = np.where(rng.random(queries) < loss / 0.733, 0.0, candidate)  # 0.733 is the mean of the outcomes
        decisions.append(verdict(scores_of(candidate), scores_of(champion)).decision)
    return {name: decisions.count(name) / nights for name in ("promote", "hold", "reject")}


@pytest.mark.parametrize("changed", [0.05, 0.5])
def test_noise_is_rejected_less_than_one_night_in_twenty(changed: float) -> None:
    assert simulate(loss=0, changed=changed)["reject"] < 0.05


def test_ordinary_noise_does_not_call_a_person_either() -> None:
    assert simulate(loss=0, changed=0.05)["promote"] > 0.9


@pytest.mark.parametrize("changed", [0.05, 0.5])
def test_a_real_loss_is_rejected(changed: float) -> None:
    found = simulate(loss=0.15, changed=changed)
    assert found["reject"] > 0.9
    assert found["promote"] < 0.02
