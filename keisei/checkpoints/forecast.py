"""Whether the disk has the space that saving needs."""

from __future__ import annotations

from keisei._io.directories import OpenDirectory


def free_bytes(models: OpenDirectory) -> int | None:
    """Return the bytes that are free for this user; ``None`` where the system does not know."""
    raise NotImplementedError


def warning(size: int, free: int | None, *, present: int, kept: int | None) -> str | None:
    """Return what to warn of where the policy needs more space than there is; else ``None``.

    Args:
        size: the bytes of one checkpoint.
        free: the bytes that are free, before it is written.
        present: how many checkpoints stand there already.
        kept: how many the policy keeps at most; ``None`` keeps all.
    """
    raise NotImplementedError
