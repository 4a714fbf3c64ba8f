"""What was computed once is kept: converted texts and vectors, by the hash of what they were made from."""

import json
import sqlite3
import threading
from abc import ABC, abstractmethod
from collections.abc import Collection, Iterator, Mapping, Sequence
from contextlib import contextmanager
from pathlib import Path
from types import TracebackType
from typing import TYPE_CHECKING, Any, Self

import numpy as np
import numpy.typing as npt

from tasks.errors import StoreError

if TYPE_CHECKING:
    from tasks.index.embedding import Embedder

Vectors = npt.NDArray[np.float32]

STORE_EVERY = 512
"""Texts embedded between two writes: what a crash can cost."""


_UNUSED = "at < ? AND key NOT IN (SELECT value FROM json_each(?))"


class _Closing(ABC):
    """Closes itself at the end of a `with` block."""

    @abstractmethod
    def close(self) -> None: ...

    def __enter__(self) -> Self:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self.close()


class ContentCache(_Closing):
    """Bytes by key, in one SQLite file that several processes may use at once and that survives SIGKILL.

    A key stands for its content: a second value under a known key is ignored. Every method raises
    `StoreError` if the disk is full or the file cannot be read or written.
    """

    def __init__(self, path: Path) -> None:
        self.path = path
        self._lock = threading.Lock()
        with self._clear_errors():
            path.parent.mkdir(parents=True, exist_ok=True)
            self._connection = sqlite3.connect(path, timeout=60, check_same_thread=False)
            self._connection.execute("PRAGMA journal_mode = WAL")
            self._connection.execute("PRAGMA synchronous = NORMAL")
            self._connection.execute("CREATE TABLE IF NOT EXISTS content (key TEXT PRIMARY KEY, value BLOB NOT NULL)")
            if "at" not in {column[1] for column in self._connection.execute("PRAGMA table_info(content)")}:
                self._connection.execute("ALTER TABLE content ADD COLUMN at INTEGER NOT NULL DEFAULT 0")

    def get_many(self, keys: Sequence[str]) -> dict[str, bytes]:
        """The known ones among the keys, with their bytes."""
        return dict(self._select("key, value", keys))

    def put_many(self, items: Mapping[str, bytes]) -> None:
        """Keep all items or, if it fails, none. They are safe from a crash of the process on return."""
        with self._clear_errors(), self._lock, self._connection:
            self._connection.executemany("INSERT OR IGNORE INTO content VALUES (?, ?, unixepoch())", items.items())

    def missing(self, keys: Sequence[str]) -> set[str]:
        return set(keys) - {key for (key,) in self._select("key", keys)}

    def count_unused(self, used: Collection[str], before: float) -> int:
        """How many keys are not among the used ones, and came before a time in seconds since the epoch."""
        query = f"SELECT count(*) FROM content WHERE {_UNUSED}"
        with self._clear_errors(), self._lock:
            return int(self._connection.execute(query, [before, json.dumps(list(used))]).fetchone()[0])

    def forget_unused(self, used: Collection[str], before: float) -> None:
        """Delete what `count_unused` counts."""
        with self._clear_errors(), self._lock, self._connection:
            self._connection.execute(f"DELETE FROM content WHERE {_UNUSED}", [before, json.dumps(list(used))])

    def __contains__(self, key: str) -> bool:
        return not self.missing([key])

    def close(self) -> None:
        self._connection.close()

    def _select(self, columns: str, keys: Sequence[str]) -> list[tuple[Any, ...]]:
        # One JSON parameter, because SQLite limits how many there may be.
        query = f"SELECT {columns} FROM content WHERE key IN (SELECT value FROM json_each(?))"
        with self._clear_errors(), self._lock:
            return self._connection.execute(query, [json.dumps(list(keys))]).fetchall()

    @contextmanager
    def _clear_errors(self) -> Iterator[None]:
        try:
            yield
        except (sqlite3.OperationalError, OSError) as error:
            raise StoreError(
                f"{self.path} cannot be read or written: {error}; free disk space or mend its permissions, "
                "then run again: what was kept before is not lost"
            ) from error
        except sqlite3.DatabaseError as error:
            raise StoreError(
                f"{self.path} is damaged: {error}; move it away, and the next run fills a new one"
            ) from error


class VectorCache(_Closing):
    """Vectors by key, one file for each embedder."""

    def __init__(self, folder: Path, fingerprint: str, dimension: int) -> None:
        self.dimension = dimension
        self._content = ContentCache(folder / f"{fingerprint}.sqlite")

    def get(self, keys: Sequence[str]) -> dict[str, Vectors]:
        """The known ones among the keys, each with its vector of shape (dimension,)."""
        found = self._content.get_many(keys)
        if wrong := [key for key, data in found.items() if len(data) != 4 * self.dimension]:
            raise StoreError(
                f"{self._content.path} holds a vector of {len(found[wrong[0]]) // 4} numbers where "
                f"{self.dimension} were expected; move it away, and the next run fills a new one"
            )
        return {key: np.frombuffer(data, dtype="<f4") for key, data in found.items()}

    def add(self, keys: Sequence[str], vectors: Vectors) -> None:
        """Keep vectors of shape (keys, dimension)."""
        rows = np.ascontiguousarray(vectors, dtype="<f4").reshape(len(keys), self.dimension)
        self._content.put_many({key: row.tobytes() for key, row in zip(keys, rows, strict=True)})

    def close(self) -> None:
        self._content.close()


def embed_once(
    texts: Sequence[str], keys: Sequence[str], embedder: "Embedder", vectors: VectorCache
) -> tuple[Vectors, int, int]:
    """Vectors of shape (texts, dimension), how many texts were embedded, and how many vectors were at hand.

    Only texts whose key is unknown are embedded, equal ones once, and kept as soon as they are computed.
    """
    known = vectors.get(keys)
    new = {key: text for key, text in zip(keys, texts, strict=True) if key not in known}
    # Texts of like length go together, so that little is padded.
    by_length = sorted(new, key=lambda key: len(new[key]))
    for start in range(0, len(by_length), STORE_EVERY):
        some = by_length[start : start + STORE_EVERY]
        made = embedder.embed_passages([new[key] for key in some])
        vectors.add(some, made)
        known.update(zip(some, made, strict=True))
    found = np.empty((len(texts), vectors.dimension), dtype=np.float32)
    for row, key in zip(found, keys, strict=True):
        row[:] = known[key]
    return found, len(new), len(texts) - len(new)
