"""Who may ask: a file of hashed keys, each with a tenant and rights. The keys themselves are kept nowhere.

A key is 256 random bits, so one SHA-256 is enough: there is nothing to guess, unlike with a password.
"""

import hmac
import json
import os
import secrets
import time
from collections.abc import Mapping
from contextlib import suppress
from dataclasses import asdict, dataclass
from hashlib import sha256
from pathlib import Path
from typing import Literal, get_args

from filelock import FileLock

from tasks.errors import ConfigError

Right = Literal["chat", "search", "feedback", "monitor"]
RIGHTS: tuple[Right, ...] = get_args(Right)
PREFIX = "tandem"
NOBODY = "0" * 64


@dataclass(frozen=True, slots=True)
class Key:
    """What is known of a key."""

    id: str
    """Stands in the key, in the log and on feedback; no secret."""
    sha256: str
    """Of the whole key, in hexadecimal."""
    name: str
    """Whose it is, for people."""
    tenant: str | None
    """Whose passages it reaches; None for everybody's."""
    rights: tuple[Right, ...]
    created: float
    """Seconds since the epoch."""
    requests_per_minute: int | None = None
    requests_at_once: int | None = None
    """How much it may ask for, 0 for any number; None where the service's settings say so."""

    def may(self, right: Right) -> bool:
        return right in self.rights


ANYBODY = Key("", "", "anybody on this machine", None, RIGHTS, 0.0)
"""Who asks a service on loopback that has no keys."""


class Keys:
    """The keys of a file, read again when it changes: a revoked key is let in no more, without a restart."""

    def __init__(self, file: Path) -> None:
        self.file = file
        self._read: tuple[object, dict[str, Key]] = (None, {})

    def all(self) -> Mapping[str, Key]:
        """By id; none where there is no file. Raises ConfigError for a file that holds something else."""
        state = _state(self.file)
        if state != self._read[0]:
            self._read = (state, read_keys(self.file))
        return self._read[1]

    def find(self, presented: str) -> Key | None:
        """The key that was presented, if it is one of these. Takes as long for one that is nearly right."""
        _, _, rest = presented.partition("_")
        key = self.all().get(rest.partition("_")[0])
        same = hmac.compare_digest(_hash(presented), key.sha256 if key else NOBODY)
        return key if same else None


def read_keys(file: Path) -> dict[str, Key]:
    """The keys of a file, by id; none where there is no file. Raises ConfigError for one that holds something else."""
    try:
        stored = json.loads(file.read_text(encoding="utf-8"))
        keys = [Key(**values | {"rights": tuple(values["rights"])}) for values in stored]
    except FileNotFoundError:
        return {}
    except (OSError, ValueError, TypeError, KeyError) as error:
        raise ConfigError(
            f"{file} holds no keys that can be read ({type(error).__name__}): nobody is let in; restore the file, or "
            "remove it and make new keys with `tandem keys add`"
        ) from error
    return {key.id: key for key in keys}


def add_key(
    file: Path,
    name: str,
    tenant: str | None,
    rights: tuple[str, ...],
    *,
    requests_per_minute: int | None = None,
    requests_at_once: int | None = None,
) -> tuple[Key, str]:
    """A new key and the only copy of it. Raises ConfigError for a right that does not exist."""
    if unknown := sorted(set(rights) - set(RIGHTS)):
        raise ConfigError(f"there is no right {', '.join(unknown)}: there are {', '.join(RIGHTS)}")
    if not rights:
        raise ConfigError(f"a key without rights opens nothing: give it some of {', '.join(RIGHTS)}")
    key_id = secrets.token_hex(4)
    secret = f"{PREFIX}_{key_id}_{secrets.token_urlsafe(32)}"
    held = tuple(right for right in RIGHTS if right in rights)
    key = Key(key_id, _hash(secret), name, tenant, held, time.time(), requests_per_minute, requests_at_once)
    with _locked(file):
        _write(file, {**read_keys(file), key.id: key})
    return key, secret


def revoke_key(file: Path, key_id: str) -> Key:
    """Take a key away. Raises ConfigError where there is none with this id."""
    with _locked(file):
        keys = read_keys(file)
        if key_id not in keys:
            raise ConfigError(f"{file} has no key {key_id}: it has {', '.join(keys) or 'none'}")
        _write(file, {other: key for other, key in keys.items() if other != key_id})
    return keys[key_id]


def _hash(key: str) -> str:
    return sha256(key.encode()).hexdigest()


def _state(file: Path) -> object:
    """Differs between two states of a file that is replaced whole."""
    with suppress(FileNotFoundError):
        found = file.stat()
        return found.st_ino, found.st_mtime_ns, found.st_size
    return "no file"


def _locked(file: Path) -> FileLock:
    file.parent.mkdir(parents=True, exist_ok=True)
    return FileLock(f"{file}.lock")


def _write(file: Path, keys: Mapping[str, Key]) -> None:
    """In one go, and readable by its owner alone."""
    new = file.with_suffix(".new")
    new.unlink(missing_ok=True)
    stored = [asdict(key) for key in keys.values()]
    with os.fdopen(os.open(new, os.O_WRONLY | os.O_CREAT | os.O_EXCL, 0o600), "w", encoding="utf-8") as file_object:
        json.dump(stored, file_object, indent=1)
    new.rename(file)
