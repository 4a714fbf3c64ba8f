"""Which drafts are put before a person: new ones, not too many of a kind, that leak nothing into an evaluation."""

import math
from collections import Counter, defaultdict
from collections.abc import Collection, Iterable, Sequence
from dataclasses import dataclass, replace
from hashlib import sha256
from typing import TYPE_CHECKING, Literal

from tasks.config.choices import load_choice
from tasks.config.curation import CapsConfig, CurateConfig
from tasks.config.settings import find_home
from tasks.config.training import DATASETS, DatasetConfig, DpoConfig, SftConfig
from tasks.draft import Drafted
from tasks.evaluation.golden import load_golden
from tasks.index.embedding import load_embedder
from tasks.records import Draft
from tasks.training.formats import Example, read_examples
from tasks.training.near import cluster, words_of
from tasks.training.rows import BadRow, read_rows

if TYPE_CHECKING:
    from scipy.sparse import sparray

Side = Literal["train", "held_out"]
Place = tuple[str, str, int]
"""Kind, tenant and cluster, of which there is one row."""

BEFORE = "the same, or its question, was drafted before"
EVALUATED = "its question is near one of the evaluation"
TRAINED = "its question is near one of a data set in use"
BOTH_SIDES = "its question is near ones on both sides of the split"
NEWER = "a newer one has nearly its question"
TO_TRAIN_ON = "a golden query that nearly asks what a row to train on asks"


@dataclass(frozen=True, slots=True)
class InUse:
    """Questions that are evaluated with, and trained on, without those of the data sets that are made here."""

    evaluated: tuple[str, ...]
    trained: tuple[str, ...]


@dataclass(frozen=True, slots=True)
class Sifted:
    """The rows that stay, with their sides, and how many do not, by reason."""

    rows: tuple[Draft, ...]
    left_out: Counter[str]


def read_in_use(config: CurateConfig) -> InUse:
    """The golden queries, and the data sets of the fine-tunes that the configuration names.

    Raises a TandemError where one of them cannot be read.
    """
    evaluated = [query.query for file in config.golden for query in load_golden(file)]
    trained: list[str] = []
    for dataset in _datasets(config):
        trained += _asked(dataset.sources, dataset)
        evaluated += _asked(dataset.held_out, dataset)
    return InUse(tuple(evaluated), tuple(trained))


def sift(drafted: Sequence[Drafted], before: Sequence[Draft], in_use: InUse, config: CurateConfig) -> Sifted:
    """What of the drafts, the best first, is new.

    Questions that are near each other, by their words or by what they mean, or linked by others that are, form a
    cluster; a cluster is on one side of the split, and has one row of a kind and a tenant.

    Args:
        drafted: rows, or why there is none.
        before: all rows that were ever put before a person.
        in_use: what must not be met again.
        config: how near is near, and how many are too many.
    """
    left_out = Counter(each for each in drafted if isinstance(each, str))
    new = [row for row in drafted if isinstance(row, Draft)]
    if not new:
        return Sifted((), left_out)
    clusters = _Clusters(new, before, in_use, config)
    counts = _Caps(config.caps, before)
    rows: dict[Place, Draft] = {}
    asked = {clusters.place(row) for row in before}
    for row in new:
        place = clusters.place(row)
        if place in asked:
            reason = BEFORE
        elif not (reason := clusters.against(row)):
            reason = NEWER if place in rows else counts.against(row)
        if reason:
            left_out[reason] += 1
        else:
            rows[place] = replace(row, side=clusters.side(row))
    return Sifted(tuple(rows.values()), left_out)


def leaking(rows: Iterable[Draft], in_use: InUse, config: CurateConfig) -> set[str]:
    """The ids of the rows that are, by now, near a question of the evaluation."""
    own = list(rows)
    if not own:
        return set()
    numbers = _number([*in_use.evaluated, *(row.question for row in own)], [], config)
    evaluated = set(numbers[: len(in_use.evaluated)])
    return {row.id for row, number in zip(own, numbers[len(in_use.evaluated) :], strict=True) if number in evaluated}


