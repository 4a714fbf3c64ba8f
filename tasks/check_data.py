"""Reads, checks and splits the rows of a fine-tune, before a second is spent on training."""

from dataclasses import replace
from pathlib import Path

import pyarrow.parquet as pq
from prefect import runtime, task
from prefect.artifacts import create_markdown_artifact

from tasks.config.choices import load_choice
from tasks.config.settings import find_home
from tasks.config.training import (
    DATASETS,
    OWN_SOURCE,
    BaseModelConfig,
    DatasetConfig,
    DpoConfig,
    ScoringConfig,
    SftConfig,
)
from tasks.errors import ConfigError, RefusedError
from tasks.evaluation.answers import check_scoring
from tasks.progress import artifact_key
from tasks.records import Finding, PreparedData
from tasks.registry.connection import connect
from tasks.registry.datasets import fetch_rows, find_dataset
from tasks.registry.runs import log, log_dataset
from tasks.telling import tell, warn
from tasks.training.base import fetch_base, load_tokenizer
from tasks.training.chat import check_template, exchange, find_unwritable, knows_system
from tasks.training.dataset import FINDINGS_FILE, describe_findings, list_findings, prepare_data
from tasks.training.general import read_general_choices, read_general_text

DATA_FILE = "data.md"
NO_SYSTEM = Finding(
    "note",
    "The chat template of the base model writes no system turn: what one says is put in front of the first user turn.",
)


@task(name="check data", task_run_name="check {config.dataset}")
def check_data(config: SftConfig | DpoConfig, run_id: str, folder: Path) -> PreparedData:
    """Write the rows to train on and to score on into a folder, and show what is wrong with them.

    Raises:
        ConfigError: the data set is of the wrong format for the method, or it cannot be scored as asked.
        ModelError: the base model's chat template writes answers that continue no prompt.
        RefusedError: something was found that stops the run; the report says what, and in which rows.
    """
    dataset = load_choice("datasets", config.dataset, DatasetConfig)
    if (dataset.format == "preference") != isinstance(config, DpoConfig):
        method = "DPO" if isinstance(config, DpoConfig) else "SFT"
        raise ConfigError(
            f"conf/datasets/{config.dataset}.yaml has the format {dataset.format}, which {method} cannot use"
        )
    check_general(config.scoring)
    dataset, own = fetch_own(dataset, config.dataset_version, folder.parent / "sources")
    tokenizer = load_tokenizer(fetch_base(load_choice("models", config.base, BaseModelConfig)))
    check_template(tokenizer)

    def count_tokens(conversations: list[list[dict[str, str]]]) -> list[int]:
        return [sum(map(len, exchange(tokenizer, turns))) for turns in conversations]

    prepared = prepare_data(
        dataset,
        config.checks,
        held_out_share=config.held_out_share,
        seed=config.training.seed,
        max_length=config.training.max_length,
        count_tokens=count_tokens,
        find_unwritable=lambda turns: find_unwritable(tokenizer, turns),
        folder=folder,
    )
    findings = (*prepared.findings, *([] if knows_system(tokenizer) else [NO_SYSTEM]))
    sources = tuple(own.get(source, source) for source in prepared.sources)
    prepared = replace(prepared, sources=sources, findings=findings)
    _tell(prepared)
    _keep(config.dataset, prepared, run_id)
    if prepared.stopped:
        reasons = " ".join(finding.sentence for finding in prepared.findings if finding.severity == "stop")
        raise RefusedError(f"the data set {config.dataset} is not fit to train on: {reasons}")
    answer = "chosen" if isinstance(config, DpoConfig) else "messages"
    rows = pq.read_table(prepared.held_out, columns=["place", answer]).to_pylist()
    check_scoring(config.scoring, [row["place"] for row in rows], [row[answer][-1]["content"] for row in rows])
    return prepared


def fetch_own(dataset: DatasetConfig, newest: int, folder: Path) -> tuple[DatasetConfig, dict[str, str]]:
    """The data set with files in the place of versions that `tandem curate` made; and by file, which version it is.

    `newest` stands for ``@newest``; 0 leaves it as it is. Raises RegistryError where there is no such version.
    """
    client = connect(find_home())
    own: dict[str, str] = {}

    def fetch(source: str) -> str:
        if not (named := OWN_SOURCE.fullmatch(source)):
            return source
        which = str(newest or "newest") if named["which"] == "newest" else named["which"]
        version = find_dataset(client, named["name"], which)
        side = named["held_out"] or ""
        file = str(fetch_rows(client, version, side.strip("/") or "train", folder))
        own[file] = f"{DATASETS}{version.pinned}{side}"
        return file

    sides = {"sources": tuple(map(fetch, dataset.sources)), "held_out": tuple(map(fetch, dataset.held_out))}
    return dataset.model_copy(update=sides), own


def check_general(scoring: ScoringConfig) -> None:
    """That what is not about the task can be scored.

    Raises:
        ConfigError: a file is not what it should be, a suite is unknown, or the harness is not installed.
    """
    read_general_text(scoring)
    read_general_choices(scoring)
    if scoring.suites:
        from tasks.training.suites import find_suites

        find_suites(scoring.suites, scoring.suites_folder)


def _tell(prepared: PreparedData) -> None:
    tell(", ".join(f"{what}: {count:,}" for what, count in prepared.counts.items()))
    for finding in prepared.findings:
        (tell if finding.severity == "note" else warn)(finding.sentence)


def _keep(name: str, prepared: PreparedData, run_id: str) -> None:
    client = connect(find_home())
    report = describe_findings(prepared)
    log_dataset(client, run_id, name, prepared.version, prepared.sources, prepared.counts)
    log(client, run_id, texts={DATA_FILE: report, FINDINGS_FILE: list_findings(prepared)})
    if runtime.flow_run.id:
        create_markdown_artifact(report, key=artifact_key("data", name), description=f"The data set {name}")
