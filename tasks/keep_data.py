"""Makes versions of data sets of the rows that were approved."""

from collections import Counter
from collections.abc import Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

from prefect import task

from tasks.config.curation import CurateConfig
from tasks.config.settings import find_home
from tasks.evaluation.golden import GoldenQuery, write_golden
from tasks.private import find_private
from tasks.records import DataKind, DataVersion, Draft
from tasks.registry.connection import connect
from tasks.registry.datasets import keep_dataset, newest_dataset
from tasks.review import Desk
from tasks.sift import EVALUATED, InUse, leaking

KINDS: tuple[DataKind, ...] = ("sft", "dpo", "golden")
GOLDEN_FILE = "golden.jsonl"


@dataclass(frozen=True, slots=True)
class Kept:
    """The newest version of each kind, and approved rows that are in none."""

    versions: dict[DataKind, DataVersion]
    new: tuple[DataKind, ...]
    left_out: Counter[str]


@task(name="keep data", task_run_name="keep {config.name}")
def keep_data(config: CurateConfig, in_use: InUse, run_id: str) -> Kept:
    """The approved rows as versions in MLflow, one of each kind that has changed, and golden queries as a file."""
    home = find_home()
    client, desk = connect(home), Desk(config.name, home)
    rows, left_out = _fit(desk.approved(), in_use, config)
    versions: dict[DataKind, DataVersion] = {}
    new = []
    for kind in KINDS:
        own = [row for row in rows if row.kind == kind]
        name = f"{config.name}-{kind}"
        before = newest_dataset(client, name)
        if own or before:
            train, held_out = ([as_row(row) for row in own if row.side == side] for side in ("train", "held_out"))
            traces = list(dict.fromkeys(trace for row in own for trace in row.traces))
            why = f"{len(train)} rows to train on and {len(held_out)} held out, approved by hand from {config.release}."
            versions[kind] = keep_dataset(client, name, train, held_out, traces, run_id, why)
            new += [kind] if versions[kind] != before else []
    _write_golden(desk.folder / GOLDEN_FILE, [row for row in rows if row.kind == "golden"])
    return Kept(versions, tuple(new), left_out)


def as_row(row: Draft) -> dict[str, Any]:
    """A line of a data set: what a training or an index reads, and where it comes from."""
    if row.kind == "golden":
        taught: dict[str, Any] = {"query": row.question, "relevant": list(row.relevant)}
    elif row.kind == "sft":
        taught = {"messages": [*row.prompt, _said(row.answer)]}
    else:
        chosen, rejected = [_said(row.answer)], [_said(row.rejected)]
        taught = {"prompt": list(row.prompt), "chosen": chosen, "rejected": rejected}
    places = {"source": row.source, "tenant": row.tenant, "topic": row.topic, "release": row.release}
    return {"id": row.id, **taught, "question": row.question, **places, "traces": list(row.traces)}


def _fit(
    approved: Sequence[tuple[Draft, str]], in_use: InUse, config: CurateConfig
) -> tuple[list[Draft], Counter[str]]:
    """The approved rows with their answers, but for those that may not be used any more."""
    left_out: Counter[str] = Counter()
    leaks = leaking([row for row, _ in approved if row.side == "train"], in_use, config)
    rows = []
    for row, answer in approved:
        if row.id in leaks:
            left_out[f"approved, and {EVALUATED}"] += 1
        elif row.kind == "golden":
            rows.append(row)
        elif kinds := sorted(set(find_private(answer)) - set(find_private(row.answer))):
            left_out[f"approved, and its edited answer holds private data ({', '.join(kinds)})"] += 1
        else:
            rows.append(replace(row, answer=answer))
    return rows, left_out


def _write_golden(file: Path, rows: Sequence[Draft]) -> None:
    """For an index or a release to name under `golden`; written anew, whole."""
    if not rows:
        file.unlink(missing_ok=True)
        return
    beside = file.with_suffix(".new")
    beside.unlink(missing_ok=True)
    write_golden(
        beside, [GoldenQuery(row.question, row.relevant, tenant=row.tenant or None, slice=row.source) for row in rows]
    )
    beside.replace(file)


def _said(text: str) -> dict[str, str]:
    return {"role": "assistant", "content": text}
