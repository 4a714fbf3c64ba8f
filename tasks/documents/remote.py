"""Documents behind any fsspec URL: http, s3, gs, memory, file and the rest."""

import posixpath
from collections.abc import Iterator
from typing import Any

import fsspec
from fsspec.core import url_to_fs

from tasks.config.addresses import shown
from tasks.config.index import SourceConfig
from tasks.documents.revisions import check_unchanged, revision_of, revision_of_all
from tasks.documents.selection import Selection
from tasks.errors import SourceError, UnreachableError
from tasks.records import Listing, SourceFile

CHECKSUMS = ("ETag", "etag", "md5Hash", "Content-MD5", "content_md5", "contentHash", "checksum")
TIMES = ("mtime", "LastModified", "last_modified", "Last-Modified", "updated", "modified")


def list_remote(source: SourceConfig, max_bytes: float) -> Listing:
    """List everything below a URL, or the one file it names. A web address of a folder must end in a slash.

    Revisions are the file system's own checksums, else time and size, else the hash of the bytes.
    """
    fs, root = _connect(source)
    selection = Selection.of(source)
    try:
        found = {path: info for path, info in _find(source, fs, root).items() if selection.takes(path)}
        files = tuple(_file(source, fs, root, path, info, max_bytes) for path, info in sorted(found.items()))
    except FileNotFoundError as error:
        raise SourceError(
            f"source {source.name}: {shown(source.location)} or a part of it does not exist "
            f"({_said(error)}); correct `location`"
        ) from error
    except Exception as error:  # every fsspec backend raises errors of its own
        raise UnreachableError(
            f"source {source.name}: {shown(source.location)} cannot be listed: {_said(error)}; "
            "check `location`, the network and this user's access"
        ) from error
    return Listing(source.name, revision_of_all(files), files)


class RemoteReader:
    """Reads the files of a listed URL."""

    def __init__(self, source: SourceConfig, listing: Listing) -> None:
        self.fs, self.root = _connect(source)
        self.single = _is_single(source, self.fs, self.root) if listing.files else False

    def read(self, file: SourceFile) -> bytes:
        try:
            data: bytes = self.fs.cat_file(self.root if self.single else f"{self.root}/{file.path}")
        except Exception as error:  # every fsspec backend raises errors of its own
            raise SourceError(f"cannot be read: {_said(error)}") from error
        check_unchanged(file, data)
        return data


def _connect(source: SourceConfig) -> tuple[fsspec.AbstractFileSystem, str]:
    try:
        # A listing remembered from an earlier night would hide what changed since.
        fs, root = url_to_fs(source.location, use_listings_cache=False, skip_instance_cache=True)
    except ImportError as error:
        raise SourceError(f"source {source.name}: {shown(source.location)} needs another package: {error}") from error
    except Exception as error:  # every fsspec backend raises errors of its own
        raise SourceError(
            f"source {source.name}: {shown(source.location)} cannot be opened: {_said(error)}; correct `location`"
        ) from error
    return fs, str(root).rstrip("/")


def _is_single(source: SourceConfig, fs: fsspec.AbstractFileSystem, root: str) -> bool:
    return not source.location.endswith("/") and fs.isfile(root)


def _find(source: SourceConfig, fs: fsspec.AbstractFileSystem, root: str) -> dict[str, dict[str, Any]]:
    """Path below the root → what the file system says of it."""
    if _is_single(source, fs, root):
        return {posixpath.basename(root): fs.info(root)}
    return {info["name"].removeprefix(root).lstrip("/"): info for info in _walk(fs, root)}


def _walk(fs: fsspec.AbstractFileSystem, folder: str) -> Iterator[dict[str, Any]]:
    """Files below a folder. Unlike the library's own walk it raises where a folder below fails to list, whose
    documents would look deleted; and it follows no links."""
    for info in fs.ls(folder, detail=True):
        if info["name"].rstrip("/") == folder.rstrip("/") or info.get("islink"):
            continue  # object stores may list a folder in itself
        if info["type"] == "directory":
            yield from _walk(fs, info["name"])
        else:
            yield info


def _file(
    source: SourceConfig,
    fs: fsspec.AbstractFileSystem,
    root: str,
    path: str,
    info: dict[str, Any],
    max_bytes: float,
) -> SourceFile:
    if info.get("size") is None:  # a web server's page of links says nothing but names
        info = fs.info(info["name"])
    given = next((str(info[key]) for key in CHECKSUMS if info.get(key)), None)
    when = next((str(info[key]) for key in TIMES if info.get(key)), None)
    size = info.get("size")
    if given:
        revision = f"etag:{given}"
    elif when and size is not None:
        revision = f"etag:{when}-{size}"
    elif size is not None and size > max_bytes:
        revision = f"unread:{size}"
    else:
        data = fs.cat_file(info["name"])
        size, revision = len(data), revision_of(data)
    return SourceFile(f"{source.name}/{path}", source.name, path, revision, int(size or 0))


def _said(error: Exception) -> str:
    return shown(" ".join(f"{type(error).__name__} {error}".split()))[:300]
