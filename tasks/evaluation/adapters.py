"""The gate of adapters: scores of the contenders in, a verdict with its reasons as sentences out.

An adapter costs memory, time and care, so it has to be shown to be better than its base model: a difference that
may be chance rejects it, and more held-out rows are the remedy. Against the champion, and against the base on what
is not the task (forgetting), a loss is judged as for an index, and for the same reasons: see `tasks.evaluation.gate`.
"""

from collections.abc import Mapping

from tasks.config.training import AdapterGateConfig
from tasks.evaluation.contenders import judge_champion, not_numbers, too_low
from tasks.evaluation.gate import (
    Decision,
    Promote,
    Words,
    conclude,
    is_finite,
    judge_loss,
    say_comparison,
    say_held,
    say_value,
)
from tasks.evaluation.scores import (
    BASE,
    CANDIDATE,
    CHAMPION,
    GENERAL_ACCURACY,
    GENERAL_LOSS,
    SUITE,
    Score,
    compare_scores,
)
from tasks.records import Verdict

ROWS = Words("loss", "held-out row", "held-out rows")
TEXTS = Words("rise of cross-entropy on general text", "text", "texts")
QUESTIONS = Words("loss of accuracy on general questions", "question", "questions")


def decide_adapter(
    *,
    gate: AdapterGateConfig,
    promote: Promote,
    compared: str,
    contenders: Mapping[str, Mapping[str, Score]],
    champion: int | None,
    held: str | None = None,
) -> Verdict:
    """Whether a new adapter goes live.

    Args:
        gate: thresholds.
        promote: what the configuration does with an adapter that passes; it changes no verdict.
        compared: the score that must beat the base and not lose against the champion.
        contenders: by contender (`CANDIDATE`, `BASE`, `CHAMPION`), then by score; without an entry where scoring
            failed. `GENERAL_LOSS` and `GENERAL_ACCURACY` of candidate and base tell what was forgotten.
        champion: number of the live version; None for the first.
        held: the reason of a hold that stands against the model, if any.

    Returns:
        ``reject`` if anything speaks against the adapter, else ``hold`` if anything asks for a person, else
        ``promote``. The reasons begin with what decided.
    """
    # A score over no rows is none.
    by_name = {who: {name: score for name, score in of.items() if score.rows} for who, of in contenders.items()}
    scores, base, theirs = (by_name.get(who, {}) for who in (CANDIDATE, BASE, CHAMPION))
    against = [*not_numbers(scores), *too_low(scores, compared, gate, ROWS, "adapter")]
    found: dict[Decision, list[str]] = {"reject": against, "hold": [*say_held(held)], "promote": []}
    if compared in scores:
        ours = scores[compared]
        found["promote"].append(say_value(compared, ours.estimate, ours.confidence, ROWS.many))
        for decision, sentence in (
            _judge_base(ours, base.get(compared), gate),
            judge_champion(ours, theirs.get(compared), champion, gate, ROWS),
        ):
            found[decision].append(sentence)
    allowances = {GENERAL_LOSS: gate.max_forgotten, GENERAL_ACCURACY: gate.max_general_loss}
    suites = {name: gate.max_general_loss for name in base if name.startswith(SUITE)}
    for name, allowed in (allowances | suites).items():
        decision, sentence = _judge_forgetting(scores.get(name), base.get(name), name, allowed, gate)
        found[decision].append(sentence)
    return conclude(found["reject"], found["hold"], found["promote"], promote)


def _judge_base(ours: Score, base: Score | None, gate: AdapterGateConfig) -> tuple[Decision, str]:
    if base is None:
        return "hold", "The base model could not be scored beside it."
    comparison = compare_scores(ours, base, gate.confidence)
    if not is_finite(comparison):
        return "reject", f"The comparison of {ours.name} with the base gave no number."
    numbers = say_comparison(comparison, "base", ROWS)
    if comparison.worse_by >= 0:
        return "reject", f"No better than the base model: {numbers}."
    if not comparison.proven:
        return "reject", f"Better than the base model, but it may be noise: {numbers}."
    return "promote", f"Better than the base model: {numbers}."


def _judge_forgetting(
    ours: Score | None, base: Score | None, name: str, allowed: float, gate: AdapterGateConfig
) -> tuple[Decision, str]:
    if ours is None or base is None:
        return "hold", f"{name} was not scored for adapter and base, so nothing says how much the adapter forgets."
    words = TEXTS if name == GENERAL_LOSS else QUESTIONS
    return judge_loss(compare_scores(ours, base, gate.confidence), "base", allowed, words)
