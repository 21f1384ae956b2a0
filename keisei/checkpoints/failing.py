"""Whatever goes wrong with a checkpoint is one kind of error, with the path and the cause."""

from __future__ import annotations

import errno
import os
from collections.abc import Iterator
from contextlib import contextmanager

from keisei.errors import CheckpointError, MissingExtraError, TakenOverError, describe, quoted

# What a disk says of a file that is not what was written, or is no plain file any more.
_DAMAGE = frozenset(
    getattr(errno, name, -1)
    for name in "EBADMSG EIO EINVAL EISDIR ELOOP ENODATA ENOENT ENOTDIR EUCLEAN".split()
)
_NO_SPACE = frozenset(getattr(errno, name, -1) for name in "EDQUOT EFBIG ENOSPC".split())


@contextmanager
def saving(path: str) -> Iterator[None]:
    """Turn an error of a `with` block, the program's own included, into a `CheckpointError`."""
    try:
        yield
    except (CheckpointError, MissingExtraError, TakenOverError):
        raise
    except Exception as exc:
        way_out = ""
        if isinstance(exc, OSError) and exc.errno in _NO_SPACE:
            way_out = "; free some space, or keep fewer checkpoints (checkpoints.keep_last)"
        raise CheckpointError(
            f"{quoted(path, 300)} cannot be saved, and what stood there before is as it was: "
            f"{_cause(exc)}{way_out}",
            path=path,
        ) from exc


@contextmanager
def reading(path: str) -> Iterator[None]:
    """Turn an error of the system into a `CheckpointError`, which says whether it is damage."""
    try:
        yield
    except OSError as exc:
        raise CheckpointError(
            f"{quoted(path, 300)} cannot be read: {_cause(exc)}",
            path=path,
            corrupt=is_damage(exc),
        ) from exc


@contextmanager
def removing(path: str) -> Iterator[None]:
    """Turn an error of the system, when something is removed there, into a `CheckpointError`."""
    try:
        yield
    except OSError as exc:
        raise CheckpointError(
            f"a checkpoint in {quoted(path, 300)} cannot be removed: {_cause(exc)}", path=path
        ) from exc


def is_damage(exc: OSError) -> bool:
    """Return whether an error says that a file is damaged, and not that it may not be read."""
    return exc.errno in _DAMAGE


def damaged(path: str, problem: str) -> CheckpointError:
    """Return the error of a checkpoint that does not verify."""
    return CheckpointError(
        f"{quoted(path, 300)} does not verify: {problem}", path=path, corrupt=True
    )


def _cause(exc: Exception) -> str:
    if not isinstance(exc, OSError) or exc.errno is None:
        return describe(exc)
    text = os.strerror(exc.errno) if exc.strerror is None else exc.strerror
    return f"{text} ({quoted(exc.filename, 300)})" if exc.filename else text
