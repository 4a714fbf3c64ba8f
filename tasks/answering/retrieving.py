"""Finds the passages for a question, with as much effort as the policy asks for.

Everything that it searches for or reads on the way goes through one `Scope`, and what is searched for next rests on
passages and texts that the policy's filters let through, so that neither another tenant's passage nor an order in one
can lead a search.
"""

import re
from collections import Counter
from collections.abc import Callable, Collection, Iterable, Sequence
from dataclasses import dataclass, replace
from itertools import chain, takewhile, zip_longest
from math import log

from tasks.answering.filters import may_be_read, screen_passages, screen_question
from tasks.answering.generators import Generator
from tasks.answering.sentences import STOP_WORDS, WORD, content_words, split
from tasks.config.answering import FiltersConfig, PolicyConfig
from tasks.index.search import Filters, IndexReader, Mode
from tasks.records import Generated, Passage

DEPTH = 50
"""Passages that every search hands to the fusion, so that whoever asks for fewer gets the first of the same ranking."""
RANKS = 60
"""Softens reciprocal ranks: Cormack, Clarke and Büttcher, "Reciprocal Rank Fusion", SIGIR 2009."""
TELLING = 5
"""Words of a passage that are searched for."""
COMPARED = 20
"""Passages by which it is judged how telling a word is."""
SENTENCES = 8
"""Most sentences of a passage that lead on."""
LED_TO = 5
"""Passages that each of them leads to before all others."""
QUERIES = 3
"""Most lines of a language model that are searched for."""
BREAK = "\n\n"
MARK = re.compile(r"^\W*(?:\d+[.)]\s+)?")
"""What stands before the items of a list."""


@dataclass(frozen=True, slots=True)
class Found:
    """Passages for a question, best first, and the tokens that a language model read and wrote to find them."""

    passages: Sequence[Passage]
    tokens_in: int = 0
    tokens_out: int = 0


@dataclass(frozen=True, slots=True)
class Scope:
    """What may be found, whichever way it is looked for."""

    reader: IndexReader
    filters: Filters
    mode: Mode | None = None
    without: Callable[[Passage], bool] | None = None
    """Passages that count as if they were not there."""

    @property
    def by(self) -> Mode:
        """How it is searched."""
        return self.mode or self.reader.config.mode

    def search(self, queries: Sequence[str], k: int) -> list[list[Passage]]:
        """At most k passages for each query, best first."""
        return list(map(self._kept, self.reader.search(queries, k=k, mode=self.mode, filters=self.filters)))

    def search_else(self, queries: Sequence[str], k: int, meanings: Sequence[str] = ()) -> list[list[Passage]]:
        """The same for other queries than the question, so that similarity and match, which are to it, are left out.

        `meanings` are embedded in the place of the queries, of which words are searched for then.
        """
        vectors = self.reader.embedder.embed_queries(meanings) if meanings and self.by != "text" else None
        found = self.reader.search(queries, k=k, mode=self.mode, filters=self.filters, vectors=vectors)
        return [[replace(passage, similarity=None, match=0.0) for passage in self._kept(each)] for each in found]

    def read(self, ids: Collection[str]) -> list[Passage]:
        """The passages of these ids that are there and may be found, in any order."""
        return self._kept(self.reader.read(ids, self.filters))

    def _kept(self, found: list[Passage]) -> list[Passage]:
        return [passage for passage in found if not self.without(passage)] if self.without else found


def retrieve(question: str, k: int, scope: Scope, policy: PolicyConfig, generator: Generator) -> Found:
    """At most k passages for a question, best first.

    Their scores are those of the search; where several searches were made, the reciprocal of their rank.
    """
    config, made = policy.retrieval, Generated("")
    if config.is_one_search:
        [found] = scope.search([question], k)
    else:
        [found] = scope.search([question], max(k, DEPTH))
        if config.expansion == "feedback":
            found = fuse([found, *_by_feedback(question, found, scope, policy.filters)])
        elif config.expansion == "model":
            made = _ask_model(question, policy, generator)
            found = fuse([found, *_by_lines(made.text, scope, policy.filters)])
        found = take_turns([found, *_further_hops(question, found, scope, policy)])[:k]
        found = [replace(passage, score=1 / rank) for rank, passage in enumerate(found, start=1)]
    if config.neighbours:
        found = _with_neighbours(found, config.neighbours, scope, policy.filters)
    return Found(found, made.tokens_in, made.tokens_out)


def fuse(rankings: Sequence[Sequence[Passage]]) -> list[Passage]:
    """One ranking of several, by the sums of the reciprocal ranks; each passage as the first of them has it."""
    points: Counter[str] = Counter()
    for ranking in rankings:
        points.update({passage.id: 1 / (RANKS + rank) for rank, passage in enumerate(ranking, start=1)})
    known = _first_of_each(chain(*rankings))
    return [known[id] for id, _ in points.most_common()]


def take_turns(rankings: Sequence[Sequence[Passage]]) -> list[Passage]:
    """One ranking of several: the best of each, then the second of each, and so on; none pushes another's best down."""
    known = _first_of_each(chain(*rankings))
    in_turn = (passage.id for turn in zip_longest(*rankings) for passage in turn if passage)
    return [known[id] for id in dict.fromkeys(in_turn)]


def telling_words(text: str, among: Sequence[Passage], question: str) -> list[str]:
    """Words of a text that the question lacks and few of these passages hold, the most telling first.

    By tf·idf within what was found: Xu and Croft, "Query expansion using local and global document analysis", 1996.
    """
    asked = set(_words(question))
    holding = Counter(word for passage in among for word in set(_words(passage.text)))
    weights = {
        word: times * log((len(among) + 1) / (holding[word] + 0.5))
        for word, times in Counter(_words(text)).items()
        if word not in asked
    }
    return sorted(weights, key=lambda word: (-weights[word], word))[:TELLING]


