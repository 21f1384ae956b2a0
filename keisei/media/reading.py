"""Opens the files that a user names: regular ones, which no pipe or device can stand for."""

from __future__ import annotations

import errno
import os
import stat


def open_file(path: str) -> int:
    """Open a regular file to read it, and return its descriptor.

    Raises:
        OSError: it cannot be opened, or is no regular file.
    """
    flags = os.O_RDONLY | getattr(os, "O_NONBLOCK", 0) | getattr(os, "O_BINARY", 0)
    fd = os.open(path, flags | getattr(os, "O_CLOEXEC", 0))
    if not stat.S_ISREG(os.fstat(fd).st_mode):
        os.close(fd)
        raise OSError(errno.EINVAL, "it is no regular file", path)
    return fd


def head_of(path: str, size: int) -> bytes:
    """Return the first bytes of a file.

    Raises:
        OSError: it cannot be read.
    """
    with open(open_file(path), "rb") as file:
        return file.read(size)
