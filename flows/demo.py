"""The story of Tandem in one go: nights, a gate that says no, a rollback, and what the ledger remembers of it."""

import shutil
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

import yaml

from flows.reindex import reindex
from flows.rollback import RollbackConfig, rollback
from tasks.config.index import ReindexConfig
from tasks.config.loading import load_config
from tasks.config.settings import Home
from tasks.records import Move, Night
from tasks.registry.connection import connect
from tasks.registry.ledger import history
from tasks.registry.pointers import pointers
from tasks.serving import live_index

SAMPLES = Path("data") / "samples"
QUERY = "how many hours are bus camera pictures kept"
TENANT = "south"
REASON = "the new retention period is not yet agreed"


def run_demo(root: Path, home: Home, say: Callable[[str], None]) -> dict[str, Any]:
    """Four nights, a rollback and a look back, from the sample documents of the repository at `root`."""
    began = time.time()
    samples = root / SAMPLES
    site = home.root / "site"
    shutil.copytree(samples / "night1", site)
    plan = yaml.safe_load((samples / "night2" / "changes.yaml").read_text(encoding="utf-8"))
    config = _config(root, site)
    story: list[dict[str, Any]] = []

    def night(title: str) -> None:
        say(title)
        story.append({"step": title, **_of_night(reindex(config))})

    night("First night: everything is new")
    night("Second night: nothing changed")
    _change(site, samples / "night2", plan["changed_night"])
    night("Third night: edits, a new page, a move, a deletion")
    _damage(site, plan["damaged_night"])
    night("Fourth night: the export was broken, every page is a login form")
    say("On call: roll back")
    answer_before = _ask(config.name, home)
    move = rollback(RollbackConfig(name=config.name, reason=REASON, by="on call", dry_run=False))
    story.append({"step": "Rollback", **_of_move(move)})
    return {
        "story": story,
        "asked": QUERY,
        "before_rollback": answer_before,
        "after_rollback": _ask(config.name, home),
        "held": pointers(connect(home), config.name).hold,
        "ledger": [
            f"{m.what} {m.before} → {m.after}: {m.reason} ({m.by})" for m in history(connect(home), config.name)
        ],
        "seconds": round(time.time() - began, 1),
    }


def _config(root: Path, site: Path) -> ReindexConfig:
    """The samples' own configuration, pointed at the working copy."""
    config = load_config(root / "conf" / "index" / "samples.yaml", ReindexConfig)
    sources = [source.model_copy(update={"location": str(site / source.name)}) for source in config.sources]
    return config.model_copy(update={"sources": tuple(sources), "golden": str(root / SAMPLES / "golden.jsonl")})


def _change(site: Path, overlay: Path, plan: dict[str, Any]) -> None:
    for tenant in ("north", "south"):
        shutil.copytree(overlay / tenant, site / tenant, dirs_exist_ok=True)
    for old, new in plan["moved"].items():
        (site / new).parent.mkdir(parents=True, exist_ok=True)
        (site / old).rename(site / new)
    for deleted in plan["deleted"]:
        (site / deleted).unlink()


def _damage(site: Path, plan: dict[str, str]) -> None:
    for page in site.glob(plan["replace"]):
        page.write_text(plan["text"], encoding="utf-8")


def _ask(name: str, home: Home) -> str:
    from tasks.index.search import Filters

    _, found = live_index(name, home).search([QUERY], k=1, filters=Filters(tenant=TENANT))
    text = found[0][0].text
    return next(line.strip() for line in text.splitlines() if "camera" in line)


def _of_night(night: Night) -> dict[str, Any]:
    shown = ("documents added", "documents changed", "documents moved", "documents deleted", "passages embedded")
    counts = ", ".join(f"{night.counts[name]} {name.split()[1]}" for name in shown if night.counts.get(name))
    return {
        "decision": night.decision,
        "version": night.version,
        "live": night.live,
        "what": counts or "nothing to do",
        "ndcg@10": night.scores.get("ndcg@10"),
        "why": night.reasons[0],
        "seconds": round(sum(night.seconds.values()), 2),
    }


def _of_move(move: Move) -> dict[str, Any]:
    return {"decision": "rollback", "version": None, "live": move.after, "what": "alias moved", "why": move.reason}
