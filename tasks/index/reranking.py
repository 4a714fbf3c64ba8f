"""Re-orders the best candidates with a cross-encoder, which reads query and passage together."""

import functools
from collections.abc import Sequence
from typing import Any

from tasks.errors import EmbedderError


def rerank(query: str, texts: Sequence[str], model: str) -> list[float]:
    """Scores of the texts for the query, in their order; higher is better.

    `model` is a sentence-transformers cross-encoder, by id or folder, loaded once a process.

    Raises:
        EmbedderError: the model cannot be found or read.
    """
    if not texts:
        return []
    scores = _load(model).predict([(query, text) for text in texts], show_progress_bar=False)
    return [float(score) for score in scores]


@functools.lru_cache(maxsize=2)
def _load(model: str) -> Any:
    from sentence_transformers import CrossEncoder

    try:
        return CrossEncoder(model, num_labels=1)
    except (OSError, ValueError, KeyError, RuntimeError) as error:
        raise EmbedderError(
            f"the reranker {model} cannot be loaded: {error}; check search.reranker, connect once to "
            "download it, or set it to a folder that holds a cross-encoder"
        ) from error
