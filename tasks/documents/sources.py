"""What a source holds tonight, and the bytes of its files.

`list_source` opens no file whose revision it can tell otherwise; `open_reader` hands out the bytes of those
that the caller decided to read. Both raise `SourceError` for the source as a whole. A file that cannot be used
is a `Problem` of the listing; one that fails later raises `SourceError` from `read`, for that file alone.
"""

import math
from collections.abc import Iterator
from contextlib import contextmanager
from typing import Protocol

from tasks.config.index import SourceConfig
from tasks.config.settings import Home
from tasks.records import Listing, SourceFile


class Reader(Protocol):
    """Reads the files of one listing."""

    def read(self, file: SourceFile) -> bytes:
        """The bytes that `file.revision` names.

        Raises:
            SourceError: they cannot be read now, or changed since; the next night tries again.
            ParseError: they are not the document, and will not be until they change.
        """


def list_source(source: SourceConfig, home: Home, max_bytes: float = math.inf) -> Listing:
    """Every file the source's globs select, sorted by path, with its revision and size in bytes.

    Files of more than `max_bytes` are not opened; their revision tells less.
    """
    if source.kind == "folder":
        from tasks.documents import folder

        return folder.list_folder(source, home, max_bytes)
    if source.kind == "git":
        from tasks.documents import repository

        return repository.list_repository(source, home)
    from tasks.documents import remote

    return remote.list_remote(source, max_bytes)


@contextmanager
def open_reader(source: SourceConfig, home: Home, listing: Listing) -> Iterator[Reader]:
    """A reader for the files of `listing`, open as long as the block runs."""
    if source.kind == "folder":
        from tasks.documents import folder

        yield folder.FolderReader(source)
    elif source.kind == "git":
        from tasks.documents import repository

        with repository.open_blobs(source, home) as reader:
            yield reader
    else:
        from tasks.documents import remote

        yield remote.RemoteReader(source, listing)
