"""A night on which nothing changed, 2,000 documents, beside LangChain's index(), taken in turns.

    python -m tests.benchmarks.unchanged_night

Both are warm, each in a process that lives as long as the measurement; Tandem runs its whole flow with a real
Prefect server and MLflow. The first build embeds nothing worth the name in either. Also stated: the whole command
in a process of its own.
"""

import argparse
import os
import subprocess
import sys
import tempfile
import time
from collections.abc import Callable
from functools import wraps
from pathlib import Path
from statistics import median
from typing import Any

import yaml

from tasks.config.settings import find_home
from tests.benchmarks.cheap import cheap_embedding
from tests.benchmarks.installation import new_home, prefect_server
from tests.benchmarks.peers.corpus import make_corpus
from tests.benchmarks.peers.environment import langchain_nights, peers_python
from tests.benchmarks.reporting import save, table

GOLDEN_QUERIES = 100


def build(config_file: Path, settings: dict[str, Any], golden: Path) -> None:
    """The first night, and the second, from which on there are golden queries."""
    from flows.reindex import reindex
    from tasks.config.index import ReindexConfig
    from tasks.golden import draft_for_index

    with cheap_embedding():
        reindex(ReindexConfig.model_validate(settings))
        draft_for_index(settings["name"], golden, GOLDEN_QUERIES, find_home())
        settings["golden"] = str(golden)
        reindex(ReindexConfig.model_validate(settings))
    config_file.write_text(yaml.safe_dump(settings))


def timed_flow() -> Callable[[Any], dict[str, Any]]:
    """A night of the flow: seconds of its steps, of its body, and until its result is back."""
    from flows.reindex import reindex

    body: list[float] = []
    original = reindex.fn

    @wraps(original)
    def watched(*args: Any, **kwargs: Any) -> Any:
        start = time.perf_counter()
        result = original(*args, **kwargs)
        body.append(time.perf_counter() - start)
        return result

    reindex.fn = watched

    def night(config: Any) -> dict[str, Any]:
        start = time.perf_counter()
        result = reindex(config)
        whole = time.perf_counter() - start
        if result.decision != "unchanged":
            sys.exit(f"this night was not unchanged: {result}")
        return {**result.seconds, "steps": sum(result.seconds.values()), "body": body[-1], "with Prefect": whole}

    return night


def on_disk(home: Path) -> dict[str, tuple[int, int]]:
    """Size and time of everything a night could write: tables, converted texts, vectors."""
    kept = [*(home / "data" / "lancedb").rglob("*"), *(home / "data" / "cache").rglob("*.sqlite")]
    return {str(path): (path.stat().st_size, path.stat().st_mtime_ns) for path in kept if path.is_file()}


def cold_night(config_file: Path, environment: dict[str, str]) -> float:
    """Seconds of the command, from the start of its process to its end."""
    command = [str(Path(sys.executable).with_name("tandem")), "reindex", str(config_file), "--json"]
    start = time.perf_counter()
    subprocess.run(command, check=True, capture_output=True, env=os.environ | environment)
    return time.perf_counter() - start


def measure(work: Path, documents: int, rounds: int, beside_langchain: bool) -> dict[str, Any]:
    from tasks.config.index import ReindexConfig

    folder, home, config_file = work / "docs", work / "home", work / "docs.yaml"
    make_corpus(folder, documents)
    settings: dict[str, Any] = {"name": "docs", "sources": [{"name": "docs", "location": str(folder)}]}
    with prefect_server() as environment:
        build(config_file, settings, work / "golden.jsonl")
        config, night = ReindexConfig.model_validate(settings), timed_flow()
        night(config)
        before = on_disk(home)
        ours, theirs = [], []
        if beside_langchain:
            with langchain_nights(folder, work / "langchain") as peer:
                for _ in range(rounds):
                    theirs.append(peer("full")["seconds"])
                    ours.append(night(config))
        else:
            ours = [night(config) for _ in range(rounds)]
        after = on_disk(home)
        cold = [cold_night(config_file, environment) for _ in range(2)]
    return {
        "documents": documents,
        "tandem": ours,
        "langchain": theirs,
        "tandem_command_cold": min(cold),
        "files_compared": len(before),
        "nothing_written": before == after,
    }


def medians(nights: list[dict[str, float]]) -> dict[str, float]:
    return {key: median(night[key] for night in nights) for key in nights[0]}


def report(result: dict[str, Any]) -> None:
    ours = medians(result["tandem"])
    rows = [[f"Tandem: {step}", seconds] for step, seconds in ours.items()]
    rows.append(["Tandem: the command, in a new process", result["tandem_command_cold"]])
    parts = []
    if result["langchain"]:
        theirs = medians(result["langchain"])
        rows += [[f"LangChain: {step}", seconds] for step, seconds in theirs.items()]
        ratios = {
            f"LangChain's {whole} over Tandem's {part}": median(
                a[whole] / b[part] for a, b in zip(result["langchain"], result["tandem"], strict=True)
            )
            for whole in ("index", "index, splitting by characters", "index without loading and splitting")
            for part in ("steps", "body", "with Prefect")
        }
        result["times_as_fast"] = ratios
        parts = [table(["within the same round", "times as fast"], [[k, round(v)] for k, v in ratios.items()])]
    written = "nothing was written" if result["nothing_written"] else "SOMETHING WAS WRITTEN"
    said = (
        f"{result['documents']:,} documents, {len(result['tandem'])} rounds in turns; medians. `steps` are the steps "
        "of the flow, `body` is all between the flow's first and last line, the report's artifact included; `with "
        "Prefect` adds what Prefect does before and after it. LangChain's index() is given a loader, and asks it "
        "to load and split all documents to learn that nothing changed. In the tables and caches "
        f"({result['files_compared']} files compared by size and time) {written}."
    )
    parts = [said, *parts, table(["", "seconds"], rows)]
    save("unchanged_night", "A night on which nothing changed", result, parts)


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--documents", type=int, default=2000)
    parser.add_argument("--rounds", type=int, default=5)
    parser.add_argument("--alone", action="store_true", help="without LangChain")
    arguments = parser.parse_args()
    with tempfile.TemporaryDirectory() as folder:
        peers = None if arguments.alone else Path(peers_python()).parents[1]
        new_home(Path(folder) / "home", peers)
        result = measure(Path(folder), arguments.documents, arguments.rounds, not arguments.alone)
    report(result)
    if not result["nothing_written"]:
        sys.exit("an unchanged night wrote something")


if __name__ == "__main__":
    main()
