"""Thirty real nights of a documentation site as the main job: Prefect, MLflow, the packaged model, golden queries.

    python -m tests.benchmarks.thirty_nights

The nights are those of the handbook's history with changes up to August 2021, when its pages were put into folders:
hundreds of renames, many with an edit, beside the usual additions, changes and deletions. Each night indexes the last
commit of its day. The golden queries are drafted from the first night's index, so they age as real ones do.
"""

import argparse
import tempfile
import time
from dataclasses import dataclass
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

from git import Repo

from tests.benchmarks.installation import new_home, prefect_server
from tests.benchmarks.peers.corpus import SHARED
from tests.benchmarks.reporting import save, table

BUNDLE = SHARED / "handbook" / "history_md_only.bundle"
LAST_DAY = "2021-08-11"
GOLDEN_QUERIES = 200
COUNTED = {
    "added": "documents added",
    "changed": "documents changed",
    "moved": "documents moved",
    "deleted": "documents deleted",
    "embedded": "passages embedded",
    "reused": "passages reused",
    "passages": "passages in the index",
}


@dataclass(frozen=True, slots=True)
class HistoryNight:
    """The state of the main branch at the end of a day on which it changed."""

    day: str
    """In UTC."""
    commit: str


def clone_history(folder: Path) -> Repo:
    """A bare copy of the handbook's history, markdown files only."""
    return Repo.clone_from(str(BUNDLE), folder, mirror=True)


def history_nights(repo: Repo, count: int, last_day: str = LAST_DAY) -> list[HistoryNight]:
    """The last `count` days with changes up to `last_day`, oldest first."""
    found: list[HistoryNight] = []
    tree_after = ""
    for commit in repo.iter_commits("main", first_parent=True, until=f"{last_day}T23:59:59Z"):
        day = datetime.fromtimestamp(commit.committed_date, UTC).date().isoformat()
        if found and found[-1].day == day:
            continue
        if found and commit.tree.hexsha == tree_after:  # that day left everything as it was
            found.pop()
        if len(found) == count:
            break
        found.append(HistoryNight(day, commit.hexsha))
        tree_after = commit.tree.hexsha
    return found[::-1]


def settings_of(
    night: HistoryNight, location: str, golden: Path | None = None, pages: str = "**/*.md"
) -> dict[str, Any]:
    source = {"name": "handbook", "kind": "git", "location": location, "ref": night.commit, "include": [pages]}
    return {"name": "handbook", "sources": [source], "golden": str(golden) if golden else None}


def run(settings: dict[str, Any], day: str, allow_deletions: bool = False) -> dict[str, Any]:
    from flows.reindex import reindex
    from tasks.config.index import ReindexConfig

    start = time.perf_counter()
    night = reindex(ReindexConfig.model_validate(settings), allow_deletions)
    return {
        "day": day,
        "decision": night.decision,
        "version": night.version,
        "live": night.live,
        "reasons": night.reasons,
        "counts": night.counts,
        "scores": night.scores,
        "champion_scores": night.champion_scores,
        "quarantined": [problem.document for problem in night.quarantined],
        "seconds": night.seconds,
        "steps": sum(night.seconds.values()),
        "with Prefect": time.perf_counter() - start,
    }


def measure(work: Path, nights: list[HistoryNight]) -> list[dict[str, Any]]:
    from tasks.config.settings import find_home
    from tasks.golden import draft_for_index

    golden, done = work / "golden.jsonl", []
    with prefect_server():
        run(settings_of(nights[0], str(BUNDLE)), nights[0].day)
        draft_for_index("handbook", golden, GOLDEN_QUERIES, find_home())
        for night in nights:
            settings = settings_of(night, str(BUNDLE), golden)
            done.append(run(settings, night.day))
            if done[-1]["counts"].get("documents gone but kept"):
                # what the person on call does who reads the reason and knows of the reorganisation
                done.append(run(settings, f"{night.day}, deletions allowed", allow_deletions=True))
    return done


def report(nights: list[dict[str, Any]]) -> None:
    steps = list(dict.fromkeys(step for night in nights for step in night["seconds"]))
    counts = [
        [
            night["day"],
            *(night["counts"].get(name) for name in COUNTED.values()),
            night["decision"],
            night["live"],
            night["scores"].get("ndcg@10"),
            night["champion_scores"].get("ndcg@10"),
        ]
        for night in nights
    ]
    seconds = [[night["day"], *(night["seconds"].get(step) for step in steps), night["steps"]] for night in nights]
    held = [night for night in nights if night["decision"] != "promote"]
    notable = [f"- {night['day']}: {reason}" for night in held for reason in night["reasons"]]
    parts = [
        "One run of the flow `reindex` for each night; before the first, a run without golden queries from which they "
        "were drafted, so that the first row embeds nothing.",
        table(["night", *COUNTED, "verdict", "live", "nDCG@10", "champion's"], counts),
        "Nights that did not go live, and why:",
        "\n".join(notable) or "- none",
        "Seconds by step:",
        table(["night", *steps, "sum"], seconds),
    ]
    save("thirty_nights", f"{len(nights)} nights of the handbook", {"nights": nights}, parts)


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--nights", type=int, default=30)
    parser.add_argument("--last-day", default=LAST_DAY, help="the last day to index, in UTC")
    arguments = parser.parse_args()
    with tempfile.TemporaryDirectory() as folder:
        with clone_history(Path(folder) / "history.git") as repo:
            nights = history_nights(repo, arguments.nights, arguments.last_day)
        new_home(Path(folder) / "home")
        done = measure(Path(folder), nights)
    report(done)


if __name__ == "__main__":
    main()
