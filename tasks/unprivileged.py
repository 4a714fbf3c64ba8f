"""``python -m tasks.unprivileged COMMAND…``: becomes the command, as a user that PostgreSQL accepts, which root is not.

It keeps one right of root: to pass folders that are closed to others. A home may lie below such a folder, and its
permissions stay as they are.
"""

import ctypes
import os
import pwd
import sys

CAPABILITY_VERSION = 0x20080522
KEEP_CAPABILITIES, AMBIENT, RAISE = 8, 47, 2
PASS_FOLDERS = 1  # CAP_DAC_OVERRIDE


def user() -> int:
    """Who the database runs as and belongs to: this user, or nobody where that is root."""
    return os.geteuid() or pwd.getpwnam("nobody").pw_uid


def main() -> None:
    if os.geteuid() == 0:
        _become(user())
    os.execv(sys.argv[1], sys.argv[1:])


def _become(uid: int) -> None:
    """Raises OSError where this process may not, as in a container without the rights of root."""
    libc = ctypes.CDLL(None, use_errno=True)
    _check(libc.prctl(KEEP_CAPABILITIES, 1, 0, 0, 0))
    os.setgroups([])
    os.setgid(pwd.getpwuid(uid).pw_gid)
    os.setuid(uid)
    header = (ctypes.c_uint32 * 2)(CAPABILITY_VERSION, 0)
    mask = 1 << PASS_FOLDERS
    sets = (ctypes.c_uint32 * 6)(mask, mask, mask, 0, 0, 0)  # effective, permitted, inheritable; twice 32 bits
    _check(libc.capset(header, sets))
    _check(libc.prctl(AMBIENT, RAISE, PASS_FOLDERS, 0, 0))


def _check(result: int) -> None:
    if result:
        number = ctypes.get_errno()
        raise OSError(number, os.strerror(number))


if __name__ == "__main__":
    main()
