"""Scores of a release stage by stage, so that each failure has an address: retrieval, generation, or the whole."""

from collections import Counter
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from itertools import groupby
from typing import Literal

from tasks.config.evaluation import AnswersConfig
from tasks.evaluation.gate import judge_loss
from tasks.evaluation.golden import GoldenQuery, document_of
from tasks.evaluation.releases import QUESTIONS, is_relevant
from tasks.evaluation.retrieval import score as score_retrieval
from tasks.evaluation.scores import Score, comparable, compare_scores, is_called, make_score
from tasks.evaluation.texts import exact_match, holds, share_held, token_f1
from tasks.records import Answer, Passage

RIGHT = "right"
"""Share of the questions whose answer cites what is relevant and, where short answers are known, says one of them."""
RETRIEVAL = ("recall@5", "ndcg@10")
"""Scores of retrieval alone."""
WITH_SOURCES = "right_with_sources"
"""The same share where only passages of the relevant documents are given: generation alone."""
ADDRESSES = {
    "": "nowhere: the answer is right",
    "retrieval": "no passage of a relevant document was found",
    "refusal": "it was refused, though passages that answer it were found",
    "generation": "the answer is wrong even from the relevant documents alone",
    "distraction": "the answer is right from the relevant documents alone, and wrong among others",
}
"""Where a question failed."""


@dataclass(frozen=True, slots=True)
class Row:
    """One question, and what a release made of it."""

    query: GoldenQuery
    found: tuple[Passage, ...]
    """Retrieval alone: the best passages, deeper than the release reads."""
    given: Answer
    """Generation alone: from passages of the relevant documents."""
    whole: Answer
    """End to end."""
    without: Answer
    """End to end, as if the relevant documents were not there: right if refused."""
    similarity: float
    """Cosine of question and answer, by the embedder of the release's index; 0 for a refusal."""
    expected: str = ""
    """The short answers as the release's filters would let them be said: as a judge may read them."""

    @property
    def right(self) -> bool:
        return is_right(self.whole, self.query)

    @property
    def address(self) -> str:
        """Where it failed: a key of `ADDRESSES`."""
        if self.right:
            return ""
        if not any(is_relevant(passage, self.query) for passage in self.whole.passages or self.found):
            return "retrieval"
        if self.whole.refused:
            return "refusal"
        return "distraction" if is_right(self.given, self.query) else "generation"


def said(answer: Answer) -> str:
    """The text without the marks of its citations; empty for a refusal."""
    return "" if answer.refused else " ".join(sentence.text for sentence in answer.sentences)


def is_right(answer: Answer, query: GoldenQuery) -> bool:
    """Whether it cites a relevant passage and, where short answers are known, says one of them."""
    cites = any(is_relevant(passage, query) for passage in answer.cited)
    return cites and (not query.answers or holds(said(answer), query.answers))


def support(answer: Answer) -> float:
    """The share of an answer's words that stand in the passages it cites, as a mean over sentences; 0 for a refusal."""
    shares = [
        share_held(sentence.text, [answer.passages[number - 1].text for number in sentence.cited])
        for sentence in answer.sentences
    ]
    return sum(shares) / len(shares) if shares else 0.0


def score_rows(rows: Sequence[Row], confidence: float = 0.95) -> dict[str, Score]:
    """Every score that the rows come to, retrieval first; one that concerns no row has no rows.

    - ``exact_match``, ``token_f1``: of what is said with the short answers, on questions that have some.
    - ``citation_precision``: share of the cited passages that are relevant, on answered questions.
    - ``citation_recall``: share of the relevant documents that are cited, on answered questions.
    - ``support``: share of an answer's words that stand in the passages it cites: of groundedness no more than that.
    - ``refusal_precision``, ``refusal_recall``: of refusals with and without the relevant documents.
    - ``question_similarity``: cosine of question and answer: of relevance no more than that.
    """
    answered = [row for row in rows if not row.whole.refused]
    known = [row for row in rows if row.query.answers]
    wrongly, rightly = [row for row in rows if row.whole.refused], [row for row in rows if row.without.refused]
    ranked = [[(passage.document, passage.id) for passage in row.found] for row in rows]
    retrieval = score_retrieval([row.query for row in rows], ranked, confidence).values

    def score(name: str, of: Sequence[Row], values: Sequence[float]) -> Score:
        return make_score(name, [row.query.id for row in of], values, None, confidence)

    found = [
        *(score(name, rows, retrieval[name]) for name in RETRIEVAL),
        score(WITH_SOURCES, rows, [float(is_right(row.given, row.query)) for row in rows]),
        score(RIGHT, rows, [float(row.right) for row in rows]),
        score("exact_match", known, [exact_match(said(row.whole), row.query.answers) for row in known]),
        score("token_f1", known, [token_f1(said(row.whole), row.query.answers) for row in known]),
        score("citation_precision", answered, [_precision(row) for row in answered]),
        score("citation_recall", answered, [_recall(row) for row in answered]),
        score("support", answered, [support(row.whole) for row in answered]),
        score("refusal_precision", [*wrongly, *rightly], [0.0] * len(wrongly) + [1.0] * len(rightly)),
        score("refusal_recall", rows, [float(row.without.refused) for row in rows]),
        score("question_similarity", answered, [row.similarity for row in answered]),
    ]
    return {each.name: each for each in found}


