"""``python -m tasks.unprivileged UID COMMAND…``: root becomes the command as another user, as PostgreSQL refuses root.

It keeps one right of root: to pass folders that are closed to others. A home may lie below such a folder, and its
permissions stay as they are.
"""

import ctypes
import os
import sys

CAPABILITY_VERSION = 0x20080522
KEEP_CAPABILITIES, AMBIENT, RAISE = 8, 47, 2
PASS_FOLDERS = 1  # CAP_DAC_OVERRIDE


def main() -> None:
    uid, *command = sys.argv[1:]
    _become(int(uid))
    os.execv(command[0], command)


def _become(uid: int) -> None:
    """Raises OSError where this process may not, as in a container without the rights of root."""
    libc = ctypes.CDLL(None, use_errno=True)
    _check(libc.prctl(KEEP_CAPABILITIES, 1, 0, 0, 0))
    os.setgroups([])
    os.setgid(uid)
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
