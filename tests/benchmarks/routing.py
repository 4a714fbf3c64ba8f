"""Speculative routing beside a search for every question, where 70 % of the questions are familiar.

    python -m tests.benchmarks.routing

A fine-tune teaches the tiny base model which team looks after each of 140 services, to say of others that it does not
know, and to read it from a page. A release over the pages of 400 services calibrates from which confidence on its model
answers alone; then other questions of the same kind, the rare ones about services that were never asked about, are
answered both ways, one after the other.
"""

import json
import os
import tempfile
from pathlib import Path
from typing import Any

import yaml

from tests.benchmarks.desk import FAMILIAR_SHARE, PROMPT, Desk, Service
from tests.benchmarks.installation import new_home, prefect_server
from tests.benchmarks.reporting import save, table

ROOT = Path(__file__).resolve().parents[2]
TAUGHT = {"unknown": 1200, "read": 250}
"""Rows about services that there are not: those that are not known, and those that a page tells of."""
TRAINING = {
    "max_steps": 1000,
    "learning_rate": 3e-3,
    "schedule": "cosine",
    "batch_rows": 32,
    "rows_at_once": 32,
    "max_length": 384,
    "packing": False,
}
ASKED = 600
"""Questions of the calibration, and of the measurement."""
GOALS = {"time or tokens saved": 0.5, "accuracy lost": 0.01}


def main() -> None:
    with tempfile.TemporaryDirectory() as folder:
        root = Path(folder)
        new_home(root / "home")
        os.environ["TANDEM_CONF"] = str(root / "conf")
        desk = Desk()
        write_inputs(root, desk)
        with prefect_server():
            found = measured(root, desk)
    rows = [[name, found["routed"][name], found["always"][name]] for name in found["always"]]
    saved = [[name, found[name], goal] for name, goal in (("time saved", ""), ("tokens saved", 0.5), ("lost", 0.01))]
    text = (
        f"{ASKED} questions that calibration did not see, {FAMILIAR_SHARE:.0%} of them about services that training "
        "told about, all worded as in no training; each is answered both ways in turn, from one passage of some 220 "
        "tokens where it is searched for. *lost* is the difference of the shares that are right."
    )
    parts = [text, table(["", "with routing", "always a search"], rows), table(["", "measured", "goal"], saved)]
    save("routing", "Speculative routing", found, [*parts, f"Calibration said: {found['calibration']}"])


def write_inputs(root: Path, desk: Desk) -> None:
    """Pages, rows, questions and the configurations that name them."""
    half = len(desk.rare) // 2
    write_pages(root / "site", [*desk.familiar, *desk.rare])
    write_lines(root / "train.jsonl", desk.rows(**TAUGHT))
    write_lines(root / "held_out.jsonl", desk.held_out())
    for name, count in (("familiar", ASKED), ("golden", 100)):
        asked = desk.questions(desk.rare[:half], count)
        write_lines(root / f"{name}.jsonl", [golden(service, question) for service, question in asked])
    settings = {
        "models/tiny": {"model": str(ROOT / "data" / "models" / "tiny")},
        "datasets/teams": {
            "format": "messages",
            "sources": [str(root / "train.jsonl")],
            "held_out": [str(root / "held_out.jsonl")],
        },
        "prompts/passages": {turn["role"]: turn["content"] for turn in PROMPT},
        "policies/desk": {
            "passages": 1,
            "generator": {"kind": "transformers", "max_new_tokens": 16},
            "routing": {"alone": True, "max_loss": GOALS["accuracy lost"]},
        },
    }
    for name, values in settings.items():
        file = root / "conf" / f"{name}.yaml"
        file.parent.mkdir(parents=True, exist_ok=True)
        file.write_text(yaml.safe_dump(values))


def write_pages(site: Path, services: list[Service]) -> None:
    site.mkdir()
    for service in services:
        (site / f"{service.name}.md").write_text(service.page)


def write_lines(file: Path, items: Any) -> None:
    file.write_text("".join(json.dumps(item) + "\n" for item in items))


def golden(service: Service, question: str) -> dict[str, Any]:
    return {"query": question, "relevant": [f"desk/{service.name}.md"], "answers": [service.team]}


def measured(root: Path, desk: Desk) -> dict[str, Any]:
    """What both ways came to, from the index and the adapter to the questions."""
    from flows.finetune_sft import finetune_sft
    from flows.reindex import reindex
    from flows.release import release
    from tasks.config.answering import ReleaseConfig
    from tasks.config.index import ReindexConfig
    from tasks.config.settings import find_home
    from tasks.config.training import SftConfig
    from tasks.registry.connection import connect
    from tasks.registry.runs import read_text
    from tasks.releases import open_release

    source = {"name": "desk", "location": str(root / "site")}
    reindex(ReindexConfig.model_validate({"name": "services", "sources": [source]}))
    settings: dict[str, Any] = {"name": "teams", "base": "tiny", "dataset": "teams", "training": TRAINING}
    settings |= {"lora": {"rank": 64, "alpha": 128}, "checks": {"near_duplicate": 1, "leaked": "report"}}
    settings |= {"scoring": {"scores": ["exact_match"], "max_new_tokens": 16}, "promote": "never"}
    trained = finetune_sft(SftConfig.model_validate(settings))
    parts = {"index": "services@1", "adapter": "teams@1", "prompt": "passages", "policy": "desk"}
    asked = {"golden": str(root / "golden.jsonl"), "familiar": str(root / "familiar.jsonl")}
    done = release(ReleaseConfig.model_validate({"name": "desk", **parts, **asked, "promote": "never"}))
    report = read_text(connect(find_home()), done.run_id, "report.md")
    calibration = next(line for line in report.splitlines() if "held-out questions" in line)
    assistant = open_release("desk", done.version, find_home())
    answers = ask_both_ways(assistant, desk)
    return {
        **answers,
        "calibration": calibration,
        "alone_from": assistant.alone_from,
        "adapter": trained.scores["candidate"],
        "seconds": {"training": trained.seconds, "release": done.seconds},
    }


def ask_both_ways(assistant: Any, desk: Desk) -> dict[str, Any]:
    """Totals of both, and what the first saves."""
    unseen = desk.rare[len(desk.rare) // 2 :]
    ways = {"routed": False, "always": True}
    totals = {way: {"right": 0.0, "alone": 0.0, "refused": 0.0, "ms": 0.0, "tokens": 0.0} for way in ways}
    for service, question in desk.questions(unseen, ASKED):
        for way, cite in ways.items():
            answer = assistant.answer(question, cite=cite)
            of = totals[way]
            of["right"] += (service.team in answer.text) / ASKED
            of["alone"] += answer.alone / ASKED
            of["refused"] += answer.refused / ASKED
            of["ms"] += 1000 * sum(answer.seconds.values()) / ASKED
            of["tokens"] += (answer.tokens_in + answer.tokens_out) / ASKED
    routed, always = totals["routed"], totals["always"]
    saved = {f"{name} saved": 1 - routed[what] / always[what] for name, what in (("time", "ms"), ("tokens", "tokens"))}
    return {**totals, **saved, "lost": always["right"] - routed["right"]}


if __name__ == "__main__":
    main()
