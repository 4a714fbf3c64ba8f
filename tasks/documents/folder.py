"""Documents in a folder of this machine.

Like git's index, a small file remembers the hash of every file together with what `stat` said of it, so that
a night without changes reads nothing but directories.
"""

import hashlib
import json
import os
import stat
import time
from collections.abc import Iterator
from contextlib import suppress
from operator import attrgetter
from pathlib import Path

from tasks.config.index import SourceConfig
from tasks.config.settings import Home, find_path
from tasks.documents.revisions import check_unchanged, revision_of_all
from tasks.documents.selection import Selection, printable
from tasks.errors import SourceError
from tasks.records import Listing, Problem, SourceFile

RACY_NS = 2_000_000_000
"""A file hashed this soon after a change may change again within the clock's resolution: it is hashed anew."""

Known = dict[str, list[int | str]]
"""path → [size, mtime_ns, ctime_ns, inode, time of hashing in ns, sha256]"""


def list_folder(source: SourceConfig, home: Home, max_bytes: float) -> Listing:
    """List a folder. Symbolic links are not followed: what they point at is listed at its own place."""
    root = _root(source)
    memory = home.cache / "folders" / f"{source.name}-{_sha256(os.fsencode(root))[:16]}.json"
    known = _load(memory)
    seen: Known = {}
    listed: list[SourceFile | Problem] = []
    try:
        for path, entry in _walk(root, "", Selection.of(source)):
            with suppress(FileNotFoundError):  # deleted since its folder was read
                listed.append(_listed(source.name, path, entry, known, seen, max_bytes))
    except OSError as error:
        raise SourceError(
            f"source {source.name}: {root} failed half way through listing ({error}); "
            "nothing was changed, run again when it can be read"
        ) from error
    if seen != known:
        _save(memory, seen)
    files = sorted((item for item in listed if isinstance(item, SourceFile)), key=attrgetter("path"))
    problems = tuple(item for item in listed if isinstance(item, Problem))
    return Listing(source.name, revision_of_all(files), tuple(files), problems)


class FolderReader:
    """Reads the files of a listed folder."""

    def __init__(self, source: SourceConfig) -> None:
        self.root = _root(source)

    def read(self, file: SourceFile) -> bytes:
        try:
            data = (self.root / file.path).read_bytes()
        except OSError as error:
            raise SourceError(f"cannot be read: {error.strerror or error}") from error
        check_unchanged(file, data)
        return data


def _root(source: SourceConfig) -> Path:
    root = find_path(source.location).resolve()
    if not root.is_dir():
        what = "is not a folder" if root.exists() else "does not exist"
        raise SourceError(f"source {source.name}: {root} {what}; correct `location` in the configuration")
    return root


def _walk(root: Path, below: str, selection: Selection) -> Iterator[tuple[str, os.DirEntry[str]]]:
    """Selected files and symbolic links. An unreadable folder raises: its documents would look deleted."""
    with os.scandir(root / below) as entries:
        for entry in entries:
            path = f"{below}/{entry.name}" if below else entry.name
            if entry.is_dir(follow_symlinks=False):
                if selection.enters(path):
                    yield from _walk(root, path, selection)
            elif selection.takes(path) and not _points_inside(root, entry):
                yield path, entry


def _points_inside(root: Path, entry: os.DirEntry[str]) -> bool:
    return entry.is_symlink() and os.path.exists(entry.path) and Path(entry.path).resolve().is_relative_to(root)


def _listed(
    source: str, path: str, entry: os.DirEntry[str], known: Known, seen: Known, max_bytes: float
) -> SourceFile | Problem:
    """One file, or why it cannot be used; its hash is added to `seen`."""
    document = f"{source}/{printable(path)}"
    try:
        if reason := _unusable(path, entry):
            return Problem(document, reason)
        status = entry.stat(follow_symlinks=False)
        if status.st_size > max_bytes:
            return SourceFile(document, source, path, f"unread:{status.st_size}-{status.st_mtime_ns}", status.st_size)
        seen[path] = _remembered(known.get(path), entry) or _hashed(entry)
    except FileNotFoundError:
        raise
    except PermissionError:
        return Problem(document, "may not be read by this user: check its permissions")
    except OSError as error:
        return Problem(document, f"cannot be read: {error.strerror or error}")
    return SourceFile(document, source, path, f"sha256:{seen[path][-1]}", int(seen[path][0]))


def _unusable(path: str, entry: os.DirEntry[str]) -> str | None:
    if printable(path) != path:
        return "its name is not UTF-8: rename it"
    if entry.is_symlink():
        return "a symbolic link that leads out of the folder or nowhere: links are not followed"
    if not stat.S_ISREG(entry.stat(follow_symlinks=False).st_mode):
        return "not a regular file"
    return None


def _remembered(entry: list[int | str] | None, found: os.DirEntry[str]) -> list[int | str] | None:
    """The known entry, if nothing `stat` tells has changed and it was not hashed right after a change."""
    if entry is None:
        return None
    status = found.stat(follow_symlinks=False)
    same = entry[:4] == [status.st_size, status.st_mtime_ns, status.st_ctime_ns, status.st_ino]
    settled = max(status.st_mtime_ns, status.st_ctime_ns) + RACY_NS < int(entry[4])
    return entry if same and settled else None


def _hashed(found: os.DirEntry[str]) -> list[int | str]:
    now = time.time_ns()
    with open(found.path, "rb") as file:
        status = os.fstat(file.fileno())
        digest = hashlib.file_digest(file, "sha256").hexdigest()
    return [status.st_size, status.st_mtime_ns, status.st_ctime_ns, status.st_ino, now, digest]


def _load(memory: Path) -> Known:
    try:
        return json.loads(memory.read_bytes())
    except (OSError, ValueError):
        return {}


def _save(memory: Path, seen: Known) -> None:
    memory.parent.mkdir(parents=True, exist_ok=True)
    draft = memory.with_suffix(f".{os.getpid()}")
    draft.write_text(json.dumps(seen, separators=(",", ":")))
    draft.replace(memory)


def _sha256(data: bytes) -> str:
    return hashlib.sha256(data).hexdigest()
