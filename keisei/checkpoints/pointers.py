"""`latest` and `best`: links to a checkpoint's name, replaced in one step."""

from __future__ import annotations

from keisei._io.directories import OpenDirectory


def point(models: OpenDirectory, pointer: str, name: str | None) -> None:
    """Point `latest` or `best` at a checkpoint, so that there is no instant without it.

    Args:
        models: the models directory.
        pointer: `latest` or `best`.
        name: the checkpoint's name; ``None`` removes the pointer.

    Raises:
        OSError: it cannot be written; it points where it did before.
    """
    raise NotImplementedError


def pointed(models: OpenDirectory, pointer: str) -> str | None:
    """Return which checkpoint a pointer names; ``None`` where it names none that is one.

    Raises:
        OSError: it cannot be read.
    """
    raise NotImplementedError
