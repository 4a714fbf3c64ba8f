"""Retrieval on public questions, from files to scores: the whole path of a night, with the packaged model."""

import json
from collections.abc import Callable
from pathlib import Path

import pytest

from tasks.config.index import ReindexConfig
from tasks.config.settings import Home
from tasks.evaluation.golden import GoldenQuery
from tasks.evaluation.retrieval import score
from tasks.index.embedding import load_embedder
from tasks.index.search import IndexReader, Mode
from tasks.index.store import IndexStore
from tests.conftest import SHARED, needs_real_data
from tests.nights import quick_night

pytestmark = [pytest.mark.realdata, needs_real_data, pytest.mark.timeout(900)]

CLAIMS = 150
"""Of scifact's 300 judged claims; every abstract that one of them names, and every fifteenth other."""
DEPTH = 50


def write_scifact(folder: Path) -> list[GoldenQuery]:
    """A page an abstract, and the claims with the abstracts that bear on them."""
    lines = (SHARED / "scifact" / "qrels.tsv").read_text("utf-8").splitlines()[1:]
    relevant: dict[str, list[str]] = {}
    for query, document, _ in (line.split("\t") for line in lines):
        relevant.setdefault(query, []).append(document)
    relevant = dict(list(relevant.items())[:CLAIMS])
    needed = {document for documents in relevant.values() for document in documents}
    for number, line in enumerate((SHARED / "scifact" / "corpus.jsonl").read_text("utf-8").splitlines()):
        record = json.loads(line)
        if record["_id"] in needed or number % 15 == 0:
            text = f"# {record['title']}\n\n{record['text']}\n"
            (folder / f"{record['_id']}.md").write_text(text, "utf-8")
    asked = map(json.loads, (SHARED / "scifact" / "queries.jsonl").read_text("utf-8").splitlines())
    claims = {record["_id"]: record["text"] for record in asked}
    return [golden(query, claims[query], documents) for query, documents in relevant.items()]


def write_xquad(folder: Path) -> list[GoldenQuery]:
    """A page a paragraph, and the questions that it answers."""
    articles = json.loads((SHARED / "xquad" / "xquad.en.json").read_text("utf-8"))["data"]
    queries = []
    for number, paragraph in enumerate(paragraph for article in articles for paragraph in article["paragraphs"]):
        (folder / f"{number}.md").write_text(paragraph["context"], "utf-8")
        queries += [golden(asked["id"], asked["question"], [str(number)]) for asked in paragraph["qas"]]
    return queries


def golden(id: str, query: str, pages: list[str]) -> GoldenQuery:
    return GoldenQuery(query=query, relevant=tuple(f"docs/{page}.md" for page in pages), id=id)


@pytest.mark.parametrize("write", [write_scifact, write_xquad], ids=["scifact", "xquad"])
def test_hybrid_search_is_no_worse_than_the_better_of_vectors_and_full_text(
    home: Home, site: Path, write: Callable[[Path], list[GoldenQuery]]
) -> None:
    scores = measure(write(site), site, home, "auto", ("vector", "text", "hybrid"))
    assert scores["hybrid"] >= max(scores["vector"], scores["text"]), scores


def test_half_precision_and_rounded_weights_lose_no_more_than_half_a_percent(home: Home, site: Path) -> None:
    queries = write_scifact(site)
    scores = {name: measure(queries, site, home, name, ("vector",))["vector"] for name in ("fp32", "bf16", "int8")}
    assert min(scores["bf16"], scores["int8"]) >= 0.995 * scores["fp32"], scores


def measure(
    queries: list[GoldenQuery], site: Path, home: Home, precision: str, modes: tuple[Mode, ...]
) -> dict[str, float]:
    """nDCG@10 by mode, of the index that a night makes of the site."""
    source = {"name": "docs", "location": str(site)}
    embedder = {"precision": precision}
    config = ReindexConfig.model_validate({"name": "docs", "sources": [source], "embedder": embedder})
    work, prepared = quick_night(config, home)
    assert not prepared.failed
    reader = IndexReader(IndexStore.open(home.lancedb, work.table), load_embedder(config.embedder, home), config.search)
    scores: dict[str, float] = {}
    for mode in modes:
        found = reader.search([query.query for query in queries], DEPTH, mode)
        ranked = [[(passage.document, passage.id) for passage in passages] for passages in found]
        scores[mode] = score(queries, ranked).means["ndcg@10"].mean
    return scores
