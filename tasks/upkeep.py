"""Looks whether what a release stands on is still fresh: its sources, its versions, its models."""

import time
from collections.abc import Iterator
from dataclasses import dataclass
from datetime import timedelta
from pathlib import Path
from typing import Any

from prefect import get_client, task
from prefect.client.schemas.filters import (
    FlowRunFilter,
    FlowRunFilterName,
    TaskRunFilter,
    TaskRunFilterName,
    TaskRunFilterState,
    TaskRunFilterStateType,
)
from prefect.client.schemas.objects import StateType
from prefect.client.schemas.sorting import TaskRunSort

from tasks.config import stored
from tasks.config.monitoring import MonitorConfig
from tasks.config.settings import Home, find_home
from tasks.documents.changes import corpus_hash, source_of
from tasks.errors import EmbedderError, ModelError, StoreError
from tasks.index.embedding import embedder_fingerprint
from tasks.index.store import IndexStore
from tasks.records import AdapterManifest, IndexManifest, ReleaseManifest, Spotted, kind_of
from tasks.registry.connection import MlflowClient, connect
from tasks.registry.versions import get, list_versions, load_manifest
from tasks.releases import part
from tasks.training.base import fetch_base, hash_base, hash_settings
from tasks.upstream import Unanswered, changed_upstream

DAY = timedelta(days=1).total_seconds()
LOOK_BACK = 30
"""Versions of an index that are read to find the last change of a source."""


@dataclass(frozen=True, slots=True)
class SourceAge:
    """A source of an index. Times are in seconds since the epoch."""

    index: str
    source: str
    documents: int
    listed: float
    """When it was last listed without an error."""
    changed: float
    """When the first version was made that holds its documents as they are now, as far as one can look back."""


@dataclass(frozen=True, slots=True)
class VersionAge:
    """A live version."""

    kind: str
    pinned: str
    """As ``name@number``."""
    created: float


@dataclass(frozen=True, slots=True)
class Upkeep:
    """What a release stands on, and what is wrong with it."""

    sources: tuple[SourceAge, ...]
    versions: tuple[VersionAge, ...]
    found: tuple[Spotted, ...]
    notes: tuple[str, ...]


@task(name="look after parts", task_run_name="look after {release}")
def look_after(config: MonitorConfig, release: str) -> Upkeep:
    """Every part of a release, named as ``name@number``: when it was made, whether it is as it was, and its sources."""
    home, now = find_home(), time.time()
    client = connect(home)
    manifest = ReleaseManifest.from_json(part(client, release))
    versions = tuple(_version(client, *each) for each in [("release", release), *manifest.parts.items()])
    sources = tuple(_sources(client, manifest.index))
    notes: list[str] = []
    found = (
        *_stale(config, sources, now),
        *_old(config, versions, now),
        *_changed(client, manifest, config.ask_hub, notes, home),
    )
    return Upkeep(sources, versions, found, tuple(notes))


def _stale(config: MonitorConfig, sources: tuple[SourceAge, ...], now: float) -> Iterator[Spotted]:
    for each in sources:
        name = f"{each.index}/{each.source}"
        unseen, unchanged = (now - each.listed) / DAY, (now - each.changed) / DAY
        again = f"run `tandem reindex` with the configuration of {each.index}, and see why its schedule did not"
        if unseen > config.max_source_days:
            yield Spotted(
                "stale",
                name,
                f"The source {each.source} of {each.index} was last read without an error {unseen:.1f} days ago, "
                f"more than the {config.max_source_days:g} allowed.",
                again,
            )
        elif config.max_unchanged_days and unchanged > config.max_unchanged_days:
            yield Spotted(
                "stale",
                name,
                f"No document of the source {each.source} of {each.index} has changed for {unchanged:.1f} days, more "
                f"than the {config.max_unchanged_days:g} allowed.",
                f"see whether whoever writes {each.source} still writes there",
            )


def _old(config: MonitorConfig, versions: tuple[VersionAge, ...], now: float) -> Iterator[Spotted]:
    makes = {"release": "release", "index": "reindex", "adapter": "sft` or `tandem dpo", "prompt": "release"}
    for each in versions:
        limit, age = config.max_live_days.get(each.kind), (now - each.created) / DAY  # type: ignore[call-overload]
        if limit is not None and age > limit:
            yield Spotted(
                "old",
                each.kind,
                f"The live {each.kind} {each.pinned} is {age:.1f} days old, more than the {limit:g} allowed.",
                f"make a new version: `tandem {makes[each.kind]}`",
            )