class _Clusters:
    def __init__(self, new: Sequence[Draft], before: Sequence[Draft], in_use: InUse, config: CurateConfig) -> None:
        own = [*before, *new]
        numbers = _number([*in_use.evaluated, *(row.question for row in own)], in_use.trained, config)
        first, second = len(in_use.evaluated), len(in_use.evaluated) + len(own)
        self._evaluated, self._trained = set(numbers[:first]), set(numbers[second:])
        self._of = {row.id: number for row, number in zip(own, numbers[first:second], strict=True)}
        self._sides: dict[int, set[Side]] = defaultdict(set)
        for row in before:
            self._sides[self._of[row.id]].add(row.side)
        self._questions: dict[int, set[str]] = defaultdict(set)
        self._taught: set[int] = set()
        for row in new:
            self._questions[self._of[row.id]].add(" ".join(row.question.casefold().split()))
            if row.kind != "golden":
                self._taught.add(self._of[row.id])
        self._config = config

    def place(self, row: Draft) -> Place:
        return row.kind, row.tenant, self._of[row.id]

    def against(self, row: Draft) -> str:
        """Why it may not be taken; empty where it may."""
        number = self._of[row.id]
        if number in self._evaluated:
            return EVALUATED
        if number in self._trained:
            return TRAINED
        if len(self._sides[number]) > 1:
            return BOTH_SIDES
        return TO_TRAIN_ON if row.kind == "golden" and self.side(row) == "train" else ""

    def side(self, row: Draft) -> Side:
        """That of its cluster: as it was, or by a hash of its questions; where all are golden queries, held out."""
        number = self._of[row.id]
        if self._sides[number]:
            return next(iter(self._sides[number]))
        if number not in self._taught:
            return "held_out"
        text = f"{self._config.name} {min(self._questions[number])}"
        rank = int(sha256(text.encode("utf-8", "surrogatepass")).hexdigest()[:8], 16) / 16**8
        return "held_out" if rank < self._config.held_out_share else "train"


class _Caps:
    """Counts rows by kind and where they come from, those that were put before a person included."""

    def __init__(self, caps: CapsConfig, before: Sequence[Draft]) -> None:
        self._most = {"source": caps.source, "tenant": caps.tenant, "topic": caps.topic}
        self._counts = Counter(place for row in before for place in self._places(row))

    def against(self, row: Draft) -> str:
        """Why it is one too many; otherwise it is counted."""
        places = self._places(row)
        for place in places:
            if self._counts[place] >= self._most[place[1]]:
                return f"there are {self._most[place[1]]:,} rows of its {place[1]} already (caps.{place[1]})"
        self._counts.update(places)
        return ""

    def _places(self, row: Draft) -> list[tuple[str, str, str]]:
        values = {"source": row.source, "tenant": row.tenant, "topic": row.topic}
        return [(row.kind, what, value) for what, value in values.items() if value]


def _number(questions: Sequence[str], others: Sequence[str], config: CurateConfig) -> list[int]:
    """The cluster of each question and of each other one; these, which may be many, are compared by words alone."""
    from scipy.sparse import block_diag, coo_array
    from scipy.sparse.csgraph import connected_components

    every = [*questions, *others]
    if not every:
        return []
    turns = [[{"role": "user", "content": question}] for question in every]
    worded = cluster([Example("", "", {"prompt": asked}) for asked in turns], config.near)
    by_words = coo_array(([1.0] * len(every), (range(len(every)), worded)), shape=(len(every), len(every)))
    by_meaning = block_diag([_alike(questions, config), coo_array((len(others), len(others)))])
    return [int(number) for number in connected_components(by_words + by_meaning, directed=False)[1]]


def _alike(questions: Sequence[str], config: CurateConfig) -> "sparray":
    """An edge between any two questions whose vectors are near each other."""
    import numpy as np
    from scipy.sparse import coo_array
    from sklearn.neighbors import radius_neighbors_graph

    if not questions or config.near_meaning == 1:
        return coo_array((len(questions), len(questions)))
    vectors = load_embedder(config.embedder, find_home()).embed_queries(questions)
    of_length_one = vectors / np.linalg.norm(vectors, axis=1, keepdims=True)
    return radius_neighbors_graph(of_length_one, math.sqrt(2 - 2 * config.near_meaning))


def _datasets(config: CurateConfig) -> list[DatasetConfig]:
    named = [load_choice("sft", config.sft, SftConfig).dataset] if config.sft else []
    named += [load_choice("dpo", config.dpo, DpoConfig).dataset] if config.dpo else []
    return [load_choice("datasets", name, DatasetConfig) for name in dict.fromkeys(named)]


def _asked(sources: Collection[str], dataset: DatasetConfig) -> list[str]:
    """The questions of the rows, but for those that were made here."""
    foreign = [source for source in sources if not source.startswith(DATASETS)]
    rows = read_examples(read_rows(foreign, dataset.hub_split), dataset)
    return [words_of(row.asked) for row in rows if not isinstance(row, BadRow)]
