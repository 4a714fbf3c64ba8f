"""First build of an index, beside LlamaIndex's IngestionPipeline and LangChain's index(), taken in turns.

    python -m tests.benchmarks.against_peers

Speed on the handbook; speed and nDCG@10 on scifact, which has people's judgements. Writes
results/against_peers.json and results/against_peers.md beside this file.
"""

import argparse
import sys
import tempfile
from pathlib import Path
from statistics import median
from typing import Any

import ir_measures
from ir_measures import Qrel, ScoredDoc, nDCG

from tests.benchmarks.peers.corpus import SCIFACT, make_corpus, write_scifact
from tests.benchmarks.peers.environment import build, langchain_build, llamaindex_build
from tests.benchmarks.reporting import save, table

HANDBOOK_PAGES = 246


def tandem_build(folder: Path, home: Path, queries: Path | None = None) -> dict[str, Any]:
    return build([sys.executable, "-m", "tests.benchmarks.tandem_build"], folder, home, queries)


SYSTEMS = {"Tandem": tandem_build, "LlamaIndex": llamaindex_build, "LangChain": langchain_build}


def in_turns(folder: Path, rounds: int, queries: Path | None = None) -> dict[str, list[dict[str, Any]]]:
    """Every system builds once a round, so that a busy machine slows them alike."""
    runs: dict[str, list[dict[str, Any]]] = {name: [] for name in SYSTEMS}
    for number in range(rounds):
        for name, build_with in SYSTEMS.items():
            with tempfile.TemporaryDirectory() as output:
                run = build_with(folder, Path(output), queries)
            runs[name].append(run)
            speed = f"{run['passages']} passages, {run['passages_per_second']:.1f} a second"
            print(f"{folder.name} {number + 1}/{rounds} {name}: {speed}", file=sys.stderr)
    return runs


def ndcg_at_10(rankings: dict[str, list[str]]) -> float:
    """Mean nDCG@10 of ranked scifact documents (`<id>.md`, in whatever folder), by ir_measures."""
    lines = (SCIFACT / "qrels.tsv").read_text("utf-8").splitlines()[1:]
    qrels = [Qrel(query, document, int(grade)) for query, document, grade in map(str.split, lines)]
    ranked = [
        ScoredDoc(query, Path(document).stem, -position)
        for query, documents in rankings.items()
        for position, document in enumerate(documents)
    ]
    return ir_measures.calc_aggregate([nDCG @ 10], qrels, ranked)[nDCG @ 10]


def summarise(runs: dict[str, list[dict[str, Any]]]) -> dict[str, dict[str, float]]:
    """Medians over the rounds; `times_*` is Tandem's figure over this system's within the same round."""
    rows = {}
    for name, own in runs.items():
        row = {key: median(run[key] for run in own) for key in ("passages", "wall_seconds", "peak_rss_mb")}
        for unit in ("passages_per_second", "characters_per_second"):
            row[unit] = median(run[unit] for run in own)
            pairs = zip(runs["Tandem"], own, strict=True)
            row[f"times_{unit}"] = median(tandem[unit] / run[unit] for tandem, run in pairs)
        if own[0]["rankings"]:
            row["ndcg@10"] = ndcg_at_10(own[0]["rankings"])
        rows[name] = row
    return rows


def tables(summaries: dict[str, dict[str, dict[str, float]]]) -> list[str]:
    """A heading and a table for each corpus."""
    units = ["passages", "passages/s", "Tandem is", "characters/s", "Tandem is", "process s", "peak MB", "nDCG@10"]
    parts = []
    for corpus, rows in summaries.items():
        cells = [
            [
                name,
                f"{row['passages']:.0f}",
                f"{row['passages_per_second']:.1f}",
                f"{row['times_passages_per_second']:.2f} ×",
                f"{row['characters_per_second']:.0f}",
                f"{row['times_characters_per_second']:.2f} ×",
                f"{row['wall_seconds']:.0f}",
                f"{row['peak_rss_mb']:.0f}",
                f"{row['ndcg@10']:.4f}" if "ndcg@10" in row else "–",
            ]
            for name, row in rows.items()
        ]
        parts += [f"## {corpus}", table(["", *units], cells)]
    return parts


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--corpus", choices=("handbook", "scifact"), help="only this one")
    parser.add_argument("--rounds", type=int, default=3, help="turns on the handbook; scifact is built once")
    parser.add_argument("--pages", type=int, default=HANDBOOK_PAGES, help="handbook pages, for a quick try")
    args = parser.parse_args()
    runs = {}
    with tempfile.TemporaryDirectory() as work:
        if args.corpus != "scifact":
            folder = Path(work) / "handbook"
            make_corpus(folder, args.pages)
            runs["handbook"] = in_turns(folder, args.rounds)
        if args.corpus != "handbook":
            folder = Path(work) / "scifact"
            write_scifact(folder)
            runs["scifact"] = in_turns(folder, 1, SCIFACT / "queries.jsonl")
    summaries = {corpus: summarise(of_corpus) for corpus, of_corpus in runs.items()}
    for run in (run for of_corpus in runs.values() for own in of_corpus.values() for run in own):
        run.pop("rankings")
    name = f"against_peers_{args.corpus}" if args.corpus else "against_peers"
    save(name, "First build beside the peers", {"summaries": summaries, "runs": runs}, tables(summaries))


if __name__ == "__main__":
    main()
