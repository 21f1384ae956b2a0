"""Two names of a directory that change places in one step, where the system can do that."""

from __future__ import annotations

import ctypes
import errno
import os
from functools import cache
from typing import Any

_EXCHANGE = 2  # Linux's RENAME_EXCHANGE, and macOS's RENAME_SWAP
_CANNOT = frozenset([errno.ENOSYS, errno.EINVAL, errno.ENOTSUP, errno.EOPNOTSUPP, errno.EPERM])


def exchange(fd: int | None, one: str, other: str) -> bool:
    """Swap what two names stand for; at no instant is one of them missing.

    Args:
        fd: the open directory that both are in; ``None`` where the system opens none.
        one: a name in it.
        other: another one.

    Returns:
        Whether it was done: some systems and file systems cannot, and nothing is changed.

    Raises:
        OSError: one of them is not there, or may not be renamed.
    """
    if fd is None or (rename := _rename()) is None:
        return False
    names = os.fsencode(one), os.fsencode(other)
    if rename(fd, names[0], fd, names[1], _EXCHANGE) == 0:
        return True
    if (number := ctypes.get_errno()) in _CANNOT:
        return False
    raise OSError(number, os.strerror(number), other)


@cache
def _rename() -> Any:
    """Return the C library's function; ``None`` where it has none."""
    try:
        library = ctypes.CDLL(None, use_errno=True)
    except (OSError, TypeError):
        return None
    found = getattr(library, "renameat2", None) or getattr(library, "renameatx_np", None)
    if found is not None:
        found.argtypes = [ctypes.c_int, ctypes.c_char_p, ctypes.c_int, ctypes.c_char_p]
        found.argtypes = [*found.argtypes, ctypes.c_uint]
    return found
