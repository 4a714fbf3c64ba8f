"""Puts right what a killed run or a hand in MLflow's UI left behind."""

from collections.abc import Iterator, Mapping
from dataclasses import dataclass

from tasks.config.settings import Home
from tasks.doctor import is_protected
from tasks.errors import StoreError, TandemError
from tasks.index.store import IndexStore
from tasks.lock import model_lock
from tasks.promote import follow, moving
from tasks.records import IndexManifest, kind_of, number_of
from tasks.register import VERDICT_TAG, VERSION_TAG, read_verdict
from tasks.registry.connection import MlflowClient
from tasks.registry.ledger import Pointers, was_ever_pointed_at
from tasks.registry.pointers import pointers, protected, settle
from tasks.registry.runs import close_abandoned
from tasks.registry.versions import get, load_manifest, newest_tags


@dataclass(frozen=True, slots=True)
class Mended:
    """What was done, and what stands now."""

    done: tuple[str, ...]
    """As sentences."""
    newest: Mapping[str, str]
    """The tags of the newest registered version; none where there is none."""
    live: int | None


def mend(name: str, home: Home) -> Mended:
    """Close abandoned runs and let pointers and ledger agree. The caller holds the model's lock.

    Raises:
        RegistryError: MLflow does not answer; better now than after an hour of embedding.
    """
    with moving(name, home) as client:
        done = [f"closed the MLflow run {run_id}, whose process was gone" for run_id in close_abandoned(client, name)]
        done += [f"{m.what} {m.before} → {m.after}: {m.reason} ({m.by})" for m in settle(client, name)]
        newest = newest_tags(client, name)
        now = pointers(client, name)
        if left := list(_follow_last_verdict(client, name, newest, now)):
            now = pointers(client, name)
        return Mended((*done, *left), newest, now.champion)


def _follow_last_verdict(client: MlflowClient, name: str, newest: Mapping[str, str], now: Pointers) -> Iterator[str]:
    """A night that was killed after it registered a version, and before it moved a pointer, left its verdict behind."""
    if newest.get(VERDICT_TAG) not in ("promote", "hold"):
        return
    number = number_of(newest[VERSION_TAG])
    if number in (now.champion, now.candidate) or was_ever_pointed_at(client, name, number):
        return
    version = get(client, name, number)
    try:
        verdict = read_verdict(client, version)
        if verdict.promote == "never":
            return
        follow(client, version, verdict)
        yield f"version {number} was left by a night that was killed; its verdict was followed now"
    except TandemError as error:
        yield f"version {number} was left by a night that was killed, and cannot go live: {error}"


def mend_all(name: str, home: Home) -> list[str]:
    """Everything `mend` does, and tags that protect versions are made anew where somebody removed them."""
    with model_lock(home.locks, name, 0):
        mended = mend(name, home)
        with moving(name, home) as client:
            return [*mended.done, *_protect(client, name)]


def _protect(client: MlflowClient, name: str) -> Iterator[str]:
    for number in protected(client, name):
        values = load_manifest(client, name, number)
        if kind_of(values) == "index" and not is_protected(manifest := IndexManifest.from_json(values)):
            try:
                store = IndexStore.open(manifest.uri, manifest.table)
                store.tag(manifest.tag, manifest.lance_version)
                yield f"version {number} is protected again by the tag {manifest.tag}"
            except StoreError as error:
                yield f"version {number} cannot be protected: {error}"
