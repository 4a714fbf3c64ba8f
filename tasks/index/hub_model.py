"""Any sentence-transformers model, on whatever device torch finds."""

from collections.abc import Sequence
from pathlib import Path

import numpy as np
from sentence_transformers import SentenceTransformer

from tasks.config.index import EmbedderConfig
from tasks.errors import EmbedderError
from tasks.index.embedding import Vectors


class HubModel:
    """An `Embedder`. Batched with other texts, vectors agree to rounding (about 1e-6), not to the bit."""

    def __init__(self, config: EmbedderConfig, folder: Path, tokenizer_file: Path, fingerprint: str) -> None:
        self.label = f"{config.model}, sentence-transformers"
        self.fingerprint = fingerprint
        self.tokenizer_file = tokenizer_file
        self._config = config
        try:
            self._model = SentenceTransformer(str(folder))
        except (OSError, ValueError, KeyError, RuntimeError) as error:
            raise EmbedderError(
                f"{folder} does not load as a sentence-transformers model: {error}; download {config.model} again"
            ) from error
        dimension = self._model.get_embedding_dimension()
        if dimension is None:
            raise EmbedderError(f"{folder} does not say how long its vectors are: it is no embedding model")
        self.dimension = dimension

    def embed_passages(self, texts: Sequence[str]) -> Vectors:
        return self._embed(self._config.passage_prefix, texts)

    def embed_queries(self, texts: Sequence[str]) -> Vectors:
        return self._embed(self._config.query_prefix, texts)

    def _embed(self, prefix: str, texts: Sequence[str]) -> Vectors:
        if not texts:
            return np.empty((0, self.dimension), dtype=np.float32)
        vectors = self._model.encode(
            [prefix + text for text in texts],
            batch_size=self._config.batch_size,
            normalize_embeddings=True,
            show_progress_bar=False,
        )
        return np.asarray(vectors, dtype=np.float32)
