"""Any OpenAI-compatible embeddings endpoint."""

import functools
import os
from collections.abc import Sequence
from pathlib import Path

import numpy as np
from openai import OpenAI, OpenAIError, omit
from pyrate_limiter import Duration, Limiter, Rate

from tasks.config.index import EmbedderConfig
from tasks.errors import ConfigError, EmbedderError
from tasks.index.embedding import Vectors


class Endpoint:
    """An `Embedder` over HTTP: in batches, with retries and a rate limit. Raises `EmbedderError`."""

    def __init__(self, config: EmbedderConfig, tokenizer_file: Path, fingerprint: str) -> None:
        key = os.environ.get(config.api_key_env)
        if not key:
            raise ConfigError(
                f"the environment variable {config.api_key_env} is not set: it must hold the key of the "
                "embeddings endpoint (any word will do for an endpoint that asks for none)"
            )
        self.fingerprint = fingerprint
        self.tokenizer_file = tokenizer_file
        self._config = config
        self._client = OpenAI(api_key=key, base_url=config.base_url, max_retries=config.max_retries)
        self.label = f"{config.model}, {self._client.base_url}"
        self._limiter = Limiter(Rate(config.requests_per_minute, Duration.MINUTE))

    @functools.cached_property
    def dimension(self) -> int:
        """As configured, else found out by embedding a word."""
        return self._config.dimensions or self._request(["dimension"]).shape[1]

    def embed_passages(self, texts: Sequence[str]) -> Vectors:
        return self._embed(self._config.passage_prefix, texts)

    def embed_queries(self, texts: Sequence[str]) -> Vectors:
        return self._embed(self._config.query_prefix, texts)

    def _embed(self, prefix: str, texts: Sequence[str]) -> Vectors:
        size = self._config.batch_size
        vectors = np.empty((len(texts), self.dimension), dtype=np.float32)
        for start in range(0, len(texts), size):
            batch = [prefix + text for text in texts[start : start + size]]
            found = self._request(batch)
            if found.shape != (len(batch), self.dimension):
                raise EmbedderError(
                    f"{self.label} answered {len(batch)} texts with vectors of shape {found.shape} instead "
                    f"of {(len(batch), self.dimension)}: check embedder.model and embedder.dimensions"
                )
            vectors[start : start + size] = found
        return vectors

    def _request(self, texts: list[str]) -> Vectors:
        self._limiter.try_acquire("embeddings")
        try:
            answer = self._client.embeddings.create(
                model=self._config.model,
                input=texts,
                encoding_format="float",
                dimensions=self._config.dimensions or omit,
            )
            # The order of the answer is not promised; the index of each vector is.
            vectors = np.array(
                [item.embedding for item in sorted(answer.data, key=lambda item: item.index)],
                dtype=np.float32,
            )
        except (OpenAIError, ValueError, TypeError, AttributeError) as error:
            raise EmbedderError(
                f"{self.label} gave no vectors: {error}; check that embedder.base_url ends in /v1, the key "
                f"in {self._config.api_key_env}, and that the endpoint is up, then run again"
            ) from error
        lengths = np.linalg.norm(vectors, axis=-1, keepdims=True)
        if vectors.ndim != 2 or not np.isfinite(lengths).all() or not lengths.all():
            raise EmbedderError(f"{self.label} answered with vectors that are no numbers, null or missing")
        return vectors / lengths
