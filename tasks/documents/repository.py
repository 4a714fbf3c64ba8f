"""Documents in a git repository, at one commit.

A repository on this machine is opened in place. A bundle or a URL is mirrored under the cache and fetched. Blob
ids are the revisions, so unchanged files are not read; the others come through one `git cat-file --batch`.
"""

import hashlib
import os
import posixpath
import re
import shutil
from base64 import b64encode
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from urllib.parse import urlsplit

from filelock import FileLock
from git import Git, Repo
from git.exc import GitCommandError, GitError, InvalidGitRepositoryError, UnsafeProtocolError

from tasks.config.addresses import shown
from tasks.config.index import SourceConfig
from tasks.config.settings import Home, find_path
from tasks.documents.selection import Selection, printable
from tasks.errors import ParseError, SourceError, UnreachableError
from tasks.records import Listing, Problem, SourceFile

NO_PROMPT = {
    "GIT_TERMINAL_PROMPT": "0",
    "GIT_SSH_COMMAND": os.environ.get("GIT_SSH_COMMAND", "ssh -oBatchMode=yes"),
}
"""A nightly run has nobody to type a password."""
LFS_POINTER = b"version https://git-lfs.github.com/spec/"


def list_repository(source: SourceConfig, home: Home) -> Listing:
    """List one commit's files below `root`, from its tree alone. `Listing.revision` is the commit."""
    with _opened(source, home, refresh=True) as (repo, notes):
        commit = _commit(source, repo)
        selection = Selection.of(source)
        files, problems = [], []
        for mode, oid, size, path in _tree(source, repo, commit):
            if not selection.takes(path):
                continue
            document = f"{source.name}/{printable(path)}"
            if printable(path) != path:
                problems.append(Problem(document, "its name is not UTF-8: rename it", f"git:{oid}"))
            elif mode == "160000":
                problems.append(Problem(document, "a submodule: give it a source of its own", f"git:{oid}"))
            elif mode != "120000":
                files.append(SourceFile(document, source.name, path, f"git:{oid}", int(size)))
            elif _leads_out(source.root, path, repo, oid):
                reason = "a symbolic link that leads out of the repository: links are not followed"
                problems.append(Problem(document, reason, f"git:{oid}"))
    files.sort(key=lambda file: file.path)
    return Listing(source.name, commit, tuple(files), tuple(problems), notes)


class BlobReader:
    """Reads blobs of an open repository."""

    def __init__(self, git: Git) -> None:
        self.git = git

    def read(self, file: SourceFile) -> bytes:
        try:
            data = self.git.get_object_data(file.revision.removeprefix("git:"))[3]
        except (GitError, OSError, ValueError) as error:
            raise SourceError(f"cannot be read from the repository: {error}") from error
        if data.startswith(LFS_POINTER):
            raise ParseError("is stored in Git LFS, which holds its text elsewhere: index a checkout as a folder")
        return data


@contextmanager
def open_blobs(source: SourceConfig, home: Home) -> Iterator[BlobReader]:
    """A reader over the repository as the last listing left it."""
    with _opened(source, home, refresh=False) as (repo, _):
        yield BlobReader(repo.git)


@contextmanager
def _opened(source: SourceConfig, home: Home, refresh: bool) -> Iterator[tuple[Repo, tuple[str, ...]]]:
    """The repository, and what people should know of its fetch."""
    place = find_path(source.location)
    where = shown(source.location)
    try:
        repo, notes = (Repo(place), ()) if place.is_dir() else _mirror(source, home, refresh)
    except InvalidGitRepositoryError as error:
        raise SourceError(f"source {source.name}: {where} is a folder but not a git repository") from error
    except UnsafeProtocolError as error:
        raise SourceError(f"source {source.name}: git may not be asked for {where}: {error}") from error
    except (GitCommandError, OSError) as error:
        if _is_of_another_user(error):
            raise SourceError(f"source {source.name}: {_of_another_user(place)}") from error
        # a path on this machine is there or it is not
        failure = UnreachableError if ":" in source.location else SourceError
        raise failure(
            f"source {source.name}: cannot fetch {where}: {_said(error)}; "
            "check `location`, the network and this user's access"
        ) from error
    try:
        yield repo, notes
    finally:
        repo.close()


def _mirror(source: SourceConfig, home: Home, refresh: bool) -> tuple[Repo, tuple[str, ...]]:
    """The mirror of a bundle or URL, fetched unless the wanted commit is named in full and already there."""
    place = find_path(source.location)
    origin = str(place.resolve()) if place.is_file() else source.location
    mirror = home.cache / "git" / f"{hashlib.sha256(origin.encode()).hexdigest()[:32]}.git"
    mirror.parent.mkdir(parents=True, exist_ok=True)
    with FileLock(f"{mirror}.lock"):
        if not mirror.exists():
            draft = mirror.with_suffix(".draft")
            shutil.rmtree(draft, ignore_errors=True)
            Repo.clone_from(origin, draft, mirror=True, env=_environment(source)).close()
            draft.rename(mirror)
            return Repo(mirror), ()
        repo = Repo(mirror)
        if refresh and not _has_commit(repo, source.ref):
            repo.git.update_environment(**_environment(source))
            repo.git.fetch("--prune", "--quiet", "origin")
            return repo, _follow_default_branch(source, repo)
        return repo, ()


