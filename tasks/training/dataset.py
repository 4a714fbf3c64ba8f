"""From the sources of a data set to the two files that a training reads, and what was found on the way."""

import hashlib
import json
from collections.abc import Sequence
from dataclasses import asdict
from pathlib import Path
from typing import TYPE_CHECKING

from tasks.config.addresses import shown
from tasks.config.training import CheckConfig, DatasetConfig
from tasks.records import Finding, PreparedData
from tasks.training.checks import (
    CountTokens,
    FindUnwritable,
    check_dates,
    check_enough,
    check_labels,
    check_lengths,
    check_malformed,
    check_private,
    check_similar,
    drop_duplicates,
)
from tasks.training.formats import Example, read_examples
from tasks.training.rows import BadRow, read_rows
from tasks.training.splitting import keep_groups_apart, split

if TYPE_CHECKING:
    import pyarrow as pa

PLACES_SHOWN = 5
FINDINGS_FILE = "findings.json"
"""Beside the report: all findings with the places of all their rows."""


def prepare_data(
    dataset: DatasetConfig,
    checks: CheckConfig,
    *,
    held_out_share: float,
    seed: int,
    max_length: int,
    count_tokens: CountTokens,
    find_unwritable: FindUnwritable,
    folder: Path,
) -> PreparedData:
    """Read, normalise, check and split a data set; write train.parquet and held_out.parquet into `folder`.

    The columns are id, place, group, label, date and messages, or prompt, chosen and rejected, each a list of turns
    ``{role, content}``. The order of the rows depends on nothing but the rows, and the first ones are a fair sample.

    Args:
        held_out_share: of the rows, held out where the data set has neither a cut-off nor held-out sources.
        max_length: tokens after which a row is cut.
        count_tokens: the tokens of conversations, as the base model's chat template writes them.
        find_unwritable: why the template cannot write a conversation, as `chat.find_unwritable` says it.

    Raises:
        SourceError: a source cannot be read.
        ConfigError: a template of the data set is wrong.
    """
    train, findings, counts = _read(dataset.sources, dataset, checks, find_unwritable)
    if dataset.held_out:
        held_out, more, read = _read(dataset.held_out, dataset, checks, find_unwritable)
        findings += more
        counts = {name: counts[name] + read[name] for name in counts}
        train, more = check_dates(train, held_out, dataset.cut_off)
        findings += more
    else:
        (train, held_out), how = split(train, share=held_out_share, seed=seed, cut_off=dataset.cut_off)
        findings.append(Finding("note", how))
    train, shared = keep_groups_apart(train, held_out)
    if shared:
        sentence = f"{len(shared):,} rows to train on left out, whose group has rows to score on."
        findings.append(Finding("dropped", sentence, tuple(example.place for example in shared)))
    train, more = check_similar(train, held_out, checks)
    findings += more
    tokens, more = check_lengths("to train on", train, max_length, checks.max_cut, count_tokens)
    findings += more
    findings += check_lengths("to score on", held_out, max_length, checks.max_cut, count_tokens)[1]
    findings += check_labels(train, held_out)
    findings += check_enough(train, held_out, checks.min_rows)
    folder.mkdir(parents=True, exist_ok=True)
    return PreparedData(
        train=_write(train, dataset, folder / "train.parquet"),
        held_out=_write(held_out, dataset, folder / "held_out.parquet"),
        version=_version(train, held_out),
        sources=tuple(shown(source) for source in (*dataset.sources, *dataset.held_out)),
        counts=counts | {"train": len(train), "held_out": len(held_out), "train_tokens": tokens},
        findings=tuple(findings),
    )


def describe_findings(prepared: PreparedData) -> str:
    """What is to be known about the data, as markdown: what it holds, then a table of the findings, worst first."""
    counts = prepared.counts
    verdict = "**The data may not be trained on.**" if prepared.stopped else "The data may be trained on."
    summary = (
        f"{verdict} {counts['read']:,} rows read from {', '.join(f'`{source}`' for source in prepared.sources)}: "
        f"{counts['train']:,} to train on ({counts['train_tokens']:,} tokens), {counts['held_out']:,} to score on. "
        f"Version `{prepared.version}`."
    )
    if not prepared.findings:
        return f"{summary} Nothing was found."
    summary += f" The places of all rows with findings are in `{FINDINGS_FILE}`, beside this report in MLflow."
    lines = [summary, "", "| | finding | rows |", "| --- | --- | --- |"]
    order = ("stop", "dropped", "note")
    for finding in sorted(prepared.findings, key=lambda finding: order.index(finding.severity)):
        places = ", ".join(finding.places[:PLACES_SHOWN])
        more = f" and {len(finding.places) - PLACES_SHOWN:,} more" if len(finding.places) > PLACES_SHOWN else ""
        lines.append(f"| {finding.severity} | {_cell(finding.sentence)} | {_cell(places)}{more} |")
    return "\n".join(lines)


def list_findings(prepared: PreparedData) -> str:
    """All findings, as JSON."""
    return json.dumps([asdict(finding) for finding in prepared.findings], indent=1)


def _read(
    sources: Sequence[str], dataset: DatasetConfig, checks: CheckConfig, find_unwritable: FindUnwritable
) -> tuple[list[Example], list[Finding], dict[str, int]]:
    """The usable rows of sources, what was found in them, and how many were read and malformed."""
    examples: list[Example] = []
    bad: list[BadRow] = []
    for row in read_examples(read_rows(sources, dataset.hub_split), dataset):
        if isinstance(row, BadRow):
            bad.append(row)
        elif reason := next(filter(None, map(find_unwritable, row.conversations)), ""):
            bad.append(BadRow(row.place, reason))
        else:
            examples.append(row)
    counts = {"read": len(examples) + len(bad), "malformed": len(bad)}
    findings = check_malformed(bad, counts["read"], checks.max_broken)
    examples, repeated = drop_duplicates(examples)
    examples, private = check_private(examples, checks.private)
    return examples, findings + repeated + private, counts


def _write(examples: Sequence[Example], dataset: DatasetConfig, file: Path) -> Path:
    import pyarrow as pa
    import pyarrow.parquet as pq

    ordered = sorted(examples, key=lambda example: example.digest)
    rows = [
        {
            "id": example.id,
            "place": example.place,
            "group": example.group,
            "label": example.label,
            "date": example.day,
            **example.parts,
        }
        for example in ordered
    ]
    pq.write_table(pa.Table.from_pylist(rows, schema=_schema(dataset)), file)
    return file


def _schema(dataset: DatasetConfig) -> "pa.Schema":
    import pyarrow as pa

    turns = pa.list_(pa.struct({"role": pa.string(), "content": pa.string()}))
    parts = ("prompt", "chosen", "rejected") if dataset.format == "preference" else ("messages",)
    return pa.schema(
        {name: pa.string() for name in ("id", "place", "group", "label")}
        | {"date": pa.date32()}
        | dict.fromkeys(parts, turns)
    )


def _version(train: Sequence[Example], held_out: Sequence[Example]) -> str:
    sides = (("train", train), ("held_out", held_out))
    lines = sorted(f"{side} {example.digest}\n" for side, examples in sides for example in examples)
    return "sha256:" + hashlib.sha256("".join(lines).encode()).hexdigest()


def _cell(text: str) -> str:
    return text.replace("|", "\\|").replace("\n", " ")
