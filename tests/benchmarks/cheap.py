"""An embedder that costs next to nothing, for measurements of everything but the embedding."""

import hashlib
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from pathlib import Path
from unittest.mock import patch

import numpy as np

from tasks.config.index import EmbedderConfig
from tasks.config.settings import Home
from tasks.index.cache import Vectors
from tasks.index.embedding import embedder_fingerprint, packaged_folder


class CheapEmbedder:
    """Vectors are a hash of the text, of the size of all-MiniLM-L6-v2's and under its name."""

    label = "a hash of the text"
    dimension = 384

    def __init__(self, config: EmbedderConfig, home: Home) -> None:
        self.fingerprint = embedder_fingerprint(config, home)
        self.tokenizer_file: Path = packaged_folder() / "tokenizer.json"

    def embed_passages(self, texts: Sequence[str]) -> Vectors:
        hashed = b"".join(hashlib.shake_128(text.encode()).digest(self.dimension) for text in texts)
        vectors = np.frombuffer(hashed, np.int8).reshape(len(texts), self.dimension).astype(np.float32) + 0.5
        return vectors / np.linalg.norm(vectors, axis=1, keepdims=True)

    embed_queries = embed_passages


@contextmanager
def cheap_embedding() -> Iterator[None]:
    """Let the nights of this process embed for nothing."""
    with patch("tasks.prepare.load_embedder", CheapEmbedder), patch("tasks.serving._embedder", CheapEmbedder):
        yield
