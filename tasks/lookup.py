"""Looks an expected answer up in everything that an index holds, whatever a search would find of it."""

from collections.abc import Iterable, Iterator, Sequence
from dataclasses import dataclass
from itertools import groupby, islice

from tasks.answering.retrieving import join
from tasks.answering.sentences import content_words, split
from tasks.evaluation.texts import holds, plain
from tasks.index.search import IndexReader
from tasks.records import Passage

FOUND = 20
"""Passages that a search by the expected answer contributes."""
NEAR = 5
"""Of these, where nobody named a document, so many first ones are about the question in whatever words it is asked."""
REACH = 2
"""Passages before and after one that are read with it."""


@dataclass(frozen=True, slots=True)
class Wanted:
    """What is expected, and how much of it a text must have."""

    question: str
    answers: tuple[str, ...]
    """Each is right by itself; none where only documents are known."""
    share: float
    """Of the words of an answer that tell, those that a text must have; those of the question tell nothing."""
    least: int = 1
    """An answer with fewer words that tell must stand in a passage as it is: such words are found anywhere."""

    def stands_in(self, text: str, language: str = "en") -> bool:
        """Whether a passage says one of the answers: as it stands, or by its words that tell in one sentence."""
        if self._as_it_is(text):
            return True
        long = [answer for answer in self.answers if len(self._telling(answer)) >= self.least]
        return bool(long) and any(
            self._has_words(content_words(sentence), answer) for sentence in split(text, language) for answer in long
        )

    def told_by(self, text: str) -> bool:
        """Whether an answer has the facts of one that is right: as it stands, or by its words in any order."""
        return self._as_it_is(text) or any(self._has_words(content_words(text), answer) for answer in self.answers)

    def covered_by(self, *texts: str) -> float:
        """The share of the question's words that stand in the texts."""
        asked = content_words(self.question)
        return len(asked & content_words(" ".join(texts))) / len(asked) if asked else 0.0

    def _as_it_is(self, text: str) -> bool:
        return holds(text, self.answers)

    def _has_words(self, words: frozenset[str], answer: str) -> bool:
        telling = self._telling(answer)
        figures = {word for word in content_words(answer) if not word.isalpha()}
        return bool(telling) and figures <= words and len(telling & words) >= self.share * len(telling)

    def _telling(self, answer: str) -> frozenset[str]:
        return content_words(answer) - content_words(self.question)


@dataclass(frozen=True, slots=True)
class Places:
    """Where in an index an answer stands."""

    whole: tuple[Passage, ...]
    """Passages that hold it by themselves, those of documents named as relevant first."""
    pieces: tuple[tuple[Passage, ...], ...]
    """Neighbours that hold it only together, in documents of which no passage holds it."""


class Library:
    """All passages of one version of an index, in memory, by document: some two kilobytes a passage."""

    def __init__(self, reader: IndexReader) -> None:
        self._reader = reader
        self._documents = {
            document: tuple(of) for document, of in groupby(reader.every(), lambda passage: passage.document)
        }
        self._reasons = {name: state.reason or "" for name, state in reader.store.documents().items()}
        self._plain = {document: f" {plain(join(of[0], of).text)} " for document, of in self._documents.items()}

    def why_missing(self, document: str) -> str:
        """Why a document of the sources has no passages; empty where it has some, or the sources have no such one."""
        return "" if self.has(document) else self._reasons.get(document, "")

    def has(self, document: str) -> bool:
        """Whether the index has passages of a document."""
        return document in self._documents

    def find(self, wanted: Wanted, relevant: Sequence[str], about: float) -> Places:
        """Where the answer stands.

        Args:
            wanted: the question and its answers; without any, the relevant documents hold it.
            relevant: documents that hold it, as far as anybody named some.
            about: least share of the question's words in a passage of any other document; where nobody named one, a
                passage may instead be among the first that a search by question and answers finds.
        """
        named = [document for document in relevant if self.has(document)]
        if not wanted.answers:
            return Places(tuple(passage for document in named for passage in self._documents[document]), ())
        found = self._reader.search([" ".join((wanted.question, *wanted.answers))], k=FOUND)[0]
        near = set() if relevant else {passage.id for passage in found[:NEAR]}

        def holds(passages: Sequence[Passage]) -> bool:
            return wanted.stands_in(join(passages[0], passages).text, passages[0].language or "en") and (
                passages[0].document in named
                or any(passage.id in near for passage in passages)
                or wanted.covered_by(text_of(passages)) >= about
            )

        whole: list[Passage] = []
        pieces: list[tuple[Passage, ...]] = []
        likely = (*self._documents_with(wanted.answers), *(passage.document for passage in found))
        for document in dict.fromkeys((*named, *likely)):
            alone = [passage for passage in self._documents[document] if holds([passage])]
            whole += alone
            pieces += [] if alone else list(islice(filter(holds, self._runs(document)), 1))
        return Places(tuple(whole), tuple(pieces))

    def around(self, passage: Passage) -> tuple[Passage, ...]:
        """The passage with its neighbours."""
        of = self._documents[passage.document]
        place = next(number for number, each in enumerate(of) if each.id == passage.id)
        return of[max(0, place - REACH) : place + REACH + 1]

    def _documents_with(self, answers: Sequence[str]) -> Iterator[str]:
        """Documents in which an answer stands as it is."""
        wanted = [f" {plain(answer)} " for answer in answers]
        yield from (document for document, text in self._plain.items() if any(answer in text for answer in wanted))

    def _runs(self, document: str) -> Iterator[tuple[Passage, ...]]:
        """Two, three … passages of a document that follow one another."""
        of = self._documents[document]
        for length in range(2, 2 * REACH + 2):
            yield from (of[start : start + length] for start in range(len(of) - length + 1))


def text_of(passages: Sequence[Passage]) -> str:
    """What neighbours say together, under their headings."""
    joined = join(passages[0], passages)
    headings: Iterable[str] = dict.fromkeys(heading for passage in passages for heading in passage.heading)
    return " ".join((joined.title or "", *headings, joined.text))
