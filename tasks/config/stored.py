"""Configurations as versions were registered with them, read by the Tandem of today."""

import logging
from collections.abc import Mapping
from copy import deepcopy
from typing import Any

from pydantic import ValidationError

from tasks.config.answering import PolicyConfig
from tasks.config.index import EmbedderConfig, SearchConfig
from tasks.config.loading import Model
from tasks.config.training import BaseModelConfig
from tasks.errors import StoreError
from tasks.records import AdapterManifest, IndexManifest, ReleaseManifest

log = logging.getLogger(__name__)


def policy_of(manifest: ReleaseManifest) -> PolicyConfig:
    return read_stored(manifest.policy, PolicyConfig, f"the policy of {manifest.release} {manifest.tag}")


def embedder_of(manifest: IndexManifest) -> EmbedderConfig:
    return read_stored(manifest.embedder, EmbedderConfig, f"the embedder of {manifest.index} {manifest.tag}")


def search_of(manifest: IndexManifest) -> SearchConfig:
    return read_stored(manifest.search, SearchConfig, f"the search of {manifest.index} {manifest.tag}")


def base_of(manifest: AdapterManifest) -> BaseModelConfig:
    return read_stored(manifest.base, BaseModelConfig, f"the base model of {manifest.adapter} {manifest.tag}")


def read_stored(values: Mapping[str, Any], model: type[Model], what: str) -> Model:
    """What an older Tandem did not write has its default; keys of a newer one are left out, and named in the log.

    Raises `StoreError` where a value is one that this Tandem does not know.
    """
    known = deepcopy(dict(values))
    if unknown := _take_out_unknown(known, model):
        log.warning("%s has settings of a newer Tandem, which are left out: %s", what, ", ".join(unknown))
    try:
        return model.model_validate(known)
    except ValidationError as error:
        wrong = "; ".join(f"{_key(problem['loc'])}: {problem['msg']}" for problem in error.errors())
        raise StoreError(f"{what} cannot be read ({wrong}): upgrade Tandem if a newer one made this version") from None


def _take_out_unknown(values: dict[str, Any], model: type[Model]) -> list[str]:
    """Remove the keys that a model does not have, in place; returns them."""
    try:
        model.model_validate(values)
    except ValidationError as error:
        places = [problem["loc"] for problem in error.errors() if problem["type"] == "extra_forbidden"]
    else:
        return []
    for *above, key in places:
        holder: Any = values
        for part in above:
            holder = holder[part]
        del holder[key]
    return [_key(place) for place in places]


def _key(place: tuple[int | str, ...]) -> str:
    return ".".join(map(str, place)) or "as a whole"
