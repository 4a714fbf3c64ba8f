"""Memory of a build of 100,000 passages, step by step, and that it does not grow with the build.

    python -m tests.benchmarks.memory_100k

The real path from files to a maintained table, in a process of its own for each size, with an embedder that costs
nothing: its batches are as large as any other's. Resident memory of the process and of its converters is sampled
every 50 ms; shared pages count in each process that maps them.
"""

import argparse
import json
import os
import subprocess
import sys
import tempfile
import threading
import time
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import psutil

from tests.benchmarks.peers.corpus import make_corpus
from tests.benchmarks.reporting import save, table

PASSAGES_PER_DOCUMENT = 12.5
"""Of the handbook, cut as configured by default."""
SIZES = (25_000, 100_000)


class Sampler:
    """The most memory that this process and its children held during each step, in MB."""

    def __init__(self) -> None:
        self.steps: dict[str, dict[str, float]] = {}
        self._me = psutil.Process()
        self._own = self._all = 0.0
        self._stop = threading.Event()
        threading.Thread(target=self._run, daemon=True).start()

    @contextmanager
    def step(self, name: str) -> Iterator[None]:
        self._own = self._all = 0.0
        start = time.perf_counter()
        yield
        self._sample()
        self.steps[name] = {
            "seconds": time.perf_counter() - start,
            "peak_mb": self._own,
            "peak_with_converters_mb": self._all,
            "after_mb": self._me.memory_info().rss / 2**20,
        }

    def _run(self) -> None:
        while not self._stop.wait(0.05):
            self._sample()

    def _sample(self) -> None:
        own, children = self._me.memory_info().rss, 0
        for child in self._me.children(recursive=True):
            try:
                children += child.memory_info().rss
            except psutil.NoSuchProcess:
                continue
        self._own = max(self._own, own / 2**20)
        self._all = max(self._all, (own + children) / 2**20)


def build(folder: Path) -> dict[str, Any]:
    """One build in this process, whose home is fresh; a second night finds 1 % of the documents changed."""
    sampler = Sampler()
    with sampler.step("imports"):
        from tasks.collect import collect
        from tasks.compare import compare
        from tasks.config.index import ReindexConfig
        from tasks.config.settings import find_home
        from tasks.index.search import IndexReader
        from tasks.index.store import IndexStore
        from tasks.maintain import maintain
        from tasks.prepare import prepare
        from tasks.write import write
        from tests.benchmarks.cheap import CheapEmbedder, cheap_embedding
        from tests.benchmarks.one_percent_night import edit, every

    home = find_home()
    source = {"name": "docs", "location": str(folder)}
    config = ReindexConfig.model_validate({"name": "docs", "sources": [source]})
    with cheap_embedding():
        for night in ("", ", 1 % changed"):
            with sampler.step(f"list and compare{night}"):
                listing = collect.fn(config.sources[0], config.parsing.max_file_mb)
                work = compare(config, [listing], {}, False, {}, home)
            with sampler.step(f"parse, cut and embed{night}"):
                prepared = prepare.fn(config, [listing], work)
            with sampler.step(f"write{night}"):
                write.fn(work, prepared)
            with sampler.step(f"indices and checks{night}"):
                maintained = maintain.fn(config, work.table)
            edit(every(sorted(folder.rglob("*.md")), 0.01, 0), "the second night")
    with sampler.step("open and answer 100 queries"):
        store = IndexStore.open(home.lancedb, work.table)
        reader = IndexReader(store, CheapEmbedder(config.embedder, home), config.search)
        reader.warm()
        reader.search([f"how many days of leave in year {number}" for number in range(100)])
    return {"documents": len(maintained.documents), "passages": maintained.health.passages, "steps": sampler.steps}


def in_new_process(passages: int) -> dict[str, Any]:
    with tempfile.TemporaryDirectory() as work:
        folder = Path(work) / "docs"
        make_corpus(folder, round(passages / PASSAGES_PER_DOCUMENT))
        command = [sys.executable, "-m", "tests.benchmarks.memory_100k", "--build", str(folder)]
        environment = os.environ | {"TANDEM_HOME": f"{work}/home"}
        done = subprocess.run(command, env=environment, stdout=subprocess.PIPE, text=True, check=True)
    return json.loads(done.stdout.splitlines()[-1])


def report(builds: list[dict[str, Any]]) -> None:
    small, large = builds[0], builds[-1]
    names = [f"{build['passages']:,} passages" for build in builds]
    rows = [
        [step, *(build["steps"][step][key] for build in builds for key in ("peak_mb", "peak_with_converters_mb"))]
        for step in large["steps"]
    ]
    step = "parse, cut and embed"
    grown = large["steps"][step]["peak_mb"] - small["steps"][step]["peak_mb"]
    more = large["passages"] - small["passages"]
    said = (
        f"Peak resident memory in MB, of the process, and with its converters. From {small['passages']:,} to "
        f"{large['passages']:,} passages the step `{step}` grew by {grown:.0f} MB, which is "
        f"{grown * 2**20 / more / 1024:.2f} kB for each further passage; its vector alone takes 1.5 kB."
    )
    head = ["step", *(f"{name}{what}" for name in names for what in (": process", ": with converters"))]
    after = table(["step", *names], [[s, *(b["steps"][s]["seconds"] for b in builds)] for s in large["steps"]])
    result = {"builds": builds, "growth_mb": grown}
    save(
        "memory_100k", f"Memory at {large['passages']:,} passages", result, [said, table(head, rows), "Seconds:", after]
    )


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--passages", type=int, nargs=2, default=SIZES, metavar=("FEWER", "MORE"))
    parser.add_argument("--build", type=Path, help=argparse.SUPPRESS)
    arguments = parser.parse_args()
    if arguments.build:
        print(json.dumps(build(arguments.build)))
        return
    report([in_new_process(passages) for passages in arguments.passages])


if __name__ == "__main__":
    main()
