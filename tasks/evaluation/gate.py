"""The gate: scores and counts in, a verdict with its reasons as sentences out.

When does a loss against the champion count? Two plain answers fail. To demand proof that no more than
``max_loss`` was lost (lower end of the interval above it) blocks four harmless versions in ten, with 100
queries of which 5 % jitter. To demand proof that more was lost (upper end below it) lets twice the tolerated
loss through more than eight times in ten. So two conditions are kept apart. The measured mean loss must
exceed ``max_loss``, which says that it matters, and then

- the version is rejected if the paired randomisation test shows, at the confidence, that it is no chance;
- it is held for a person if that cannot be shown, but the loss does not hang on a single query either;
- it passes, and the query is named, if the loss hangs on a single query.

Small true losses below ``max_loss`` pass each night and could add up: floors are what stops that.
"""

import math
from collections.abc import Iterator, Sequence
from typing import Literal

from tasks.config.index import GateConfig
from tasks.evaluation.retrieval import METRICS, Comparison, Estimate, RetrievalScores
from tasks.records import Verdict

NOT_AT_ONCE = {
    "auto": (),
    "ask": ("It passes, and waits as candidate for a person's approval (promote: ask).",),
    "never": ("It passes, and is only registered (promote: never).",),
}


def decide(
    *,
    gate: GateConfig,
    promote: Literal["auto", "ask", "never"],
    golden: str | None,
    scores: RetrievalScores | None,
    champion: int | None,
    comparison: Comparison | None,
    documents: int,
    passages: int,
    quarantined: int,
    index_problems: Sequence[str] = (),
    safety: Sequence[str] = (),
    held: str | None = None,
) -> Verdict:
    """Whether a new version goes live.

    Args:
        gate: thresholds.
        promote: what the configuration does with a version that passes; it changes no verdict.
        golden: the configured golden file; None where there is none.
        scores: None where scoring failed, or there is no golden file.
        champion: number of the live version; None for the first.
        comparison: None where there is no champion, or it could not be scored.
        documents: files that the sources list, quarantined ones included.
        passages: in the index.
        quarantined: files that could not be converted.
        index_problems: sentences that speak against the index itself, such as un-indexed rows. They reject.
        safety: sentences that ask for a person, such as a mass deletion. They hold.
        held: the reason of a hold that stands against the model, if any.

    Returns:
        ``reject`` if anything speaks against the version, else ``hold`` if anything asks for a person, else
        ``promote``. The reasons begin with what decided.
    """
    against = [*_counts(gate, documents, passages, quarantined), *index_problems]
    asking = [*safety, *_asking(golden, held)]
    fine = []
    if golden and (scores is None or not _is_whole(scores)):
        against.append(
            f"The golden queries of {golden} gave no complete scores; a version without scores never passes."
        )
    elif scores is not None:
        against += _too_low(scores, gate)
        fine.append(_state(gate.metric, scores))
        decision, sentence = _judge_loss(champion, comparison, gate)
        {"reject": against, "hold": asking, "promote": fine}[decision].append(sentence)
    if against:
        return Verdict("reject", (*against, *asking, *fine), promote)
    if asking:
        return Verdict("hold", (*asking, *fine), promote)
    return Verdict("promote", (*NOT_AT_ONCE[promote], *fine), promote)


def _counts(gate: GateConfig, documents: int, passages: int, quarantined: int) -> Iterator[str]:
    if passages == 0:
        yield f"The index is empty: {documents} documents gave no passage."
    if quarantined > gate.max_quarantined * documents:
        yield (
            f"{quarantined} of {documents} files could not be converted; "
            f"at most {gate.max_quarantined:.1%} may (max_quarantined)."
        )


def _asking(golden: str | None, held: str | None) -> Iterator[str]:
    if held:
        yield f"The model is held: {held}"
    if not golden:
        yield (
            "There are no golden queries, so nothing says whether this version is any good: draft some with "
            "`tandem golden draft`, edit them, and name the file under `golden`."
        )


def _is_whole(scores: RetrievalScores) -> bool:
    """Every metric is there, and no number among them is NaN."""
    numbers = [
        number
        for metric in METRICS
        for number in (*scores.values.get(metric, (math.nan,)), *_numbers(scores.means.get(metric)))
    ]
    return all(math.isfinite(number) for number in numbers)


def _numbers(estimate: Estimate | None) -> tuple[float, ...]:
    return (estimate.mean, estimate.low, estimate.high) if estimate else (math.nan,)


def _too_low(scores: RetrievalScores, gate: GateConfig) -> Iterator[str]:
    if len(scores.queries) < gate.min_queries:
        yield (
            f"{len(scores.queries)} golden queries are too few to judge by; at least {gate.min_queries} are "
            "needed (min_queries)."
        )
    for metric, floor in gate.floors.items():
        if scores.means[metric].mean < floor:
            yield f"{metric} {scores.means[metric].mean:.3f} is below its floor of {floor:.3f}."


def _judge_loss(
    champion: int | None, comparison: Comparison | None, gate: GateConfig
) -> tuple[Literal["promote", "hold", "reject"], str]:
    if champion is None:
        return "promote", "There is no champion to compare with."
    if comparison is None:
        return "hold", f"The champion, version {champion}, could not be scored beside it."
    difference = comparison.difference
    found = (comparison.candidate, comparison.champion, comparison.p_value, comparison.without_worst)
    if not all(map(math.isfinite, (*_numbers(difference), *found))):
        return "reject", f"The comparison with the champion, version {champion}, gave no number."
    p_value = f"{comparison.p_value:.3f}" if comparison.p_value >= 0.001 else "below 0.001"
    numbers = (
        f"{comparison.metric} {comparison.candidate:.3f}, "
        f"champion (version {champion}) {comparison.champion:.3f}; "
        f"difference {difference.mean:+.3f}, {comparison.confidence:.0%} interval {difference.low:+.3f} to "
        f"{difference.high:+.3f}, p {p_value}, {difference.queries} queries"
    )
    matters = -difference.mean > gate.max_loss
    proven = difference.mean < 0 and comparison.p_value <= 1 - gate.confidence
    if difference.queries < gate.min_queries:
        return "reject", f"Too few queries for both versions (min_queries {gate.min_queries}): {numbers}."
    if matters and proven:
        return "reject", f"A loss of more than {gate.max_loss:.3f} that is no noise: {numbers}."
    if matters and -comparison.without_worst > gate.max_loss:
        return "hold", f"A loss of more than {gate.max_loss:.3f} that may be noise: {numbers}."
    if matters:
        query, before, after = comparison.worst[0]
        return "promote", f"The loss hangs on one query ({query}: {before:.3f} to {after:.3f}): {numbers}."
    if proven:
        return "promote", f"A loss, but within the tolerated {gate.max_loss:.3f}: {numbers}."
    return "promote", f"No loss beyond noise: {numbers}."


def _state(metric: str, scores: RetrievalScores) -> str:
    mean = scores.means[metric]
    return (
        f"{metric} {mean.mean:.3f} ({scores.confidence:.0%} interval {mean.low:.3f} to {mean.high:.3f}, "
        f"{mean.queries} queries)."
    )
