"""Asks the model hub whether a model is offered as it was."""

from typing import TYPE_CHECKING

from tasks.errors import TandemError

if TYPE_CHECKING:
    from huggingface_hub.hf_api import ModelInfo

SECONDS = 10


class Unanswered(TandemError):
    """The hub did not say."""


def changed_upstream(model: str, revision: str | None) -> str:
    """What has become of a model's weights since that revision, in a sentence without its end; empty if nothing has.

    Raises Unanswered where the hub cannot be reached.
    """
    from huggingface_hub.errors import RepositoryNotFoundError, RevisionNotFoundError

    try:
        offered = _ask(model, None)
    except RepositoryNotFoundError:
        return f"the model {model} is withdrawn from the hub, or no longer open to this account"
    if revision is None or offered.sha == revision:
        return ""
    try:
        pinned = _ask(model, revision)
    except RevisionNotFoundError:
        return f"the revision {revision} of the model {model} is withdrawn from the hub"
    if _weights(pinned) == _weights(offered):
        return ""
    return f"the hub now offers other weights of the model {model} ({offered.sha}) than those pinned ({revision})"


def _ask(model: str, revision: str | None) -> "ModelInfo":
    from huggingface_hub import HfApi
    from huggingface_hub.errors import HTTPError, RepositoryNotFoundError, RevisionNotFoundError

    try:
        return HfApi().model_info(model, revision=revision, files_metadata=True, timeout=SECONDS)
    except (RepositoryNotFoundError, RevisionNotFoundError):
        raise
    except (OSError, HTTPError) as error:
        raise Unanswered(f"the hub does not answer for {model} ({type(error).__name__})") from error


def _weights(info: "ModelInfo") -> set[tuple[str, str | None]]:
    """Names and hashes of the files with weights."""
    files = [file for file in info.siblings or () if file.rfilename.endswith((".safetensors", ".bin"))]
    return {(file.rfilename, file.lfs.sha256 if file.lfs else file.blob_id) for file in files}
