"""What contenders did before: the same model, asked the same in the same way, do the same and are not asked again.

So base model and champion are scored once for each set of held-out rows, and not beside every candidate.
"""

import json
from dataclasses import asdict
from hashlib import sha256
from importlib.metadata import version as installed
from pathlib import Path
from typing import Any

from pydantic import TypeAdapter

from tasks.training.base import fetch_base, hash_around, hash_base
from tasks.training.scoring_job import Scored, ScoringJob

MOST = 200
"""Files; beyond them the oldest go."""
FORMAT = 3
"""Raised when more or something else is kept of a contender, or it is asked or read differently."""
LIBRARIES = ("torch", "transformers", "peft")


def key_of(job: ScoringJob, adapter: Path | None, examples: bool, device: str, precision: str) -> str:
    """A hash over everything that decides what a contender does; a file that is missing is for the scorer to name.

    Suites are no part of it, because their questions may lie anywhere: a job that names some is not kept.
    """
    files = [job.held_out, Path(job.scoring.general_text), Path(job.scoring.general_choices)]
    base = fetch_base(job.base)
    decisive: list[Any] = [
        FORMAT,
        hash_base(base),
        hash_around(base),
        job.base.four_bit,
        [hash_base(adapter), _hash(adapter / "adapter_config.json")] if adapter else [],
        [_hash(file) for file in (*files, *([job.train] if examples else []))],
        job.scoring.model_dump(mode="json"),
        job.max_length,
        job.seed if examples else 0,
        device,
        precision,
        {name: installed(name) for name in LIBRARIES},
    ]
    return sha256(json.dumps(decisive, sort_keys=True).encode()).hexdigest()


def find(folder: Path, key: str) -> Scored | None:
    """What is kept under the key, if anything is."""
    try:
        return TypeAdapter(Scored).validate_json((folder / f"{key}.json").read_bytes())
    except FileNotFoundError:
        return None


def keep(folder: Path, key: str, scored: Scored) -> None:
    """In one go: a file that is there is whole."""
    folder.mkdir(parents=True, exist_ok=True)
    new = folder / f"{key}.new"
    new.write_text(json.dumps(asdict(scored), ensure_ascii=False), encoding="utf-8")
    new.rename(folder / f"{key}.json")
    by_age = sorted(folder.glob("*.json"), key=lambda file: file.stat().st_mtime)
    for old in by_age[:-MOST]:
        old.unlink(missing_ok=True)


def _hash(file: Path) -> str:
    return sha256(file.read_bytes()).hexdigest() if file.exists() else ""
