"""Serves at once what somebody went back to: a release that was live before, made of the parts that are live now."""

import logging
from collections.abc import Mapping
from typing import Any

from tasks.adapters import ADAPTER_FILE
from tasks.config.answering import ReleaseConfig
from tasks.config.settings import Home, find_home
from tasks.errors import ModelError, RefusedError, StoreError
from tasks.index.search import open_store
from tasks.promote import moving
from tasks.records import IndexManifest, Move, ReleaseManifest
from tasks.registry import ledger, pointers
from tasks.registry.connection import MlflowClient, connect
from tasks.registry.versions import PART_TAG, has_file, own_versions
from tasks.releases import part

log = logging.getLogger(__name__)


def put_back(client: MlflowClient, config: ReleaseConfig, parts: Mapping[str, str], home: Home) -> Move | None:
    """Put the newest release live that is made of these parts and was live before; it is examined afterwards.

    None where there is no such release, where it is live already, where the release is held, or where its
    configuration lets none go live (`promote: never`).
    """
    number = _lived(client, config.name, parts)
    if number is None or number == pointers.pointers(client, config.name).champion or config.promote == "never":
        return None
    reason = f"{', '.join(parts.values())} went live again, and version {number} was live with it before"
    try:
        with moving(config.name, home) as mlflow:
            return pointers.promote(mlflow, config.name, number, by="tandem watch", reason=reason, prove=_is_there)
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


def _is_there(manifest: Mapping[str, Any]) -> None:
    """Show that what the release is made of was not removed. Whoever serves it proves that it loads and answers.

    Raises a TandemError if a part is gone.
    """
    client, release = connect(find_home()), ReleaseManifest.from_json(manifest)
    if not len(open_store(IndexManifest.from_json(part(client, release.index)))):
        raise StoreError(f"{release.index} holds no passage")
    name, _, number = release.adapter.partition("@")
    if name and not has_file(client, name, int(number), ADAPTER_FILE):
        raise ModelError(f"the files of {release.adapter} are gone")
