"""Public questions with people's judgements, as documents and golden queries of an index."""

import json
from pathlib import Path

from tasks.config.index import ReindexConfig
from tasks.config.settings import Home
from tasks.evaluation.golden import GoldenQuery
from tasks.evaluation.retrieval import Estimate, score
from tasks.index.embedding import load_embedder
from tasks.index.search import IndexReader, Mode
from tasks.index.store import IndexStore
from tests.benchmarks.peers import corpus
from tests.nights import quick_night
from tests.realdata import SHARED

DEPTH = 50


def write_scifact(folder: Path, claims: int | None = None, every: int = 1) -> list[GoldenQuery]:
    """A page an abstract, and the claims with the abstracts that bear on them.

    Only the first `claims` of them, with every abstract that one of these names, and every so many of the others.
    """
    lines = (SHARED / "scifact" / "qrels.tsv").read_text("utf-8").splitlines()[1:]
    relevant: dict[str, list[str]] = {}
    for query, document, _ in (line.split("\t") for line in lines):
        relevant.setdefault(query, []).append(document)
    relevant = dict(list(relevant.items())[:claims])
    needed = {document for documents in relevant.values() for document in documents}
    corpus.write_scifact(folder, needed, every)
    asked = map(json.loads, (SHARED / "scifact" / "queries.jsonl").read_text("utf-8").splitlines())
    texts = {record["_id"]: record["text"] for record in asked}
    return [_golden(query, texts[query], documents) for query, documents in relevant.items()]


def write_xquad(folder: Path, articles: int | None = None) -> list[GoldenQuery]:
    """A page a paragraph, and the questions that it answers; of the first `articles` only."""
    stored = json.loads((SHARED / "xquad" / "xquad.en.json").read_text("utf-8"))["data"][:articles]
    queries = []
    for number, paragraph in enumerate(paragraph for article in stored for paragraph in article["paragraphs"]):
        (folder / f"{number}.md").write_text(paragraph["context"], "utf-8")
        queries += [_golden(asked["id"], asked["question"], [str(number)]) for asked in paragraph["qas"]]
    return queries


def _golden(id: str, query: str, pages: list[str]) -> GoldenQuery:
    return GoldenQuery(query=query, relevant=tuple(f"docs/{page}.md" for page in pages), id=id)


def open_index(site: Path, home: Home, precision: str = "auto", **settings: object) -> IndexReader:
    """The index that a night makes of the site."""
    source = {"name": "docs", "location": str(site)}
    config = ReindexConfig.model_validate(
        {"name": "docs", "sources": [source], "embedder": {"precision": precision}} | settings
    )
    work, prepared = quick_night(config, home)
    assert not prepared.failed
    return IndexReader(IndexStore.open(home.lancedb, work.table), load_embedder(config.embedder, home), config.search)


def measure(
    queries: list[GoldenQuery], site: Path, home: Home, precision: str, modes: tuple[Mode, ...]
) -> dict[str, Estimate]:
    """nDCG@10 by mode, of the index that a night makes of the site."""
    reader = open_index(site, home, precision)
    scores: dict[str, Estimate] = {}
    for mode in modes:
        found = reader.search([query.query for query in queries], DEPTH, mode)
        ranked = [[(passage.document, passage.id) for passage in passages] for passages in found]
        scores[mode] = score(queries, ranked).means["ndcg@10"]
    return scores
