"""Opens registered releases for whoever asks: the command, the pyfunc in MLflow, the gate's proof.

Knows nothing of Prefect, so that a model loaded from MLflow starts quickly.
"""

from collections.abc import Callable, Mapping
from dataclasses import asdict, replace
from functools import partial
from typing import Any

from tasks import adapters, serving
from tasks.answering.assistant import Assistant
from tasks.answering.generators import Generator, Turn
from tasks.answering.grounding import Grounding
from tasks.answering.prompting import check_turns
from tasks.answering.service.live import LiveRelease, Target
from tasks.config import stored
from tasks.config.answering import CondensingConfig, GeneratorConfig, PolicyConfig
from tasks.config.servers import reach
from tasks.config.service import ServiceConfig
from tasks.config.settings import Home, find_home
from tasks.errors import ModelError, RegistryError
from tasks.records import ReleaseManifest, kind_of
from tasks.registry.connection import MlflowClient, connect, failures_explained
from tasks.registry.pointers import pointers
from tasks.registry.versions import load_manifest

ENTRY_POINT = "tasks.releases:answering"


def open_release(name: str, which: int | str, home: Home) -> Assistant:
    """A registered release, by number or alias. Raises RegistryError where there is none, or it is none."""
    return open_manifest(_manifest_of(connect(home), name, which), home)


def _manifest_of(client: MlflowClient, name: str, which: int | str) -> ReleaseManifest:
    manifest = load_manifest(client, name, which)
    if (kind := kind_of(manifest)) != "release":
        raise RegistryError(f"{name} is no release: it is registered as {kind}")
    return ReleaseManifest.from_json(manifest)


def open_reading(pinned: str, home: Home) -> Assistant:
    """A release that finds what ``name@number`` found and has its prompt, without the model that wrote its answers."""
    name, _, number = pinned.partition("@")
    manifest = _manifest_of(connect(home), name, int(number))
    policy = stored.policy_of(manifest)
    if policy.retrieval.expansion == "model":  # which finds by what it writes
        return open_manifest(manifest, home)
    routing = policy.routing.model_copy(update={"alone": False})
    parts = {"generator": GeneratorConfig(), "condensing": CondensingConfig(), "routing": routing}
    reading = policy.model_copy(update=parts).model_dump(mode="json")
    return open_manifest(replace(manifest, adapter="", policy=reading), home)


def open_manifest(manifest: ReleaseManifest, home: Home) -> Assistant:
    """Every part of a release, opened. Raises a TandemError for the first one that does not open or fit."""
    client = connect(home)
    policy = stored.policy_of(manifest)
    return Assistant(
        reader=serving.open_manifest(part(client, manifest.index)),
        generator=_generator(policy, manifest, home),
        prompt=turns_of_prompt(client, manifest.prompt),
        policy=policy,
        grounding=Grounding.from_json(manifest.grounding),
        alone_from=manifest.alone_from,
        versions={
            "release": f"{manifest.release}@{manifest.tag.removeprefix('v')}",
            "index": manifest.index,
            "adapter": manifest.adapter,
            "prompt": manifest.prompt,
        },
    )


def live_release(name: str, home: Home, config: ServiceConfig) -> LiveRelease:
    """The release as it is live, followed in the registry; every version is proven before it answers.

    Raises a TandemError where neither the live version nor the one before it loads.
    """
    client = connect(home)
    where, load = partial(target_of, client, name), partial(open_proven, client, name, home=home)
    return LiveRelease(name, where, load, keep=config.open_releases, retry_seconds=config.retry_seconds)


def target_of(client: MlflowClient, name: str) -> Target:
    """Where the release's aliases stand. Raises RegistryError where MLflow does not say."""
    with failures_explained(client.tracking_uri):
        reach(client.tracking_uri)  # in seconds, where MLflow's own client would try for minutes
    now = pointers(client, name)
    return Target(now.champion, now.previous, now.candidate, held=now.hold is not None)


def open_proven(client: MlflowClient, name: str, number: int, home: Home) -> Assistant:
    """A version that is shown to load and fit, ready to answer. Raises a TandemError where it is not fit."""
    manifest = _manifest_of(client, name, number)
    prove(asdict(manifest))
    assistant = open_manifest(manifest, home)
    assistant.reader.warm()
    return assistant


def part(client: MlflowClient, pinned: str) -> dict[str, Any]:
    """The manifest of a part, which is named as ``name@number``."""
    name, _, number = pinned.partition("@")
    return load_manifest(client, name, int(number))


def turns_of_prompt(client: MlflowClient, pinned: str) -> list[Turn]:
    """The turns of a prompt. Raises RegistryError where it is none."""
    manifest = part(client, pinned)
    if kind_of(manifest) != "prompt":
        raise RegistryError(f"{pinned} is no prompt")
    return list(manifest["turns"])


def prove(manifest: Mapping[str, Any]) -> None:
    """Show that every part of a release is there, loads and fits the others. Raises a TandemError if not."""
    home = find_home()
    release = ReleaseManifest.from_json(manifest)
    client = connect(home)
    serving.prove(part(client, release.index))
    if release.adapter:
        adapters.prove(part(client, release.adapter))
    check_fit(stored.policy_of(release), release.adapter)
    check_turns(turns_of_prompt(client, release.prompt))


def check_fit(policy: PolicyConfig, adapter: str) -> None:
    """Raises ModelError where the generator needs an adapter and has none, or has one that it does not use."""
    kind = policy.generator.kind
    if kind == "transformers" and not adapter:
        raise ModelError("the policy's generator is transformers, which needs an adapter: name one under `adapter`")
    if policy.generator.load_adapter and not adapter:
        raise ModelError("the policy lets the endpoint load an adapter, and there is none: name one under `adapter`")
    if kind == "extractive" and adapter:
        raise ModelError(f"the policy's generator is extractive and uses no adapter: leave {adapter} out")


def _generator(policy: PolicyConfig, manifest: ReleaseManifest, home: Home) -> Generator:
    config = policy.generator
    if config.kind == "extractive":
        from tasks.answering.extractive import ExtractiveGenerator

        return ExtractiveGenerator(config.sentences)
    if config.kind == "endpoint":
        from tasks.answering.endpoint import EndpointGenerator

        files = adapters.kept_adapter(manifest.adapter, home) if config.load_adapter else None
        return EndpointGenerator(config, manifest.adapter, files, confident=policy.routing.alone)
    from tasks.answering.local import LocalGenerator

    name, _, number = manifest.adapter.partition("@")
    return LocalGenerator(adapters.open_adapter(name, int(number), home), config.max_new_tokens)


def answering(manifest: Mapping[str, Any]) -> Callable[..., list[dict[str, Any]]]:
    """The entry point of the MLflow model: questions in, answers with citations out."""
    assistant = open_manifest(ReleaseManifest.from_json(manifest), find_home())

    def answer(questions: list[str], tenant: str | None = None) -> list[dict[str, Any]]:
        return [asdict(assistant.answer(question, tenant)) for question in questions]

    return answer
