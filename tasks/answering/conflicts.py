"""Passages that contradict each other on what was asked are shown side by side, instead of one being picked silently.

Two sentences of different documents contradict each other where they cover the same words of the question and have most
of their other words in common, but for a figure, a name or a negation. That goes by words and not by meaning: it finds
"at 80 degrees" beside "at 90 degrees", and misses what is said in other words.
"""

from collections.abc import Sequence
from dataclasses import replace

from tasks.answering.citations import write_sentence
from tasks.answering.extractive import weigh
from tasks.answering.sentences import content_words
from tasks.records import Answer, Passage, Sentence

ASKED = 0.8
"""A sentence that covers less of the question than this share of what the best one covers is about something else."""
ALIKE = 0.6
"""Least share of the words of two sentences that they have in common."""
NEGATIONS = content_words("not no never cannot") | {"t"}
INTRODUCTION = "The sources differ on this:"


def show_conflicts(answer: Answer) -> Answer:
    """The answer, behind it the statements that contradict each other, each with its date and passage."""
    conflict = find_conflict(answer.question, answer.passages)
    if not conflict:
        return answer
    statements = {statement.text for statement in conflict}
    others = tuple(sentence for sentence in answer.sentences if sentence.text not in statements)
    text = answer.text if len(others) == len(answer.sentences) else " ".join(map(write_sentence, others))
    lines = [f"- {_date_of(answer, statement)}: {write_sentence(statement)}" for statement in conflict]
    return replace(
        answer,
        text="\n".join([*([text, ""] if text else []), INTRODUCTION, *lines]),
        sentences=(*others, *conflict),
        conflict=conflict,
    )


def find_conflict(question: str, passages: Sequence[Passage]) -> tuple[Sentence, ...]:
    """The best supported statement that others contradict, and these, one of each document; none where none does."""
    asked = content_words(question)
    candidates = [
        (coverage, number, sentence)
        for number, evidence in enumerate(weigh(question, passages), start=1)
        for sentence, coverage in evidence.sentences
    ]
    best = max((coverage for coverage, _, _ in candidates), default=0.0)
    about = [(number, text) for coverage, number, text in candidates if best and coverage >= ASKED * best]
    for number, text in about:
        rivals = {
            passages[other - 1].document: Sentence(rival, (other,))
            for other, rival in reversed(about)
            if passages[other - 1].document != passages[number - 1].document and contradict(text, rival, asked)
        }
        if rivals:
            return Sentence(text, (number,)), *sorted(rivals.values(), key=lambda rival: rival.cited)
    return ()


def contradict(one: str, other: str, asked: frozenset[str]) -> bool:
    """Whether two sentences say different things of what was asked, as far as their words tell.

    Args:
        one: a sentence.
        other: another.
        asked: content words of the question.
    """
    ours, theirs = content_words(one), content_words(other)
    if ours & asked != theirs & asked or len(ours & theirs) < ALIKE * len(ours | theirs):
        return False
    return bool(ours - theirs and theirs - ours) or bool((ours ^ theirs) & NEGATIONS)


def _date_of(answer: Answer, statement: Sentence) -> str:
    return answer.passages[statement.cited[0] - 1].date or "without a date"
