"""Scores of a release over golden queries, and the gate of releases.

Every query is asked twice: with all passages, and with none of the documents that answer it. The first should be
answered from a right document, the second refused. So one file of golden queries measures both.
"""

from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass

from tasks.config.answering import ReleaseGateConfig
from tasks.evaluation.contenders import judge_champion, not_numbers, too_low
from tasks.evaluation.gate import Decision, Promote, Words, conclude, say_held, say_value
from tasks.evaluation.golden import GoldenQuery, document_of
from tasks.evaluation.scores import CANDIDATE, CHAMPION, Score, make_score
from tasks.records import Answer, Passage, Verdict

RIGHT = "right"
"""Share of the questions that were answered citing a right document, or rightly refused."""
ANSWERED = "answered"
"""Share of the questions with an answer that were answered."""
CITATION_PRECISION = "citation_precision"
"""Share of the cited passages that belong to a right document."""
GROUNDED = "grounded"
"""Share of the sentences of an answer that cite a passage."""
REFUSAL_PRECISION = "refusal_precision"
"""Share of the refusals that were right."""
REFUSAL_RECALL = "refusal_recall"
"""Share of the questions without an answer that were refused."""
QUESTIONS = Words("loss", "question", "questions")


@dataclass(frozen=True, slots=True)
class Case:
    """One question as it was asked, and what was answered."""

    query: GoldenQuery
    answerable: bool
    answer: Answer

    @property
    def id(self) -> str:
        return self.query.id if self.answerable else f"{self.query.id} without its documents"

    @property
    def right(self) -> bool:
        if not self.answerable:
            return self.answer.refused
        return any(is_relevant(passage, self.query) for passage in self.answer.cited)


def is_relevant(passage: Passage, query: GoldenQuery) -> bool:
    """Whether the passage, or all of its document, answers the query."""
    return any(passage.id == wanted or passage.document == document_of(wanted) for wanted in query.relevant)


def score_cases(cases: Sequence[Case], confidence: float) -> dict[str, Score]:
    """Every score that the cases come to; one that concerns no case has no rows."""
    answered = [case for case in cases if case.answer.sentences]
    refused = [case for case in cases if case.answer.refused]
    with_answer = [case for case in cases if case.answerable]
    without = [case for case in cases if not case.answerable]

    def score(name: str, of: Sequence[Case], values: Sequence[float]) -> Score:
        return make_score(name, [case.id for case in of], values, None, confidence)

    found = [
        score(RIGHT, cases, [float(case.right) for case in cases]),
        score(ANSWERED, with_answer, [float(not case.answer.refused) for case in with_answer]),
        score(CITATION_PRECISION, answered, [_share(case.answer.cited, case) for case in answered]),
        score(GROUNDED, answered, [grounded(case.answer) for case in answered]),
        score(REFUSAL_PRECISION, refused, [float(not case.answerable) for case in refused]),
        score(REFUSAL_RECALL, without, [float(case.answer.refused) for case in without]),
    ]
    return {each.name: each for each in found}


def _share(cited: Sequence[Passage], case: Case) -> float:
    if not case.answerable or not cited:
        return 0.0
    return sum(is_relevant(passage, case.query) for passage in cited) / len(cited)


def grounded(answer: Answer) -> float:
    """The share of its sentences that cite a passage; of one that was not refused."""
    return sum(bool(sentence.cited) for sentence in answer.sentences) / len(answer.sentences)


def decide_release(
    gate: ReleaseGateConfig,
    promote: Promote,
    contenders: Mapping[str, Mapping[str, Score]],
    champion: int | None,
    held: str | None = None,
    guardrails: Iterable[tuple[Decision, str]] = (),
    brought_back: str | None = None,
) -> Verdict:
    """Whether a release goes live.

    One with a part that a person rolled back must keep its floors and is not measured against the live one, whose part
    that person took out.

    Args:
        gate: thresholds.
        promote: what the configuration does with a release that passes; it changes no verdict.
        contenders: scores of `CANDIDATE` and `CHAMPION`, as `score_cases` gives them.
        champion: number of the live version; None for the first.
        held: the reason of a hold that stands against the release, if any.
        guardrails: what the guardrail suite says for and against it.
        brought_back: the part that a person rolled back, and why, if any.
    """
    by_name = {who: {name: score for name, score in of.items() if score.rows} for who, of in contenders.items()}
    ours, theirs = (by_name.get(who, {}) for who in (CANDIDATE, CHAMPION))
    against = [*not_numbers(ours), *too_low(ours, RIGHT, gate, QUESTIONS, "release")]
    found: dict[Decision, list[str]] = {"reject": against, "hold": [*say_held(held)], "promote": []}
    if RIGHT in ours:
        found["promote"].append(say_value(RIGHT, ours[RIGHT].estimate, ours[RIGHT].confidence, QUESTIONS.many))
        decision, sentence = judge_champion(ours[RIGHT], theirs.get(RIGHT), champion, gate, QUESTIONS)
        if brought_back and decision != "promote":
            decision, sentence = "promote", f"{sentence} That is no objection: {brought_back}."
        found[decision].append(sentence)
    for decision, sentence in guardrails:
        found[decision].append(sentence)
    return conclude(found["reject"], found["hold"], found["promote"], promote)
