"""A hundred real nights of a documentation site with the maintenance every seventh: the disk, and what still answers.

    python -m tests.benchmarks.hundred_nights

The nights are the last days with changes of a quarter of the handbook, one run of the flow `reindex` each. Between two
of them everything in the home becomes a day older, so that what is kept is what a hundred days would have kept. After
each night fixed queries are asked of its version; at the end every version that is left is asked again.
"""

import argparse
import sqlite3
import tempfile
import time
from contextlib import closing
from pathlib import Path
from typing import Any

from tests.benchmarks.installation import new_home, prefect_server
from tests.benchmarks.reporting import RESULTS, save, table
from tests.benchmarks.thirty_nights import HistoryNight, clone_history, history_nights, run, settings_of

PAGES = "**/[bcdgp]*.md"
LAST_DAY = "2021-06-30"
"""Before the pages were put into folders, which would have been one change of everything."""
DAY = 86_400
WEEK = 7
GOLDEN_QUERIES = 40
QUERIES = 20
COUNTED = ("documents added", "documents changed", "documents moved")


def measure(work: Path, location: str, nights: list[HistoryNight]) -> dict[str, Any]:
    """Every night, and whether what is left at the end answers as on its day."""
    from tasks.config.settings import find_home
    from tasks.golden import draft_for_index
    from tasks.housekeeping import space
    from tasks.registry.connection import connect
    from tasks.registry.versions import list_versions

    home, golden = find_home(), work / "golden.jsonl"
    done: list[dict[str, Any]] = []
    answered: dict[int, Any] = {}
    maintenance: list[dict[str, Any]] = []
    run(settings_of(nights[0], location, pages=PAGES), nights[0].day)
    draft_for_index("handbook", golden, GOLDEN_QUERIES, home)
    queries = queries_of(golden)
    for number, night in enumerate(nights, start=1):
        age(home.mlruns / "mlflow.db", home.cache)
        settings = settings_of(night, location, golden, PAGES) | {"gate": {"min_queries": 5}}  # as they age
        record = run(settings, night.day, allow_deletions=True)
        if record["version"]:
            answered[record["version"]] = answers(record["version"], queries)
        if number % WEEK == 0 or number == len(nights):
            maintenance.append(keep_house(number))
        record |= {"space": space(home), "versions": len(list_versions(connect(home), "handbook"))}
        done.append(record)
    left = [version.number for version in list_versions(connect(home), "handbook")]
    same = {number: answers(number, queries) == answered[number] for number in left if number in answered}
    return {"nights": done, "maintenance": maintenance, "left": left, "same": same}


def queries_of(golden: Path) -> list[str]:
    from tasks.evaluation.golden import load_golden

    return [query.query for query in load_golden(str(golden))][:QUERIES]


def answers(version: int, queries: list[str]) -> list[list[tuple[str, float]]]:
    """What this version finds: passages and scores."""
    from tasks.config.settings import find_home
    from tasks.serving import reader_of

    found = reader_of("handbook", version, find_home()).search(queries, k=5)
    return [[(passage.id, passage.score) for passage in passages] for passages in found]


def keep_house(night: int) -> dict[str, Any]:
    from flows.maintain import maintain
    from tasks.config.maintenance import MaintainConfig

    start = time.perf_counter()
    kept = maintain(MaintainConfig(apply=True))
    return {
        "night": night,
        "removed": sum(each.count for each in kept.removals if each.kind == "versions"),
        "troubles": [trouble.what for trouble in kept.troubles],
        "failed": [each.failed for each in kept.removals if each.failed],
        "before": sum(before for before, _ in kept.space.values()),
        "after": sum(after for _, after in kept.space.values()),
        "seconds": kept.seconds,
        "with Prefect": time.perf_counter() - start,
    }


def age(database: Path, cache: Path) -> None:
    """Make versions, and entries of caches, a day older."""
    with closing(sqlite3.connect(database)) as opened, opened:
        opened.execute("UPDATE model_versions SET creation_time = creation_time - ?", [1000 * DAY])
    for file in (*cache.glob("vectors/*.sqlite"), cache / "documents.sqlite"):
        with closing(sqlite3.connect(file)) as opened, opened:
            opened.execute("UPDATE content SET at = at - ?", [DAY])


