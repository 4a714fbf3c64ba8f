"""Answers without a language model: the sentences of the passages that support an answer best, as they stand there."""

from collections import Counter
from collections.abc import Sequence
from dataclasses import dataclass
from math import log

from tasks.answering.generators import Turn
from tasks.answering.sentences import content_words, split
from tasks.answering.structured import AnswerSchema
from tasks.records import Generated, Passage

RANK_WEIGHT = 0.5
"""What a passage's place adds to the coverage of its sentences: this for the first, half of it for the second …"""
LEAST = 0.3
"""A sentence that covers less than this share of what the first one covers says something else."""


@dataclass(frozen=True, slots=True)
class Evidence:
    """How much of a question a passage covers: of its content words the share, weighted by idf."""

    coverage: float
    """Of the passage with its title and headings."""
    sentences: tuple[tuple[str, float], ...]
    """Its sentences, each with what it covers alone."""

    @property
    def best_sentence(self) -> float:
        return max((coverage for _, coverage in self.sentences), default=0.0)


class ExtractiveGenerator:
    """Quotes at most so many sentences, the best supported first."""

    def __init__(self, sentences: int) -> None:
        self.sentences = sentences

    def answer(
        self,
        question: str,
        passages: Sequence[Passage],
        turns: Sequence[Turn],
        schema: AnswerSchema | None = None,
    ) -> Generated:
        """Each sentence followed by the number of its passage; one that several passages hold comes once."""
        candidates = sorted(
            (-coverage - RANK_WEIGHT / number, number, place, sentence, coverage)
            for number, evidence in enumerate(weigh(question, passages), start=1)
            for place, (sentence, coverage) in enumerate(evidence.sentences)
        )
        cited: dict[str, int] = {}
        for _, number, _, sentence, coverage in candidates:
            if coverage >= LEAST * candidates[0][-1]:
                cited.setdefault(sentence, number)
        best = list(cited.items())[: self.sentences]
        return Generated(" ".join(f"{sentence} [{number}]" for sentence, number in best))


def _words(passage: Passage) -> frozenset[str]:
    return content_words(" ".join((passage.title or "", *passage.heading, passage.text)))


def weigh(question: str, passages: Sequence[Passage]) -> list[Evidence]:
    """What each passage and its sentences cover of the question.

    A word's idf is that of BM25, counted over the sentences of all the passages.
    """
    asked = content_words(question)
    sentences = [split(passage.text, passage.language or "en") for passage in passages]
    covered = [[content_words(sentence) & asked for sentence in of] for of in sentences]
    counts = Counter(word for of in covered for words in of for word in words)
    total = sum(map(len, covered))
    idf = {word: log(1 + (total - counts[word] + 0.5) / (counts[word] + 0.5)) for word in asked}

    def share(words: frozenset[str]) -> float:
        return sum(map(idf.__getitem__, words)) / (sum(idf.values()) or 1.0)

    return [
        Evidence(
            share((asked & _words(passage)).union(*words)),  # a sentence of stop words alone has some, its passage none
            tuple(zip(of, map(share, words), strict=True)),
        )
        for passage, of, words in zip(passages, sentences, covered, strict=True)
    ]
