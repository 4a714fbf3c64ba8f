"""The packaged embedder on this machine: speed, and what each precision costs in retrieval quality.

    python -m tests.benchmarks.embedding_speed [--documents N] [--data FOLDER]

All variants run side by side in turns, so that a busy machine slows them alike; quality is nDCG@10 of exact search
over SciFact, the whole of it unless `--documents` samples.
"""

import argparse
import json
import random
import statistics
import subprocess
import sys
import tempfile
import time
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any

import ir_measures
import numpy as np
from ir_measures import Qrel, ScoredDoc, nDCG

from tasks.config.index import EmbedderConfig
from tasks.config.settings import Home
from tasks.index.cache import Vectors
from tasks.index.embedding import load_embedder, packaged_folder, resolve
from tests.benchmarks.machine import describe
from tests.benchmarks.reporting import write

DATA = Path(__file__).resolve().parents[3] / "shared" / "data" / "scifact"
PEER = "sentence-transformers fp32"
ROUNDS = 5

Embed = Callable[[Sequence[str]], Vectors]

START = """
import time
begin = time.perf_counter()
from tasks.config.index import EmbedderConfig
from tasks.config.settings import find_home
from tasks.index.embedding import load_embedder
load_embedder(EmbedderConfig(), find_home()).embed_queries(["a question"])
print(time.perf_counter() - begin)
"""


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--documents", type=int, help="sample: as many documents beside the judged ones")
    parser.add_argument("--data", type=Path, default=DATA, help="the folder of SciFact")
    arguments = parser.parse_args()
    documents, queries, judgements = read_scifact(arguments.data, arguments.documents)
    with tempfile.TemporaryDirectory() as folder:
        home = Home(Path(folder))
        passages, questions = load_variants(home)
        long = random.Random(0).sample(sorted(documents.values()), 64)
        speed = {
            "abstracts": measure_speed(passages, long),
            "first sentences": measure_speed(passages, [text[:200] for text in long * 2]),
        }
        result = {
            "machine": describe(),
            "auto": resolve(EmbedderConfig()).precision,
            "documents": len(documents),
            "queries": len(queries),
            "start_seconds": min(measure_start(home) for _ in range(3)),
            "query_ms": {name: measure_latency(embed) for name, embed in questions.items()},
            "speed": speed,
            "quality": measure_quality(passages, questions, documents, queries, judgements),
        }
    write("embedding_speed", result, markdown(result))


def read_scifact(folder: Path, sample: int | None) -> tuple[dict[str, str], dict[str, str], list[tuple[str, str, int]]]:
    """Documents and queries by id, and judgements as (query, document, relevance)."""
    corpus = [json.loads(line) for line in (folder / "corpus.jsonl").read_text("utf-8").splitlines()]
    lines = (folder / "qrels.tsv").read_text("utf-8").splitlines()[1:]
    judgements = [
        (query, document, int(relevance)) for query, document, relevance in (line.split("\t") for line in lines)
    ]
    judged = {document for _, document, _ in judgements}
    others = [record["_id"] for record in corpus if record["_id"] not in judged]
    kept = judged | set(others if sample is None else random.Random(0).sample(others, sample))
    documents = {
        record["_id"]: f"{record['title']} {record['text']}".strip() for record in corpus if record["_id"] in kept
    }
    asked = {query for query, _, _ in judgements}
    records = [json.loads(line) for line in (folder / "queries.jsonl").read_text("utf-8").splitlines()]
    queries = {record["_id"]: record["text"] for record in records if record["_id"] in asked}
    return documents, queries, judgements


def load_variants(home: Home) -> tuple[dict[str, Embed], dict[str, Embed]]:
    """What embeds passages, and what embeds queries, by the variant's name; the peer first."""
    from sentence_transformers import SentenceTransformer

    peer = SentenceTransformer(str(packaged_folder()), device="cpu")

    def encode(texts: Sequence[str]) -> Vectors:
        return np.asarray(peer.encode(list(texts), normalize_embeddings=True), dtype=np.float32)

    ours = {
        precision: load_embedder(EmbedderConfig.model_validate({"precision": precision}), home)
        for precision in ("fp32", "bf16", "int8")
    }
    passages: dict[str, Embed] = {PEER: encode}
    passages |= {f"Tandem {name}": embedder.embed_passages for name, embedder in ours.items()}
    questions: dict[str, Embed] = {PEER: encode}
    questions |= {f"Tandem {name}": embedder.embed_queries for name, embedder in ours.items()}
    return passages, questions


