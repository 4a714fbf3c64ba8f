"""Registers a trained adapter in MLflow: the adapter alone, with everything that says where it came from."""

import json
from collections.abc import Mapping
from dataclasses import asdict
from importlib.metadata import version as installed
from pathlib import Path
from typing import Any

import yaml
from prefect import task

from tasks.adapters import ADAPTER_FILE, ENTRY_POINT
from tasks.config.choices import load_choice
from tasks.config.settings import Home, find_home
from tasks.config.training import BaseModelConfig, DpoConfig, SftConfig
from tasks.headline import of_finetune
from tasks.judge import compared_score
from tasks.records import AdapterManifest, Finetune, PreparedData, Trained, Verdict, Version, number_of
from tasks.register import REPORT_FILE, VERDICT_FILE, VERDICT_TAG, flat, git_commit
from tasks.registry.checkpoints import forget_checkpoint
from tasks.registry.connection import connect
from tasks.registry.marks import VERSION_TAG
from tasks.registry.runs import log
from tasks.registry.versions import next_number, register
from tasks.training.base import fetch_base, hash_around, hash_base, hash_settings, pin_base

LIBRARIES = ("torch", "transformers", "peft", "trl")
PREDICT_PARAMS = {"system": str, "max_new_tokens": int}


def describe_adapter(
    config: SftConfig | DpoConfig, trained: Trained, data: PreparedData, parent: str, home: Home
) -> AdapterManifest:
    """The manifest of the version that the trained adapter will become."""
    base = pin_base(load_choice("models", config.base, BaseModelConfig))
    folder, adapter = fetch_base(base), Path(trained.adapter)
    return AdapterManifest(
        adapter=config.name,
        tag=f"v{next_number(connect(home), config.name)}",
        method="dpo" if isinstance(config, DpoConfig) else "sft",
        base=base.model_dump(mode="json"),
        base_hash=hash_base(folder),
        base_settings_hash=hash_settings(folder),
        adapter_hash=hash_base(adapter),
        adapter_settings_hash=hash_around(adapter),
        dataset=config.dataset,
        dataset_hash=data.version,
        parent=parent,
        seed=config.training.seed,
        libraries={name: installed(name) for name in LIBRARIES},
    )


@task(name="register adapter", task_run_name="register {manifest.adapter} {manifest.tag}")
def register_adapter(
    config: SftConfig | DpoConfig,
    manifest: AdapterManifest,
    trained: Trained,
    done: Finetune,
    verdict: Verdict,
    report: str,
    figures: Mapping[str, Any],
) -> Version:
    """Log parameters, scores and report, and only then make the version appear."""
    client = connect(find_home())
    headline = of_finetune(done, compared_score(config), config.dataset)
    marks = {"git.commit": git_commit(), VERDICT_TAG: verdict.decision}
    settings = config.model_dump(mode="json")
    log(
        client,
        done.run_id,
        params=flat(settings) | {"parent": manifest.parent, "base_hash": manifest.base_hash},
        metrics=_metrics(done),
        tags=marks,
        texts={
            REPORT_FILE: report,
            "config.yaml": yaml.safe_dump(settings, sort_keys=False, allow_unicode=True),
            VERDICT_FILE: json.dumps(asdict(verdict), indent=1),
        },
        figures=figures,
    )
    version = register(
        client,
        config.name,
        done.run_id,
        asdict(manifest),
        kind="adapter",
        number=number_of(manifest.tag),
        entry_point=ENTRY_POINT,
        requirements=[f"tandem=={installed('tandem')}"],
        params=PREDICT_PARAMS,
        files={ADAPTER_FILE: Path(trained.adapter)},
        tags={VERSION_TAG: manifest.tag, **marks, **headline.tags()},
        description=headline.describe(report),
    )
    forget_checkpoint(client, done.run_id)
    return version


def _metrics(done: Finetune) -> dict[str, float]:
    scores = {
        f"{who.replace(' ', '_')}_{name}": value
        for who, scores in done.scores.items()
        for name, value in scores.items()
    }
    counts = {f"count_{name.replace(' ', '_')}": float(value) for name, value in done.counts.items()}
    return scores | counts | {f"seconds_{step}": value for step, value in done.seconds.items()}
