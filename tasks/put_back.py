"""Serves at once what somebody went back to: an index or an adapter that was live before, in a release.

Where a release of just these parts was live before, it goes live again. Else one is made of the live release: each part
that moved is replaced by a version that was live before, and thus passed its own gate. Either is examined afterwards.
"""

import logging
from collections.abc import Mapping
from dataclasses import asdict
from typing import Any

from tasks.adapters import ADAPTER_FILE
from tasks.config import stored
from tasks.config.answering import ReleaseConfig
from tasks.config.settings import Home, find_home
from tasks.errors import BusyError, ModelError, RefusedError, StoreError, TandemError
from tasks.headline import today
from tasks.index.search import open_store
from tasks.lock import model_lock
from tasks.promote import moving
from tasks.records import IndexManifest, Move, ReleaseManifest
from tasks.register import PUT_BACK, VERDICT_TAG
from tasks.register_release import register_parts
from tasks.registry import ledger, pointers
from tasks.registry.connection import MlflowClient, connect
from tasks.registry.runs import finish, start_run
from tasks.registry.versions import PART_TAG, has_file, load_manifest, next_number, own_versions
from tasks.releases import check_fit, part

log = logging.getLogger(__name__)


def put_back(client: MlflowClient, config: ReleaseConfig, parts: Mapping[str, str], home: Home) -> Move | None:
    """Put the newest release live that is made of these parts and was live before, or make one; None where neither is.

    None also where it is live already, where the release is held, and where its configuration lets none go live
    (`promote: never`). Under `promote: ask` whoever moved the part back has asked for it.

    Raises BusyError where one would be made, and a release run is under way.
    """
    number = _lived(client, config.name, parts)
    live = pointers.pointers(client, config.name)
    if config.promote == "never" or live.hold is not None or live.champion is None or number == live.champion:
        return None
    try:
        if number is not None:
            reason = f"{', '.join(parts.values())} went live again, and version {number} was live with it before"
        elif moved := _moved_back(client, config.name, live.champion, parts):
            number = _make(client, config.name, live.champion, moved, home)
            reason = f"{', '.join(moved.values())} went live again; the rest is as in version {live.champion}"
        else:
            return None
        with moving(config.name, home) as mlflow:
            return pointers.promote(mlflow, config.name, number, by="tandem watch", reason=reason, prove=_is_there)
    except BusyError:
        raise
    except RefusedError as refusal:
        log.info("%s", refusal)
        return None


def _lived(client: MlflowClient, name: str, parts: Mapping[str, str]) -> int | None:
    lived = {entry.move.after for entry in ledger.made(client, name) if entry.move.what == "champion"}
    made_of = {f"{PART_TAG}{kind}": part for kind, part in parts.items()}.items()
    return next(
        (
            int(version.version)
            for version in reversed(own_versions(client, name))
            if made_of <= version.tags.items() and int(version.version) in lived
        ),
        None,
    )


def _moved_back(client: MlflowClient, name: str, live: int, parts: Mapping[str, str]) -> dict[str, str]:
    """By kind, the parts that are others than in the live release, if every one of them was live before."""
    now = ReleaseManifest.from_json(load_manifest(client, name, live)).parts
    moved = {kind: pinned for kind, pinned in parts.items() if now.get(kind) != pinned}
    return moved if all(_was_live(client, pinned) for pinned in moved.values()) else {}


def _was_live(client: MlflowClient, pinned: str) -> bool:
    """Whether the version was live before it went live now; the ledger does not know yet what was moved by hand."""
    name, _, number = pinned.partition("@")
    lived = [entry.move.after for entry in ledger.made(client, name) if entry.move.what == "champion"]
    return int(number) in (lived[1:] if lived[:1] == [int(number)] else lived)


def _make(client: MlflowClient, name: str, live: int, moved: Mapping[str, str], home: Home) -> int:
    """Register the live release with other parts. Raises a TandemError where they do not fit."""
    with model_lock(home.locks, name, 0):
        before = load_manifest(client, name, live)
        manifest = ReleaseManifest.from_json({**before, **moved, "tag": f"v{next_number(client, name)}"})
        _is_there(asdict(manifest))
        run_id = start_run(client, f"release-{name}", f"put back {name}", name)
        told = f"Put back, not examined yet: version {live} with {', '.join(moved.values())}"
        try:
            tags = {VERDICT_TAG: PUT_BACK, "result": "put back, not examined yet", "made on": today()}
            version = register_parts(client, manifest, run_id, tags, f"{told}. {today()}.")
        except TandemError as error:
            finish(client, run_id, "FAILED", str(error))
            raise
        finish(client, run_id)
        return version.number


def _is_there(manifest: Mapping[str, Any]) -> None:
    """Show that the parts of the release were not removed, and fit. Whoever serves it proves that it loads and answers.

    Raises a TandemError if not.
    """
    client, release = connect(find_home()), ReleaseManifest.from_json(manifest)
    if not len(open_store(IndexManifest.from_json(part(client, release.index)))):
        raise StoreError(f"{release.index} holds no passage")
    name, _, number = release.adapter.partition("@")
    if name and not has_file(client, name, int(number), ADAPTER_FILE):
        raise ModelError(f"the files of {release.adapter} are gone")
    check_fit(stored.policy_of(release), release.adapter)
