"""Revisions of files that are told from their bytes."""

import hashlib
from collections.abc import Iterable

from tasks.errors import SourceError
from tasks.records import SourceFile


def revision_of(data: bytes) -> str:
    return f"sha256:{hashlib.sha256(data).hexdigest()}"


def revision_of_all(files: Iterable[SourceFile]) -> str:
    """Changes with any file of a listing."""
    return revision_of("".join(f"{file.path}\0{file.revision}\n" for file in files).encode())


def check_unchanged(file: SourceFile, data: bytes) -> None:
    """Raises SourceError if the bytes are not those that were listed.

    An etag cannot be told from the bytes, only the size; of a server that did not tell it, it is 0.
    """
    by_hash = file.revision.startswith("sha256:")
    if not (file.revision == revision_of(data) if by_hash else file.size in (0, len(data))):
        raise SourceError("changed while the run was reading it; the next run takes it")
