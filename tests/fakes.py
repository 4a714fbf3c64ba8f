"""Stand-ins that are deterministic, need no model, and count what they are asked."""

import hashlib
from collections.abc import Sequence

import numpy as np
import numpy.typing as npt
import pyarrow as pa

from tasks.index.store import chunk_schema


class FakeEmbedder:
    """Embeds a text as its hashed bag of words, so that texts sharing words are near and equal texts are
    equal."""

    label = "fake"
    tokenizer_file = None

    def __init__(self, dimension: int = 64, name: str = "fake") -> None:
        self.dimension = dimension
        self.fingerprint = f"{name}-{dimension}"
        self.calls = 0

    def embed_passages(self, texts: Sequence[str]) -> npt.NDArray[np.float32]:
        self.calls += 1
        vectors = np.zeros((len(texts), self.dimension), dtype=np.float32)
        for vector, text in zip(vectors, texts, strict=True):
            for word in text.lower().split():
                digest = hashlib.sha256(word.strip(".,;:!?").encode()).digest()
                vector[int.from_bytes(digest[:4], "big") % self.dimension] += 1 if digest[4] % 2 else -1
            vector[0] += 1e-3  # no text embeds as the null vector
        return vectors / np.linalg.norm(vectors, axis=1, keepdims=True)

    embed_queries = embed_passages


def batch(
    passages: dict[str, Sequence[str]],
    embedder: FakeEmbedder | None = None,
    vectors: npt.NDArray[np.float32] | None = None,
    **columns: object,
) -> pa.RecordBatch:
    """Rows of the chunk table: the passages by document; `columns` hold the same value in every row."""
    embedder = embedder or FakeEmbedder()
    cut = [(document, ordinal, text) for document, texts in passages.items() for ordinal, text in enumerate(texts)]
    if vectors is None:
        vectors = embedder.embed_passages([text for _, _, text in cut])
    same = {
        "source": "fake",
        "revision": "r1",
        "recipe": "c1",
        "stale": False,
        "heading": [],
        "tags": [],
    } | columns
    rows = [
        same
        | {
            "id": f"{document}#{ordinal}",
            "document": document,
            "ordinal": ordinal,
            "text": text,
            "path": document,
            "start": 0,
            "end": len(text),
            "parsed_key": f"parsed-{document}",
            "vector": vector,
        }
        for (document, ordinal, text), vector in zip(cut, vectors, strict=True)
    ]
    return pa.RecordBatch.from_pylist(rows, schema=chunk_schema(vectors.shape[1]))
