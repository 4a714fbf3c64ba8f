"""Puts right what a killed run or a hand in MLflow's UI left behind."""

from collections.abc import Iterator, Mapping
from dataclasses import dataclass

from tasks.config.settings import Home
from tasks.doctor import is_protected, stray_tags, what_to_promote
from tasks.errors import TandemError
from tasks.index.store import IndexStore
from tasks.lock import model_lock
from tasks.promote import follow, moving
from tasks.records import kind_of, number_of
from tasks.register import VERDICT_TAG, read_verdict
from tasks.registry.connection import MlflowClient, connect
from tasks.registry.deleted import restore_deleted, restore_ledger
from tasks.registry.ledger import Pointers, was_ever_pointed_at
from tasks.registry.marks import VERSION_TAG
from tasks.registry.pointers import drop_dangling, pointers, settle
from tasks.registry.runs import close_abandoned
from tasks.registry.versions import get, list_versions, load_manifest, newest_tags


@dataclass(frozen=True, slots=True)
class Mended:
    """What was done, and what stands now."""

    done: tuple[str, ...]
    """As sentences."""
    newest: Mapping[str, str]
    """The tags of the newest registered version; none where there is none."""
    live: int | None
    remedy: str = ""
    """The command that puts a version live, where nothing is live."""


def mend(name: str, home: Home) -> Mended:
    """Close abandoned runs and let pointers and ledger agree. The caller holds the model's lock.

    Raises:
        RegistryError: MLflow does not answer; better now than after an hour of embedding.
    """
    with moving(name, home) as client:
        done = restore_deleted(client, name)
        done += [f"closed the MLflow run {run_id}: no process worked on it" for run_id in close_abandoned(client, name)]
        done += [f"took away {what}, which pointed at a version that is gone" for what in drop_dangling(client, name)]
        done += [f"{m.what} {m.before} → {m.after}: {m.reason} ({m.by})" for m in settle(client, name)]
        newest = newest_tags(client, name)
        now = pointers(client, name)
        if left := list(_follow_last_verdict(client, name, newest, now)):
            now = pointers(client, name)
        return Mended((*done, *left), newest, now.champion, what_to_promote(client, name))


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
    """Everything `mend` does; and every version of an index has its tag in the table, and every tag its version."""
    with model_lock(home.locks, name, 0):
        ledger = restore_ledger(connect(home))
        mended = mend(name, home)
        with moving(name, home) as client:
            return [*ledger, *mended.done, *protect_versions(client, name), *_untag(client, name, home)]


def protect_versions(client: MlflowClient, name: str) -> Iterator[str]:
    """Make the tags anew that somebody removed; a sentence on each, and on each version that has lost its state."""
    for version in list_versions(client, name):
        try:
            values = load_manifest(client, name, version.number)
            if kind_of(values) == "index" and not is_protected(values):
                IndexStore.open(values["uri"], values["table"]).tag(values["tag"], values["lance_version"])
                yield f"version {version.number} is protected again by the tag {values['tag']}"
        except TandemError as error:
            yield f"version {version.number} cannot be protected: {error}"


def _untag(client: MlflowClient, name: str, home: Home) -> Iterator[str]:
    for table, stray in stray_tags(client, name, home).items():
        for tag in stray:
            IndexStore.open(home.lancedb, table).untag(tag)
            yield f"removed the tag {tag} from the table {table}: no version is named by it"
