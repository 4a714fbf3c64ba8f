"""Retrieval scores of one index version, and the paired comparison of two, on the same golden queries."""

from collections.abc import Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING

import ir_measures
import numpy as np
from ir_measures import RR, R, nDCG

from tasks.evaluation.golden import GoldenQuery, document_of
from tasks.evaluation.statistics import Comparison, Estimate, compare_rows, estimate

if TYPE_CHECKING:
    from numpy.typing import NDArray

MEASURES = {"recall@1": R @ 1, "recall@5": R @ 5, "recall@10": R @ 10, "mrr": RR, "ndcg@10": nDCG @ 10}
METRICS = tuple(MEASURES)


@dataclass(frozen=True, slots=True)
class RetrievalScores:
    """How well one version answers the golden queries. All scores lie between 0 and 1; higher is better."""

    queries: tuple[str, ...]
    """Ids of the golden queries."""
    values: dict[str, tuple[float, ...]]
    """By metric, one value a query, in the order of `queries`."""
    means: dict[str, Estimate]
    """By metric, over all queries."""
    slices: dict[str, dict[str, Estimate]]
    """The same for each ``slice …`` and ``tenant …`` that the golden queries name."""
    confidence: float = 0.95
    """Of the intervals."""


def score(
    queries: Sequence[GoldenQuery],
    ranked: Sequence[Sequence[tuple[str, str]]],
    confidence: float = 0.95,
) -> RetrievalScores:
    """Scores ranked passages, given as (document id, passage id), best first; one list for each query.

    A document counts once, at its best passage's rank; where the golden query names passages of a document,
    that document's passages are ranked one by one instead. A list
    should reach ten documents deep; MRR looks at all of it. A query without results scores 0.
    """
    judged, found = [], []
    for query, passages in zip(queries, ranked, strict=True):
        # A passage adds nothing where its whole document is named too.
        named = set(query.relevant)
        relevant = {item for item in named if document_of(item) == item or document_of(item) not in named}
        by_passage = {document_of(item) for item in relevant} - relevant
        units = dict.fromkeys(passage if document in by_passage else document for document, passage in passages)
        judged += [ir_measures.Qrel(query.id, item, 1) for item in relevant]
        found += [ir_measures.ScoredDoc(query.id, unit, 1 / rank) for rank, unit in enumerate(units, start=1)]
    ids = tuple(query.id for query in queries)
    by_query: dict[tuple[str, str], float] = {}
    names = {measure: name for name, measure in MEASURES.items()}
    for value in ir_measures.pytrec_eval.iter_calc(list(names), judged, found):
        by_query[names[value.measure], value.query_id] = value.value
    values = {name: tuple(by_query[name, id] for id in ids) for name in METRICS}

    groups: dict[str, list[int]] = {}
    for position, query in enumerate(queries):
        for kind, group in (("slice", query.slice), ("tenant", query.tenant)):
            if group:
                groups.setdefault(f"{kind} {group}", []).append(position)
    table = np.array([values[name] for name in METRICS])
    return RetrievalScores(
        queries=ids,
        values=values,
        means=_estimates(table, confidence),
        slices={group: _estimates(table[:, rows], confidence) for group, rows in sorted(groups.items())},
        confidence=confidence,
    )


def compare(
    candidate: RetrievalScores, champion: RetrievalScores, metric: str = "ndcg@10", confidence: float = 0.95
) -> Comparison:
    """Pairs two versions query by query, on those that both answered.

    Raises:
        ValueError: the two share no query.
    """
    ours = dict(zip(candidate.queries, candidate.values[metric], strict=True))
    theirs = dict(zip(champion.queries, champion.values[metric], strict=True))
    shared = [id for id in ours if id in theirs]
    if not shared:
        raise ValueError("candidate and champion were scored on different queries: score both on the same golden file")
    return compare_rows(metric, shared, [ours[id] for id in shared], [theirs[id] for id in shared], confidence)


def _estimates(table: "NDArray[np.float64]", confidence: float) -> dict[str, Estimate]:
    return {name: estimate(row, confidence) for name, row in zip(METRICS, table, strict=True)}
