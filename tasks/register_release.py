"""Registers a release in MLflow: its parts by number, its policy, its calibration, its scores."""

import json
from collections.abc import Iterable
from dataclasses import asdict
from importlib.metadata import version as installed
from typing import Any

import yaml
from prefect import task

from tasks.compose import state_of
from tasks.config.answering import ReleaseConfig
from tasks.config.settings import find_home
from tasks.evaluation.releases import RIGHT
from tasks.evaluation.routing import Routed
from tasks.examine import Examined
from tasks.guard import Guarded
from tasks.headline import of_release
from tasks.records import Released, ReleaseManifest, Verdict, Version, number_of
from tasks.register import FAILED_FILE, REPORT_FILE, VERDICT_FILE, VERDICT_TAG, flat, git_commit
from tasks.registry.connection import MlflowClient, connect
from tasks.registry.marks import STATE_TAG, VERSION_TAG
from tasks.registry.runs import log
from tasks.registry.versions import PART_TAG, register
from tasks.releases import ENTRY_POINT

PREDICT_PARAMS = {"tenant": str}
ALONE_METRIC = "share_alone"
"""Share of the held-out questions that the model answers without a search."""


@task(name="register release", task_run_name="register {manifest.release} {manifest.tag}")
def register_release(
    config: ReleaseConfig,
    manifest: ReleaseManifest,
    done: Released,
    examined: Examined,
    guarded: Guarded,
    routed: Routed | None,
    verdict: Verdict,
    report: str,
) -> Version:
    """Log parts, scores, answers and report, and only then make the version appear."""
    client = connect(find_home())
    headline = of_release(done, RIGHT)
    marks = {"git.commit": git_commit(), VERDICT_TAG: verdict.decision}
    settings = config.model_dump(mode="json")
    answers = [asdict(case.answer) | {"answerable": case.answerable, "right": case.right} for case in examined.cases]
    log(
        client,
        done.run_id,
        params=flat(settings) | {f"part.{kind}": part for kind, part in done.parts.items()},
        metrics={f"{who}_{name}": value for who, of in done.scores.items() for name, value in of.items()}
        | ({ALONE_METRIC: routed.share} if routed else {}),
        tags=marks,
        texts={
            REPORT_FILE: report,
            "config.yaml": yaml.safe_dump(settings, sort_keys=False, allow_unicode=True),
            VERDICT_FILE: json.dumps(asdict(verdict), indent=1),
            "answers.jsonl": _lines(answers),
            FAILED_FILE: _lines(asdict(outcome) for outcome in guarded.outcomes if not outcome.passed),
        },
    )
    tags = {STATE_TAG: state_of(config, manifest), **marks, **headline.tags()}
    return register_parts(client, manifest, done.run_id, tags, headline.describe(report))


def register_parts(
    client: MlflowClient, manifest: ReleaseManifest, run_id: str, tags: dict[str, str], description: str
) -> Version:
    """Make a release appear with its parts in its tags. Raises RegistryError as `register` does."""
    return register(
        client,
        manifest.release,
        run_id,
        asdict(manifest),
        kind="release",
        number=number_of(manifest.tag),
        entry_point=ENTRY_POINT,
        requirements=[f"tandem=={installed('tandem')}"],
        params=PREDICT_PARAMS,
        tags={
            VERSION_TAG: manifest.tag,
            **tags,
            **{f"{PART_TAG}{kind}": part for kind, part in manifest.parts.items()},
        },
        description=description,
    )


def _lines(records: Iterable[dict[str, Any]]) -> str:
    return "".join(json.dumps(record, ensure_ascii=False) + "\n" for record in records)