def _changed(
    client: MlflowClient, manifest: ReleaseManifest, ask_hub: bool, notes: list[str], home: Home
) -> Iterator[Spotted]:
    """Models that are not there any more, or not as they were when a part was made with them."""
    for pinned in manifest.parts.values():
        values = part(client, pinned)
        if (kind := kind_of(values)) not in ("index", "adapter"):
            continue
        try:
            what = _index_problem(values, home) if kind == "index" else _adapter_problem(values)
            if not what and ask_hub and (offered := _hub_model(values)):
                what = changed_upstream(*offered)
        except Unanswered as error:
            notes.append(f"Whether {pinned} stands on models that are still offered is not known: {error}.")
            continue
        if what:
            makes = "tandem reindex" if kind == "index" else "tandem sft` or `tandem dpo"
            again = f"put the model back as it was, or make a new version with `{makes}`"
            yield Spotted("changed", pinned, f"{pinned} depends on it: {what}.", again)


def _index_problem(values: dict[str, Any], home: Home) -> str:
    manifest = IndexManifest.from_json(values)
    embedder = stored.embedder_of(manifest)
    try:
        now = embedder_fingerprint(embedder, home)
    except EmbedderError as error:
        return f"the embedder is gone: {error}"
    if now == manifest.embedder_fingerprint:
        return ""
    return f"the embedder {embedder.model} is {now}, and was {manifest.embedder_fingerprint} when its vectors were made"


def _adapter_problem(values: dict[str, Any]) -> str:
    """Of a base model in a folder; weights of the hub are pinned, and need not lie on this machine."""
    manifest = AdapterManifest.from_json(values)
    base = stored.base_of(manifest)
    if _of_hub(base.model):
        return ""
    try:
        folder = fetch_base(base)
        weights, settings = hash_base(folder), hash_settings(folder)
    except ModelError as error:
        return f"the base model is gone: {error}"
    for what, now, before in (
        ("weights", weights, manifest.base_hash),
        ("settings", settings, manifest.base_settings_hash),
    ):
        if before and now != before:
            return f"the {what} of the base model {base.model} are {now}, and were {before} when it was trained"
    return ""


def _hub_model(values: dict[str, Any]) -> tuple[str, str | None] | None:
    """The model on the hub that a part was made with, and its revision; None where it came from elsewhere."""
    model = values.get("base") or values["embedder"]
    elsewhere = model.get("kind") in ("packaged", "openai") or not _of_hub(model["model"])
    return None if elsewhere else (model["model"], model.get("revision"))


def _of_hub(model: str) -> bool:
    return model.count("/") == 1 and not model.startswith((".", "/")) and not Path(model).exists()


def _version(client: MlflowClient, kind: str, pinned: str) -> VersionAge:
    name, _, number = pinned.partition("@")
    return VersionAge(kind, pinned, get(client, name, int(number)).created)


def _sources(client: MlflowClient, pinned: str) -> Iterator[SourceAge]:
    """Those that the live version of an index has documents of."""
    name, _, number = pinned.partition("@")
    held = _held(load_manifest(client, name, int(number)))
    versions = [each for each in list_versions(client, name) if each.number <= int(number)][::-1][:LOOK_BACK]
    changed = dict.fromkeys(held, versions[0].created)
    same = set(held)
    for version in versions[1:]:
        try:
            before = _held(load_manifest(client, name, version.number))
        except StoreError:  # its state of the table is gone
            break
        same = {source for source in same if before.get(source) == held[source]}
        changed |= dict.fromkeys(same, version.created)
    made = max(version.created for version in list_versions(client, name))
    for source, (_, documents) in sorted(held.items()):
        yield SourceAge(name, source, documents, _last_listed(name, source) or made, changed[source])


def _held(values: dict[str, Any]) -> dict[str, tuple[str, int]]:
    """By source a hash over its documents as a version holds them, and their number."""
    manifest = IndexManifest.from_json(values)
    states = IndexStore.open(manifest.uri, manifest.table).at(manifest.lance_version).documents().values()
    sources = {source_of(state.document) for state in states}
    own = {source: [state for state in states if source_of(state.document) == source] for source in sources}
    return {source: (corpus_hash(of), len(of)) for source, of in own.items()}


def _last_listed(index: str, source: str) -> float | None:
    """When a re-index last listed the source without an error: a quiet night leaves no trace but in Prefect."""
    done = TaskRunFilterState(type=TaskRunFilterStateType(any_=[StateType.COMPLETED]))
    with get_client(sync_client=True) as prefect:
        runs = prefect.read_task_runs(
            flow_run_filter=FlowRunFilter(name=FlowRunFilterName(any_=[f"re-index {index}"])),
            task_run_filter=TaskRunFilter(name=TaskRunFilterName(any_=[f"collect {source}"]), state=done),
            sort=TaskRunSort.END_TIME_DESC,
            limit=1,
        )
    return runs[0].end_time.timestamp() if runs and runs[0].end_time else None