def _environment(source: SourceConfig) -> dict[str, str]:
    """What git is told for a fetch. A token goes as a header to the repository's own host, and is written nowhere."""
    if not source.token_env:
        return NO_PROMPT
    if not (token := os.environ.get(source.token_env)):
        raise SourceError(f"source {source.name}: the environment variable {source.token_env} holds no access token")
    at, host = int(os.environ.get("GIT_CONFIG_COUNT", 0)), urlsplit(source.location)
    sent = b64encode(f"x-access-token:{token}".encode()).decode()
    return {
        **NO_PROMPT,
        "GIT_CONFIG_COUNT": str(at + 1),
        f"GIT_CONFIG_KEY_{at}": f"http.{host.scheme}://{host.netloc}/.extraHeader",
        f"GIT_CONFIG_VALUE_{at}": f"Authorization: Basic {sent}",
    }


def _follow_default_branch(source: SourceConfig, repo: Repo) -> tuple[str, ...]:
    """Point the mirror's HEAD where the origin's points now: a fetch leaves it where it was at the first clone.

    That it points at another branch than before is to be known.
    """
    answer = str(repo.git.ls_remote("--symref", "origin", "HEAD"))
    if not (named := re.search(r"^ref: (\S+)\tHEAD$", answer, re.MULTILINE)):
        if detached := re.search(r"^(\w+)\tHEAD$", answer, re.MULTILINE):
            repo.git.update_ref("--no-deref", "HEAD", detached[1])
        return ()
    before = Path(repo.git_dir, "HEAD").read_text().strip().removeprefix("ref: ")
    repo.git.symbolic_ref("HEAD", named[1])
    if before == named[1]:
        return ()
    now = f"the default branch is now {_short(named[1])}, and was {_short(before)}"
    return (f"source {source.name}: {now}; set `ref` to stay on one branch",)


def _has_commit(repo: Repo, ref: str) -> bool:
    """Whether the ref is a whole commit id, which never moves, and the mirror has it."""
    is_id = len(ref) == 40 and set(ref) <= set("0123456789abcdef")
    return is_id and _resolve(repo, f"{ref}^{{commit}}") is not None


def _commit(source: SourceConfig, repo: Repo) -> str:
    both = [f"refs/{kind}/{source.ref}" for kind in ("heads", "tags")]
    if all(_resolve(repo, ref) for ref in both):
        raise SourceError(
            f"source {source.name}: {shown(source.location)} has a branch and a tag named {source.ref}; "
            f"set `ref` to {' or '.join(both)}"
        )
    commit = None if source.ref.startswith("-") else _resolve(repo, f"{source.ref}^{{commit}}")
    if commit is None:
        names = sorted(ref.name for ref in repo.references) or ["none, it is empty"]
        more = f" and {len(names) - 10} more" if len(names) > 10 else ""
        wanted = "default branch" if source.ref == "HEAD" else f"branch, tag or commit {source.ref!r}"
        raise SourceError(
            f"source {source.name}: {shown(source.location)} has no {wanted}; "
            f"it has {', '.join(names[:10])}{more}; correct `ref`"
        )
    return commit


def _resolve(repo: Repo, name: str) -> str | None:
    """The object id that `name` stands for, or None. Raises SourceError where git refuses to open the repository."""
    try:
        return repo.git.rev_parse("--verify", "--quiet", name)
    except GitCommandError as error:
        if _is_of_another_user(error):
            raise SourceError(_of_another_user(repo.working_dir)) from error
        return None


def _is_of_another_user(error: Exception) -> bool:
    return "dubious ownership" in str(error)


def _of_another_user(place: str | os.PathLike[str]) -> str:
    return (
        f"{place} belongs to another user, and git does not read such a repository: run "
        f"`git config --global --add safe.directory {place}` as the user that runs Tandem, or change the owner"
    )


def _short(ref: str) -> str:
    return ref.removeprefix("refs/heads/")


def _tree(source: SourceConfig, repo: Repo, commit: str) -> Iterator[tuple[str, str, str, str]]:
    """(mode, object id, size or "-", path below `root`) of every entry."""
    root = source.root.strip("/")
    tree = _resolve(repo, f"{commit}:{root}")
    if tree is None:
        raise SourceError(f"source {source.name}: there is no folder {root!r} at {source.ref}; correct `root`")
    try:
        listed: bytes = repo.git.ls_tree("-r", "-z", "-l", tree, stdout_as_string=False)
    except GitCommandError as error:
        raise SourceError(f"source {source.name}: cannot list {commit}:{root}: {_said(error)}") from error
    for line in listed.split(b"\0"):
        if line:
            head, _, path = line.partition(b"\t")
            mode, _, oid, size = head.decode().split()
            yield mode, oid, size, path.decode("utf-8", "surrogateescape")


def _leads_out(root: str, path: str, repo: Repo, oid: str) -> bool:
    target = repo.git.get_object_data(oid)[3].decode("utf-8", "surrogateescape")
    place = posixpath.normpath(posixpath.join(root.strip("/"), posixpath.dirname(path), target))
    return place.startswith(("/", ".."))


def _said(error: Exception) -> str:
    """What git itself said, in one line and without credentials."""
    text = error.stderr if isinstance(error, GitCommandError) else str(error)
    return shown(" ".join(str(text).replace("stderr:", "").split()).strip(" '"))
