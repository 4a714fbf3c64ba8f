"""Finds the parts of a release, each by number, and shows that they fit together."""

import json
from dataclasses import asdict
from hashlib import sha256
from typing import Any

from prefect import task

from tasks.answering.grounding import Grounding
from tasks.config.answering import PolicyConfig, PromptConfig, ReleaseConfig
from tasks.config.choices import load_choice
from tasks.config.guardrails import GuardrailsConfig
from tasks.config.settings import find_home, find_path
from tasks.evaluation.attacks import hash_attacks
from tasks.records import ReleaseManifest
from tasks.registry.connection import MlflowClient, connect
from tasks.registry.versions import next_number, pin, register_prompt
from tasks.releases import prove


@task(name="compose", task_run_name="compose {config.name}")
def compose(config: ReleaseConfig) -> ReleaseManifest:
    """The parts that the configuration names, as they stand now; a prompt whose file has changed is registered.

    The grounding is the default one until it is calibrated.

    Raises:
        TandemError: a part does not exist or does not load, or the parts do not fit.
    """
    client = connect(find_home())
    manifest = ReleaseManifest(
        release=config.name,
        tag=f"v{next_number(client, config.name)}",
        index=pin(client, config.index),
        adapter=pin(client, config.adapter) if config.adapter else "",
        prompt=pin(client, config.prompt) if "@" in config.prompt else _pin_file(client, config.prompt),
        policy=load_choice("policies", config.policy, PolicyConfig).model_dump(mode="json"),
        grounding=Grounding().to_json(),
    )
    prove(asdict(manifest))
    return manifest


def state_of(config: ReleaseConfig, manifest: ReleaseManifest) -> str:
    """A hash over all that decides how the release answers and how it is judged."""
    files = (find_path(file) for file in (config.golden, config.familiar) if file)
    queries = b"".join(file.read_bytes() for file in files if file.exists())
    decisive: list[Any] = [manifest.parts, manifest.policy, config.gate.model_dump(mode="json")]
    if config.guardrails:
        suite = load_choice("suites/guardrails", config.guardrails, GuardrailsConfig)
        decisive += [suite.model_dump(mode="json"), hash_attacks(suite.data)]
    return f"sha256:{sha256(json.dumps(decisive, sort_keys=True).encode() + queries).hexdigest()}"


def _pin_file(client: MlflowClient, name: str) -> str:
    prompt = load_choice("prompts", name, PromptConfig)
    roles = {"system": prompt.system, "user": prompt.user}
    turns = [{"role": role, "content": text} for role, text in roles.items() if text]
    return f"{name}@{register_prompt(client, name, turns, prompt.description).number}"
