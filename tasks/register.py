"""Registers a version in MLflow, with everything that explains it, and protects its state of the table."""

import json
import subprocess
from collections.abc import Mapping
from dataclasses import asdict
from importlib.metadata import version as installed
from pathlib import Path
from typing import Any

import yaml
from prefect import task

from tasks.compare import GOLDEN_TAG, Work, state_of
from tasks.config.index import ReindexConfig
from tasks.config.settings import Home, find_home, find_path
from tasks.evaluate import Evaluation
from tasks.evaluation.report import plot_scores
from tasks.headline import of_night
from tasks.index.embedding import resolve
from tasks.index.store import IndexStore
from tasks.maintain import Maintained
from tasks.records import IndexManifest, Night, Verdict, Version, known_fields, number_of
from tasks.registry.connection import MlflowClient, connect
from tasks.registry.marks import STATE_TAG, VERSION_TAG
from tasks.registry.runs import log, read_text
from tasks.registry.versions import next_number
from tasks.registry.versions import register as register_version
from tasks.serving import ENTRY_POINT

VERDICT_TAG = "tandem.verdict"
PUT_BACK = "put back"
"""The verdict on a release that serves what somebody went back to, until it is examined."""
VERDICT_FILE = "verdict.json"
REPORT_FILE = "report.md"
FAILED_FILE = "guardrails_failed.jsonl"
PREDICT_PARAMS = {"k": int, "mode": str, "tenant": str}


def describe_version(config: ReindexConfig, work: Work, maintained: Maintained, home: Home) -> IndexManifest:
    """The manifest of the version that the table's present state will become."""
    store = IndexStore.open(home.lancedb, work.table)
    return IndexManifest(
        index=config.name,
        tag=f"v{next_number(connect(home), config.name)}",
        uri=str(home.lancedb),
        table=work.table,
        lance_version=maintained.health.version,
        embedder=resolve(config.embedder).model_dump(mode="json"),
        embedder_fingerprint=work.embedder,
        dimension=store.dimension,
        search=config.search.model_dump(mode="json"),
        chunking=config.chunking.model_dump(mode="json"),
        fingerprint=work.fingerprint,
        corpus=maintained.corpus,
        documents=len(maintained.documents),
        passages=maintained.health.passages,
    )


@task(name="register", task_run_name="register {manifest.index} {manifest.tag}")
def register(
    config: ReindexConfig,
    manifest: IndexManifest,
    night: Night,
    verdict: Verdict,
    evaluation: Evaluation,
    report: str,
) -> Version:
    """Log scores, parameters, report and configuration; tag the table; and only then make the version appear."""
    home = find_home()
    client = connect(home)
    headline = of_night(night, manifest.documents, config.gate.metric)
    marks = {"git.commit": git_commit(), VERDICT_TAG: night.decision}
    log(
        client,
        night.run_id,
        params=flat(config.model_dump(mode="json")),
        metrics=_metrics(night),
        tags=marks,
        texts={
            REPORT_FILE: report,
            "config.yaml": yaml.safe_dump(config.model_dump(mode="json"), sort_keys=False, allow_unicode=True),
            VERDICT_FILE: json.dumps(asdict(verdict), indent=1),
            "scores_by_query.json": _by_query(evaluation),
        },
        files=[find_path(config.golden)] if config.golden else [],
        figures={"scores.png": plot_scores(evaluation.candidate, evaluation.champion)} if evaluation.candidate else {},
    )
    IndexStore.open(home.lancedb, manifest.table).tag(manifest.tag, manifest.lance_version)
    return register_version(
        client,
        config.name,
        night.run_id,
        asdict(manifest),
        kind="index",
        number=number_of(manifest.tag),
        entry_point=ENTRY_POINT,
        requirements=[f"tandem=={installed('tandem')}"],
        params=PREDICT_PARAMS,
        tags={
            STATE_TAG: state_of(manifest.table, manifest.lance_version, manifest.fingerprint),
            GOLDEN_TAG: night.golden,
            VERSION_TAG: manifest.tag,
            **marks,
            **headline.tags(),
        },
        description=headline.describe(report),
    )


def keep_report(run_id: str, report: str) -> None:
    """Put the whole report, with what happened to the pointers, in the place of the one it was registered with."""
    log(connect(find_home()), run_id, texts={REPORT_FILE: report})


def read_verdict(client: MlflowClient, version: Version) -> Verdict:
    """The verdict that a version was registered with."""
    kept = json.loads(read_text(client, version.run_id, VERDICT_FILE))
    known = known_fields(Verdict, kept, f"the verdict on {version.name} version {version.number}")
    return Verdict(**known | {"reasons": tuple(known["reasons"])})


def git_commit() -> str:
    """The commit of the code that runs, with a mark if it was edited; empty outside of a repository."""
    root = Path(__file__).parent
    command = ["git", "describe", "--always", "--dirty", "--abbrev=40", "--exclude=*"]
    found = subprocess.run(command, cwd=root, capture_output=True, text=True, check=False)
    return found.stdout.strip()


def flat(values: Mapping[str, Any], prefix: str = "") -> dict[str, Any]:
    """Nested settings as MLflow parameters: ``chunking.max_tokens``; lists stay one value."""
    result: dict[str, Any] = {}
    for key, value in values.items():
        if isinstance(value, Mapping):
            result |= flat(value, f"{prefix}{key}.")
        else:
            result[f"{prefix}{key}".replace("@", "_at_")] = json.dumps(value) if isinstance(value, list) else value
    return result


def _metrics(night: Night) -> dict[str, float]:
    return (
        {metric.replace("@", "_at_"): value for metric, value in night.scores.items()}
        | {f"champion_{metric.replace('@', '_at_')}": v for metric, v in night.champion_scores.items()}
        | {f"count_{name}": value for name, value in night.counts.items()}
        | {f"seconds_{step}": value for step, value in night.seconds.items()}
    )


def _by_query(evaluation: Evaluation) -> str:
    versions = {"candidate": evaluation.candidate, "champion": evaluation.champion}
    values = {name: {"queries": v.queries, "values": v.values} for name, v in versions.items() if v}
    return json.dumps(values, indent=1)
