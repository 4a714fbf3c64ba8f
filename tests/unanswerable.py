"""Questions of xquad over an index that lacks the paragraphs of half of them, and how well they are answered."""

import json
import random
import re
from collections.abc import Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from time import perf_counter

import numpy as np

from tasks.answering.conflicts import find_conflict
from tasks.answering.extractive import ExtractiveGenerator
from tasks.answering.grounding import Calibrated, Example, calibrate
from tasks.answering.sentences import content_words, split
from tasks.config.answering import GeneratorConfig, GroundingConfig, PolicyConfig
from tasks.config.index import ReindexConfig
from tasks.config.settings import Home
from tasks.index.embedding import load_embedder
from tasks.index.search import IndexReader
from tasks.index.store import IndexStore
from tasks.records import Passage
from tests.nights import quick_night
from tests.realdata import SHARED


@dataclass(frozen=True)
class Asked:
    """A question of xquad."""

    question: str
    answers: tuple[str, ...]
    """As the paragraph has them."""
    article: int
    answerable: bool
    """Its paragraph is in the index."""


def write_half_of_xquad(folder: Path, seed: int, articles: int | None = None) -> list[Asked]:
    """A page a paragraph, for two or three of the five paragraphs of every article; the questions of all five."""
    chance = random.Random(seed)
    asked = []
    stored = json.loads((SHARED / "xquad" / "xquad.en.json").read_text("utf-8"))["data"]
    for article, paragraphs in enumerate(each["paragraphs"] for each in stored[:articles]):
        kept = set(chance.sample(range(len(paragraphs)), chance.choice((2, 3))))
        for number, paragraph in enumerate(paragraphs):
            if number in kept:
                (folder / f"{article}-{number}.md").write_text(paragraph["context"], "utf-8")
            asked += [
                Asked(each["question"], tuple(a["text"] for a in each["answers"]), article, number in kept)
                for each in paragraph["qas"]
            ]
    return asked


def search(asked: Sequence[Asked], site: Path, home: Home) -> list[list[Passage]]:
    """The passages for each question, of the index that a night makes of the site."""
    config = ReindexConfig.model_validate({"name": site.name, "sources": [{"name": "docs", "location": str(site)}]})
    work, prepared = quick_night(config, home)
    assert not prepared.failed
    reader = IndexReader(IndexStore.open(home.lancedb, work.table), load_embedder(config.embedder, home), config.search)
    return reader.search([each.question for each in asked], PolicyConfig().passages)


def measure(asked: Sequence[Asked], found: Sequence[list[Passage]], seed: int) -> tuple[Calibrated, dict[str, float]]:
    """Calibrated on the questions of half of the articles, measured on those of the other half."""
    articles = sorted({each.article for each in asked})
    known = set(random.Random(seed).sample(articles, len(articles) // 2))
    pairs = list(zip(asked, found, strict=True))
    examples = [Example(each.question, passages, each.answerable) for each, passages in pairs if each.article in known]
    calibrated = calibrate(examples, GroundingConfig().min_precision)
    return calibrated, _score(calibrated, [pair for pair in pairs if pair[0].article not in known])


def _score(calibrated: Calibrated, pairs: Sequence[tuple[Asked, list[Passage]]]) -> dict[str, float]:
    generator = ExtractiveGenerator(GeneratorConfig().sentences)
    refusals = {True: 0, False: 0}
    answered = {True: 0, False: 0}
    first = some = every = quoted = differing = planted = 0
    seconds = []
    for (asked, passages), (other, _) in zip(pairs, [*pairs[1:], pairs[0]], strict=True):
        split.cache_clear()
        content_words.cache_clear()
        start = perf_counter()
        refused = calibrated.grounding.probability(asked.question, passages) < calibrated.grounding.threshold
        text = generator.answer(asked.question, passages, []).text
        differ = bool(find_conflict(asked.question, passages))
        seconds.append(perf_counter() - start)
        (refusals if refused else answered)[asked.answerable] += 1
        if not refused and asked.answerable:
            cited = [passages[int(number) - 1].text for number in re.findall(r" \[(\d+)\]", text)]
            holds = [any(answer in passage for answer in asked.answers) for passage in cited]
            first, some, every = first + holds[0], some + any(holds), every + all(holds)
            quoted += any(answer in text for answer in asked.answers)
            differing += differ
            planted += bool(find_conflict(asked.question, [*passages[:-1], _contradicting(asked, other, passages)]))
    return {
        "questions": len(pairs),
        "unanswerable": refusals[False] + answered[False],
        "refused answerable": refusals[True],
        "answered unanswerable": answered[False],
        "refusal precision": refusals[False] / max(1, sum(refusals.values())),
        "refusal recall": refusals[False] / (refusals[False] + answered[False]),
        "first citation holds the answer": first / answered[True],
        "any citation holds the answer": some / answered[True],
        "every citation holds the answer": every / answered[True],
        "quotation holds the answer": quoted / answered[True],
        "differing sources shown, though none differ": differing / answered[True],
        "differing sources shown, one planted": planted / answered[True],
        "first citation, of all answered": first / sum(answered.values()),
        "p50 ms": 1000 * float(np.percentile(seconds, 50)),
        "p95 ms": 1000 * float(np.percentile(seconds, 95)),
    }


def _contradicting(asked: Asked, other: Asked, passages: Sequence[Passage]) -> Passage:
    """A page that answers the question otherwise; the first passage, where none has the answer."""
    [answer, *_], [wrong, *_] = asked.answers, other.answers
    page = next((passage for passage in passages if answer in passage.text), passages[0])
    return replace(page, id="planted#0", document="planted", text=page.text.replace(answer, wrong))