def measure_speed(variants: dict[str, Embed], texts: list[str]) -> dict[str, dict[str, float]]:
    """Median texts a second, and median ratio to the peer within the same round."""
    rates: dict[str, list[float]] = {name: [] for name in variants}
    for embed in variants.values():
        embed(texts[:8])
    for _ in range(ROUNDS):
        for name, embed in variants.items():
            start = time.perf_counter()
            embed(texts)
            rates[name].append(len(texts) / (time.perf_counter() - start))
    return {
        name: {
            "texts_per_second": statistics.median(own),
            "times_the_peer": statistics.median(a / b for a, b in zip(own, rates[PEER], strict=True)),
        }
        for name, own in rates.items()
    }


def measure_latency(embed: Embed) -> dict[str, float]:
    """Milliseconds for one question in a process that is already serving."""
    taken = []
    for number in range(120):
        start = time.perf_counter()
        embed([f"How many days of annual leave do I have left in year {number}?"])
        taken.append(1000 * (time.perf_counter() - start))
    p50, p95 = np.percentile(taken[20:], [50, 95])
    return {"p50": float(p50), "p95": float(p95)}


def measure_start(home: Home) -> float:
    """Seconds from the first import to the first vector, in a process of its own."""
    done = subprocess.run(
        [sys.executable, "-c", f"import os; os.environ['TANDEM_HOME'] = {str(home.root)!r}\n{START}"],
        capture_output=True,
        text=True,
        check=True,
    )
    return float(done.stdout)


def measure_quality(
    passages: dict[str, Embed],
    questions: dict[str, Embed],
    documents: dict[str, str],
    queries: dict[str, str],
    judgements: list[tuple[str, str, int]],
) -> dict[str, dict[str, float]]:
    """nDCG@10, its relative loss against the peer, and the mean cosine to the peer's vectors."""
    qrels = [Qrel(*judgement) for judgement in judgements]
    ids, found = list(documents), {}
    reference: Vectors | None = None
    for name, embed in passages.items():
        start = time.perf_counter()
        vectors = embed(list(documents.values()))
        seconds = time.perf_counter() - start
        reference = vectors if reference is None else reference
        scores = questions[name](list(queries.values())) @ vectors.T
        best = np.argsort(-scores, axis=1)[:, :10]
        run = [
            ScoredDoc(query, ids[place], float(row[place]))
            for query, row, places in zip(queries, scores, best, strict=True)
            for place in places
        ]
        found[name] = {
            "ndcg@10": ir_measures.calc_aggregate([nDCG @ 10], qrels, run)[nDCG @ 10],
            "mean_cosine": float((vectors * reference).sum(axis=1).mean()),
            "seconds": seconds,
        }
    for own in found.values():
        own["loss"] = 1 - own["ndcg@10"] / found[PEER]["ndcg@10"]
    return found


def markdown(result: dict[str, Any]) -> str:
    machine = result["machine"]
    lines = [
        "# Embedding with all-MiniLM-L6-v2 on a CPU",
        "",
        f"{machine['cpu']}, {machine['cores']} cores, {', '.join(machine['flags'])}; SciFact, {result['documents']} "
        f"documents, {result['queries']} queries. `auto` chooses {result['auto']} here. From start to the first "
        f"vector: {result['start_seconds']:.2f} s.",
        "",
        "| variant | abstracts/s | times the peer | short texts/s | times the peer | nDCG@10 | loss | mean cosine "
        "| one query p50, p95 ms |",
        "| --- | --- | --- | --- | --- | --- | --- | --- | --- |",
    ]
    for name, quality in result["quality"].items():
        abstracts, short = (result["speed"][kind][name] for kind in ("abstracts", "first sentences"))
        query = result["query_ms"][name]
        lines.append(
            f"| {name} | {abstracts['texts_per_second']:.0f} | {abstracts['times_the_peer']:.1f} "
            f"| {short['texts_per_second']:.0f} | {short['times_the_peer']:.1f} | {quality['ndcg@10']:.4f} "
            f"| {quality['loss']:+.2%} | {quality['mean_cosine']:.5f} | {query['p50']:.1f}, {query['p95']:.1f} |"
        )
    return "\n".join(lines) + "\n"


if __name__ == "__main__":
    main()
