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
from typing import Literal, NamedTuple

from tasks.config.index import GateConfig
from tasks.evaluation.retrieval import METRICS, RetrievalScores
from tasks.evaluation.statistics import Comparison, Estimate, say_interval
from tasks.records import Verdict

Decision = Literal["promote", "hold", "reject"]
Promote = Literal["auto", "ask", "never"]

NOT_AT_ONCE = {
    "auto": (),
    "ask": ("It passes, and waits as candidate for a person's approval (promote: ask).",),
    "never": ("It passes, and is only registered (promote: never).",),
}


class Words(NamedTuple):
    """What a comparison is about, for its sentences."""

    loss: str = "loss"
    one: str = "query"
    many: str = "queries"


def decide(
    *,
    gate: GateConfig,
    promote: Promote,
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
    asking = [*safety, *say_held(held), *_asking(golden)]
    fine = []
    if golden and (scores is None or not _is_whole(scores)):
        against.append(
            f"The golden queries of {golden} gave no complete scores; a version without scores never passes."
        )
    elif scores is not None:
        against += _too_low(scores, gate)
        fine.append(say_value(gate.metric, scores.means[gate.metric], scores.confidence))
        decision, sentence = _judge_champion(champion, comparison, gate)
        {"reject": against, "hold": asking, "promote": fine}[decision].append(sentence)
    return conclude(against, asking, fine, promote)


def conclude(against: Sequence[str], asking: Sequence[str], fine: Sequence[str], promote: Promote) -> Verdict:
    """The verdict: what speaks against a version outweighs what asks for a person, and that what is fine."""
    if against:
        return Verdict("reject", (*against, *asking, *fine), promote)
    if asking:
        return Verdict("hold", (*asking, *fine), promote)
    return Verdict("promote", (*NOT_AT_ONCE[promote], *fine), promote)


def judge_loss(comparison: Comparison, other: str, max_loss: float, words: Words = Words()) -> tuple[Decision, str]:
    """Whether the candidate is so much worse than another that it counts, and the sentence that says so.

    Args:
        comparison: with the other; one that is not a number rejects.
        other: what it is called, such as ``champion (version 3)``.
        max_loss: difference for the worse that is tolerated, in the metric's unit.
        words: what the comparison is about.
    """
    if not is_finite(comparison):
        return "reject", f"The comparison of {comparison.metric} with the {other} gave no number."
    numbers = say_comparison(comparison, other, words)
    matters = comparison.worse_by > max_loss
    proven = comparison.worse_by > 0 and comparison.proven
    if matters and proven:
        return "reject", f"A {words.loss} of more than {max_loss:.3f} that is no noise: {numbers}."
    if matters and comparison.worse_without_worst > max_loss:
        return "hold", f"A {words.loss} of more than {max_loss:.3f} that may be noise: {numbers}."
    if matters:
        row, before, after = comparison.worst[0]
        return "promote", f"The {words.loss} hangs on one {words.one} ({row}: {before:.3f} to {after:.3f}): {numbers}."
    if proven:
        return "promote", f"A {words.loss}, but within the tolerated {max_loss:.3f}: {numbers}."
    if comparison.proven:
        return "promote", f"Better, and it is no noise: {numbers}."
    return "promote", f"No {words.loss} beyond noise: {numbers}."


def is_finite(comparison: Comparison) -> bool:
    """No number of the comparison is NaN or infinite."""
    found = (comparison.candidate, comparison.other, comparison.p_value, comparison.without_worst)
    return all(map(math.isfinite, (*numbers_of(comparison.difference), *found)))


def numbers_of(estimate: Estimate | None) -> tuple[float, float, float]:
    """Value and interval; NaN where there is no estimate."""
    return (estimate.mean, estimate.low, estimate.high) if estimate else (math.nan, math.nan, math.nan)


def say_comparison(comparison: Comparison, other: str, words: Words) -> str:
    """Both values, their difference, and how sure it is."""
    difference = comparison.difference
    return (
        f"{comparison.metric} {comparison.candidate:.3f}, {other} {comparison.other:.3f}; "
        f"difference {difference.mean:+.3f}, {comparison.confidence:.0%} interval {say_interval(difference, '+')}, "
        f"p {say_p_value(comparison)}, {difference.count} {words.many}"
    )


def say_p_value(comparison: Comparison) -> str:
    return "below 0.001" if comparison.p_value < 0.001 else f"{comparison.p_value:.3f}"


def say_value(metric: str, value: Estimate, confidence: float, many: str = "queries") -> str:
    return f"{metric} {value.mean:.3f} ({confidence:.0%} interval {say_interval(value)}, {value.count} {many})."


def say_held(held: str | None) -> Iterator[str]:
    if held:
        yield f"The model is held: {held}"


def _counts(gate: GateConfig, documents: int, passages: int, quarantined: int) -> Iterator[str]:
    if passages == 0:
        yield f"The index is empty: {documents} documents gave no passage."
    if quarantined > gate.max_quarantined * documents:
        yield (
            f"{quarantined} of {documents} files could not be converted; "
            f"at most {gate.max_quarantined:.1%} may (max_quarantined)."
        )


def _asking(golden: str | None) -> Iterator[str]:
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
        for number in (*scores.values.get(metric, (math.nan,)), *numbers_of(scores.means.get(metric)))
    ]
    return all(math.isfinite(number) for number in numbers)


def _too_low(scores: RetrievalScores, gate: GateConfig) -> Iterator[str]:
    if len(scores.queries) < gate.min_queries:
        yield (
            f"{len(scores.queries)} golden queries are too few to judge by; at least {gate.min_queries} are "
            "needed (min_queries)."
        )
    for metric, floor in gate.floors.items():
        if scores.means[metric].mean < floor:
            yield f"{metric} {scores.means[metric].mean:.3f} is below its floor of {floor:.3f}."


def _judge_champion(champion: int | None, comparison: Comparison | None, gate: GateConfig) -> tuple[Decision, str]:
    if champion is None:
        return "promote", "There is no champion to compare with."
    if comparison is None:
        return "hold", f"The champion, version {champion}, could not be scored beside it."
    other = f"champion (version {champion})"
    if comparison.difference.count < gate.min_queries:
        numbers = say_comparison(comparison, other, Words())
        return "reject", f"Too few queries for both versions (min_queries {gate.min_queries}): {numbers}."
    return judge_loss(comparison, other, gate.max_loss)