def join(passage: Passage, stretch: Sequence[Passage]) -> Passage:
    """The passage with the text of the whole stretch, in which what a passage repeats of the one before stands once."""
    text, end = "", 0
    for each in stretch:
        repeated = max(0, end - each.start) if text else 0
        text += each.text[repeated:] if repeated else f"{BREAK if text else ''}{each.text}"
        end = each.end
    return replace(passage, text=text, start=stretch[0].start, end=end) if stretch else passage


def _by_feedback(question: str, found: Sequence[Passage], scope: Scope, filters: FiltersConfig) -> list[list[Passage]]:
    """What the question and the telling words of the best passage find; where words are searched, they alone change.

    One passage and no more: the words of five lose more on xquad than they find.
    """
    compared, _ = screen_passages(found, COMPARED, filters)
    words = telling_words(compared[0].text, compared, question) if compared else []
    asked = " ".join([question, *words])
    return scope.search_else([asked], DEPTH, [asked if scope.by == "vector" else question]) if words else []


def _ask_model(question: str, policy: PolicyConfig, generator: Generator) -> Generated:
    """Other ways of asking, one a line, and what an answer might say (HyDE: Gao et al., 2023, arXiv 2212.10496)."""
    asked = screen_question(question, policy.filters)
    if asked.refusal:  # a search is made for whatever is asked, and a model reads no orders
        return Generated("")
    turn = {"role": "user", "content": f"{policy.retrieval.instruction}\n\n{asked.text}"}
    return generator.answer(asked.text, (), [turn])


def _by_lines(text: str, scope: Scope, filters: FiltersConfig) -> list[list[Passage]]:
    """What each line finds that may be asked."""
    lines = [screen_question(MARK.sub("", line), filters) for line in text.splitlines()]
    queries = [line.text for line in lines if line.text.strip() and not line.refusal][:QUERIES]
    return scope.search_else(queries, DEPTH)


def _further_hops(question: str, found: Sequence[Passage], scope: Scope, policy: PolicyConfig) -> list[list[Passage]]:
    """The ranking of each hop after the first: what the best passage of the hop before leads to, in other documents.

    Of what its sentences lead to, those come first that hold most of the question's words that it left open.
    """
    rankings = [list(found)]
    led: set[str] = set()
    left_open = content_words(question)
    for _ in range(policy.retrieval.hops - 1):
        compared, _ = screen_passages(rankings[-1], COMPARED, policy.filters)
        if not compared:
            break
        led.add(compared[0].document)
        left_open -= content_words(compared[0].text)
        others = [[each for each in of if each.document not in led] for of in _by_sentences(question, compared, scope)]
        first = take_turns([of[:LED_TO] for of in others])
        first.sort(key=lambda passage: -len(left_open & content_words(passage.text)))
        rankings.append(list(_first_of_each([*first, *take_turns(others)]).values()))
    return rankings[1:]


def _by_sentences(question: str, compared: Sequence[Passage], scope: Scope) -> list[list[Passage]]:
    """What each sentence of the first passage finds: its telling words in texts, the question and it by meaning.

    Which of them names what the question is after cannot be told by the words of the question.
    """
    sentences = split(compared[0].text, compared[0].language or "en")[:SENTENCES]
    words = {sentence: " ".join(telling_words(sentence, compared, question)) for sentence in sentences}
    telling = [sentence for sentence in words if words[sentence]]
    return scope.search_else([words[each] for each in telling], DEPTH, [f"{question} {each}" for each in telling])


def _with_neighbours(found: Sequence[Passage], reach: int, scope: Scope, filters: FiltersConfig) -> list[Passage]:
    """Each passage with those of its document up to `reach` before and after it, as one; none is repeated.

    One that gives orders is nobody's neighbour, nor what lies behind it, and gets none: the filters take it out alone.
    """
    stored = {each.id: each for each in scope.read({id for passage in found for id in _around(passage, reach)})}
    free = {id for id, passage in stored.items() if may_be_read(passage, filters)}
    taken: set[str] = set()
    joined = []
    for passage in found:
        if passage.id not in taken:
            stretch = _stretch(passage, reach, free) if passage.id in free else []
            joined.append(join(passage, [stored[id] for id in stretch]))
            taken.update(stretch)
            free.difference_update(stretch)
    return joined


def _around(passage: Passage, reach: int) -> list[str]:
    """The ids that it and its neighbours have."""
    document, _, ordinal = passage.id.rpartition("#")
    return [f"{document}#{place}" for place in range(max(0, int(ordinal) - reach), int(ordinal) + reach + 1)]


def _stretch(passage: Passage, reach: int, free: Collection[str]) -> list[str]:
    """Of the ids around it those that follow one another without a gap."""
    ids = _around(passage, reach)
    place = ids.index(passage.id)
    before = [*takewhile(free.__contains__, reversed(ids[:place]))]
    return [*reversed(before), passage.id, *takewhile(free.__contains__, ids[place + 1 :])]


def _words(text: str) -> list[str]:
    return [word for word in WORD.findall(text.casefold()) if word not in STOP_WORDS]


def _first_of_each(passages: Iterable[Passage]) -> dict[str, Passage]:
    known: dict[str, Passage] = {}
    for passage in passages:
        known.setdefault(passage.id, passage)
    return known
