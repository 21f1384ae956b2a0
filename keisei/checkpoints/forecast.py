"""Whether the disk has the space that saving needs."""

from __future__ import annotations

import errno
import os
import shutil

from keisei._io.directories import OpenDirectory

_MANY = 10  # checkpoints for which there should be space where the policy keeps all of them


def free_bytes(models: OpenDirectory) -> int | None:
    """Return the bytes that are free for this user; ``None`` where the system does not know."""
    if models.fd is None:
        return shutil.disk_usage(models.path).free
    disk = os.fstatvfs(models.fd)
    if disk.f_blocks == 0:  # what file systems say that do not count
        return None
    return disk.f_frsize * (disk.f_bavail if os.geteuid() else disk.f_bfree)


def check_space(models: OpenDirectory, size: int) -> None:
    """Check that one checkpoint fits.

    Args:
        models: the models directory.
        size: its bytes.

    Raises:
        OSError: it does not.
    """
    free = free_bytes(models)
    if free is not None and size > free:
        problem = f"it needs {size:,} bytes, and {free:,} are free"
        raise OSError(errno.ENOSPC, problem, models.path)


def warning(size: int, free: int | None, *, present: int, kept: int | None) -> str | None:
    """Return what to warn of where the policy needs more space than there is; else ``None``.

    What is older is removed only when the newer one is committed, so that there is one more for a
    moment.

    Args:
        size: the bytes of one checkpoint.
        free: the bytes that are free, before it is written.
        present: how many checkpoints stand there already.
        kept: how many the policy keeps at most; ``None`` keeps all.
    """
    if free is None:
        return None
    more = _MANY if kept is None else max(1, kept + 1 - present)
    if size * more <= free:
        return None
    policy = "all are kept" if kept is None else f"the policy needs space for {more:,} more"
    return (
        f"the disk has space for {free // size:,} more checkpoints of {size:,} bytes each, and "
        f"{policy}: free some space, or keep fewer (checkpoints.keep_last)"
    )
