"""What is worth a retry, and how long to wait before it: each time twice as long, up to a limit."""

from __future__ import annotations

import errno

# What stays as it is until somebody changes it: names, kinds of files, permissions.
_LASTING = frozenset(
    [
        errno.EACCES,
        errno.EEXIST,
        errno.EFBIG,
        errno.EINVAL,
        errno.EISDIR,
        errno.ELOOP,
        errno.ENAMETOOLONG,
        errno.ENOENT,
        errno.ENOTDIR,
        errno.ENXIO,
        errno.EPERM,
        errno.EROFS,
    ]
)


def may_pass(exc: OSError) -> bool:
    """Return whether an error may pass by itself, as that of a full disk does."""
    return exc.errno not in _LASTING


class Backoff:
    """The pauses between the retries of one thing; not thread-safe.

    Args:
        first: the first pause, in seconds.
        longest: the longest one.
    """

    def __init__(self, first: float, longest: float) -> None:
        self._first, self._longest = first, longest
        self._next = first

    def next(self) -> float:
        """Return how long to wait before the next retry, and double the pause after it."""
        pause = self._next
        self._next = min(2 * pause, self._longest)
        return pause

    def reset(self) -> None:
        """Begin with the first pause again, after a success."""
        self._next = self._first
