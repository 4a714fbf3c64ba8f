"""Retrieval metrics checked by hand, their intervals, and the paired comparison."""

import math
import time
import warnings

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from tasks.evaluation.golden import GoldenQuery
from tasks.evaluation.report import plot_scores, scores_table
from tasks.evaluation.retrieval import METRICS, RetrievalScores, compare, score
from tasks.evaluation.statistics import estimate


def golden(id: str, *relevant: str, tenant: str | None = None, slice: str | None = None) -> GoldenQuery:
    return GoldenQuery(query=id, relevant=relevant, id=id, tenant=tenant, slice=slice)


def hits(*passages: str) -> list[tuple[str, str]]:
    return [(passage.rpartition("#")[0], passage) for passage in passages]


def value(scores: RetrievalScores, metric: str) -> float:
    return scores.means[metric].mean


def test_a_document_counts_once_at_its_best_passage() -> None:
    scores = score([golden("q", "b")], [hits("a#0", "a#1", "a#2", "b#5", "b#0")])
    assert value(scores, "recall@1") == 0
    assert value(scores, "recall@5") == 1
    assert value(scores, "mrr") == 1 / 2
    assert value(scores, "ndcg@10") == pytest.approx(1 / math.log2(3))


def test_relevant_passages_are_ranked_one_by_one() -> None:
    scores = score([golden("q", "a#2")], [hits("b#0", "b#1", "a#0", "a#2")])
    assert value(scores, "mrr") == 1 / 3  # b once, a#0, a#2


def test_a_passage_beside_its_own_document_adds_nothing() -> None:
    scores = score([golden("q", "a", "a#2")], [hits("a#2")])
    assert value(scores, "recall@1") == 1


def test_several_relevant_documents_share_the_recall() -> None:
    scores = score([golden("q", "a", "b")], [hits("a#0", "c#0", "b#0")])
    assert value(scores, "recall@1") == 1 / 2
    assert value(scores, "recall@5") == 1
    ideal = 1 + 1 / math.log2(3)
    assert value(scores, "ndcg@10") == pytest.approx((1 + 1 / math.log2(4)) / ideal)


def test_queries_without_results_or_with_names_in_any_script_score_as_others() -> None:
    scores = score([golden("q 1", "ä ö/文.md"), golden("q 2", "x")], [hits("ä ö/文.md#0"), []])
    assert scores.values["ndcg@10"] == (1.0, 0.0)
    assert score([golden("q", "x")], [[]]).values["mrr"] == (0.0,)


def test_scores_come_by_slice_and_by_tenant() -> None:
    queries = [
        golden("1", "a", tenant="north", slice="howto"),
        golden("2", "b", tenant="north"),
        golden("3", "c", slice="howto"),
    ]
    scores = score(queries, [hits("a#0"), hits("z#0"), hits("z#0")])
    assert set(scores.slices) == {"slice howto", "tenant north"}
    assert scores.slices["slice howto"]["recall@1"].mean == 1 / 2
    assert scores.slices["tenant north"]["mrr"].count == 2


def test_every_query_needs_its_list() -> None:
    with pytest.raises(ValueError, match="shorter"):
        score([golden("1", "a"), golden("2", "b")], [hits("a#0")])


@settings(max_examples=40, deadline=None)
@given(st.lists(st.floats(0, 1), min_size=1, max_size=30))
def test_an_interval_is_never_nan_and_holds_the_mean(values: list[float]) -> None:
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        found = estimate(np.array(values))
    assert found.low - 1e-9 <= found.mean <= found.high + 1e-9
    assert found.low >= 0
    assert found.high <= 1


def test_an_interval_covers_the_true_mean_about_as_often_as_it_says() -> None:
    rng = np.random.default_rng(1)
    samples = rng.beta(4, 1, size=(200, 80))
    covered = [found.low <= 0.8 <= found.high for found in map(estimate, samples)]
    assert 0.90 <= np.mean(covered) <= 0.99


def ranked_at(rank: int) -> list[tuple[str, str]]:
    """A list that has the relevant document ``a`` at this rank."""
    return hits(*[f"z{n}#0" for n in range(rank - 1)], "a#0")


def test_versions_are_paired_by_query_whatever_the_order() -> None:
    queries = [golden(str(n), "a") for n in range(4)]
    ours = score(queries, [ranked_at(rank) for rank in (1, 2, 1, 1)])
    theirs = score(queries[::-1], [ranked_at(rank) for rank in (1, 2, 1, 1)])
    found = compare(ours, theirs, "mrr")
    assert found.difference.mean == 0
    assert found.worst == (("1", 1.0, 0.5),)
    assert found.candidate == found.other == 3.5 / 4


def test_the_randomisation_test_is_exact_for_few_changes() -> None:
    queries = [golden(str(n), "a") for n in range(30)]
    before = score(queries, [ranked_at(1)] * 30)
    after = score(queries, [ranked_at(2)] * 4 + [ranked_at(1)] * 26)
    assert compare(after, before, "mrr").p_value == pytest.approx(2 / 2**4)
    assert compare(before, before, "mrr").p_value == 1
    assert compare(after, before, "mrr").without_worst == pytest.approx(-0.5 * 3 / 29)


def test_versions_scored_on_different_queries_cannot_be_compared() -> None:
    with pytest.raises(ValueError, match="same golden file"):
        compare(score([golden("1", "a")], [[]]), score([golden("2", "a")], [[]]))


def test_a_thousand_queries_are_scored_and_compared_in_two_seconds() -> None:
    rng = np.random.default_rng(0)
    queries = [golden(str(n), "a", tenant=f"t{n % 4}", slice=f"s{n % 5}") for n in range(1000)]
    lists = [[ranked_at(int(rank)) for rank in rng.integers(1, 12, size=1000)] for _ in range(2)]
    score(queries[:2], lists[0][:2])  # imports
    start = time.process_time()
    ours, theirs = (score(queries, ranked) for ranked in lists)
    compare(ours, theirs)
    # Three runs' work: each side once and the comparison. Thrice the promised time, for a busy machine.
    assert time.process_time() - start < 6


def test_the_table_shows_both_versions_and_their_difference() -> None:
    queries = [golden(str(n), "a", slice="howto") for n in range(4)]
    ours, theirs = (score(queries, [ranked_at(rank)] * 4) for rank in (2, 1))
    rows = scores_table(ours, theirs)
    assert [row["metric"] for row in rows] == [*METRICS, *METRICS]
    assert rows[3] == {
        "group": "all",
        "queries": "4",
        "metric": "mrr",
        "candidate": "0.500",
        "interval": "0.500 to 0.500",
        "champion": "1.000",
        "difference": "-0.500",
        "difference interval": "-0.500 to -0.500",
    }
    assert rows[8]["group"] == "slice howto"
    assert "champion" not in scores_table(ours)[0]


def test_the_picture_has_a_bar_for_each_metric_and_version() -> None:
    scores = score([golden(str(n), "a") for n in range(3)], [ranked_at(rank) for rank in (1, 2, 3)])
    assert len(plot_scores(scores, scores).axes[0].patches) == 2 * len(METRICS)
    assert len(plot_scores(scores).axes[0].patches) == len(METRICS)