def judge_suite(
    config: AnswersConfig, by_release: Mapping[str, Mapping[str, Score]]
) -> tuple[Literal["passed", "failed"], tuple[str, ...]]:
    """Whether the first release keeps its floors and loses no more than tolerated against the others; and why."""
    (first, ours), *others = by_release.items()
    failed = [*_below_floors(config.floors, ours)]
    fine: list[str] = []
    for name, max_loss in config.max_loss.items():
        for other, theirs in others:
            pairs = [pair for each, pair in comparable(ours, theirs).items() if is_called(each, name)]
            if not pairs:
                why = "it is not of the same questions, or of two versions of a judge"
                failed.append(f"{name} of {first} and {other} cannot be compared: {why}.")
            for pair in pairs:
                comparison = compare_scores(*pair, config.confidence)
                decision, sentence = judge_loss(comparison, other, max_loss, QUESTIONS)
                (fine if decision == "promote" else failed).append(sentence)
    if failed:
        return "failed", (*failed, *fine)
    return "passed", (*fine, "No floor was missed.") if config.floors else tuple(fine)


def _below_floors(floors: Mapping[str, float], scores: Mapping[str, Score]) -> Iterator[str]:
    for name, floor in floors.items():
        meant = [score for each, score in scores.items() if is_called(each, name)]
        if not meant:
            yield f"There is no score {name}: there are {', '.join(scores)}."
        for score in meant:
            if not score.rows:
                yield f"{name} has a floor of {floor:.3f}, and no question that it is about."
            elif not score.estimate.mean >= floor:  # NaN passes no floor
                yield f"{score.name} {score.estimate.mean:.3f} is below its floor of {floor:.3f}."


def count_addresses(rows: Sequence[Row]) -> Counter[str]:
    """How many questions failed where; those answered rightly are under the empty address."""
    return Counter(row.address for row in rows)


def slices(rows: Sequence[Row]) -> dict[str, list[Row]]:
    """The rows by tenant, by source of their first relevant document, and by kind of question."""
    grouped: dict[str, list[Row]] = {}
    for row in rows:
        source = document_of(row.query.relevant[0]).partition("/")[0]
        for kind, group in (("tenant", row.query.tenant), ("source", source), ("slice", row.query.slice)):
            if group:
                grouped.setdefault(f"{kind} {group}", []).append(row)
    return dict(sorted(grouped.items()))


def worst(rows: Sequence[Row], count: int) -> list[Row]:
    """Rows that are wrong, of every address in turn, so that none is hidden by the most frequent."""
    wrong = sorted((row for row in rows if not row.right), key=lambda row: row.address)
    by_address = [list(of) for _, of in groupby(wrong, key=lambda row: row.address)]
    longest = max(map(len, by_address), default=0)
    turns = [of[place] for place in range(longest) for of in by_address if place < len(of)]
    return turns[:count]


def _precision(row: Row) -> float:
    cited = row.whole.cited
    return sum(is_relevant(passage, row.query) for passage in cited) / len(cited) if cited else 0.0


def _recall(row: Row) -> float:
    wanted = {document_of(each) for each in row.query.relevant}
    return len(wanted & {passage.document for passage in row.whole.cited}) / len(wanted)