def alone(work: Path, location: str, night: HistoryNight) -> dict[str, int]:
    """The space of a home that holds nothing but this night, built from nothing."""
    from tasks.config.settings import find_home
    from tasks.housekeeping import space

    new_home(work / "alone")
    run(settings_of(night, location, pages=PAGES), night.day)
    return space(find_home())


def changed(nights: list[dict[str, Any]], versions: list[int], size: int) -> float:
    """The bytes of documents that changed in the nights of these versions, by their share of all documents."""
    counted = [night["counts"] for night in nights if night["version"] in versions]
    shares = (sum(counts[what] for what in COUNTED) / max(1, sum(documents(counts))) for counts in counted)
    return size * sum(shares)


def documents(counts: dict[str, int]) -> list[int]:
    return [counts[what] for what in (*COUNTED, "documents unchanged")]


def report(result: dict[str, Any]) -> None:
    nights, newest = result["nights"], sum(result["alone"].values())
    last = sum(nights[-1]["space"].values())
    delta = changed(nights, result["left"], newest)
    rows = [
        [
            number,
            night["day"],
            night["decision"],
            night["versions"],
            sum(night["space"].values()) / 1e6,
            *(night["space"][kind] / 1e6 for kind in nights[0]["space"] if nights[-1]["space"][kind]),
        ]
        for number, night in enumerate(nights, start=1)
    ]
    kinds = [kind for kind in nights[0]["space"] if nights[-1]["space"][kind]]
    kept = [
        [each["night"], each["removed"], each["before"] / 1e6, each["after"] / 1e6, each["with Prefect"]]
        for each in result["maintenance"]
    ]
    parts = [
        f"{len(result['left'])} versions are left of {nights[-1]['version']}; {sum(result['same'].values())} of "
        f"{len(result['same'])} answer {QUERIES} queries with the passages and the scores of their day. The disk holds "
        f"{last / 1e6:.1f} MB; a home with the newest version alone {newest / 1e6:.1f} MB, and the documents that "
        f"changed in the nights of the versions left {delta / 1e6:.1f} MB. That is {last / (3 * newest + delta):.2f} "
        "of three times the newest version plus what changed.",
        "![the disk by night](hundred_nights.png)",
        "The newest version alone, in MB, and all of it at the end:",
        table(
            ["what", "alone", "at the end"],
            [[k, result["alone"][k] / 1e6, nights[-1]["space"][k] / 1e6] for k in kinds],
        ),
        "Runs of the maintenance (MB):",
        table(["after night", "versions removed", "before", "after", "seconds"], kept),
        "Night by night (MB):",
        table(["night", "day", "verdict", "versions", "disk", *kinds], rows),
    ]
    plot(nights, newest, delta)
    save("hundred_nights", f"{len(nights)} nights of the handbook, maintained weekly", result, parts)


def plot(nights: list[dict[str, Any]], newest: int, delta: float) -> None:
    from matplotlib.figure import Figure

    figure = Figure(figsize=(7, 3), layout="constrained")
    axes = figure.subplots()
    axes.plot(range(1, len(nights) + 1), [sum(night["space"].values()) / 1e6 for night in nights], label="disk")
    axes.axhline((3 * newest + delta) / 1e6, linestyle="--", color="grey", label="3 × newest + changed")
    axes.set(xlabel="night", ylabel="MB", ylim=(0, None))
    axes.legend()
    RESULTS.mkdir(exist_ok=True)
    figure.savefig(RESULTS / "hundred_nights.png", dpi=110)


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--nights", type=int, default=100)
    arguments = parser.parse_args()
    with tempfile.TemporaryDirectory() as folder:
        work, location = Path(folder), str(Path(folder) / "history.git")
        with clone_history(Path(location)) as repo:
            nights = history_nights(repo, arguments.nights, LAST_DAY)
        new_home(work / "home")
        with prefect_server():
            result = measure(work, location, nights)
            result["alone"] = alone(work, location, nights[-1])
    report(result)


if __name__ == "__main__":
    main()
