"""`latest` and `best`: links to a checkpoint's name, replaced in one step.

They are for people and for other programs: keisei itself goes by the manifests, and by `best`
only where it is told of no metric.
"""

from __future__ import annotations

import errno
import stat

from keisei._io import files
from keisei._io.directories import OpenDirectory
from keisei.checkpoints.layout import Kind, kind_of

_NO_LINKS_HERE = frozenset([errno.EPERM, errno.ENOSYS, errno.ENOTSUP, errno.EOPNOTSUPP])
_NOT_PRIVILEGED = 1314  # what Windows says of a symlink that this user may not make


def point(models: OpenDirectory, pointer: str, name: str | None) -> None:
    """Point `latest` or `best` at a checkpoint, so that there is no instant without it.

    It is a symlink, or where there are none a file with the name. Its directory is not synced.

    Args:
        models: the models directory.
        pointer: `latest` or `best`.
        name: the checkpoint's name; ``None`` removes the pointer.

    Raises:
        OSError: it cannot be written; it points where it did before.
    """
    if name is None:
        models.unlink(pointer)
        return
    temporary = f".{pointer}{models.mark}.tmp"
    models.unlink(temporary)
    try:
        models.link(temporary, name)
    except OSError as exc:
        if exc.errno in _NO_LINKS_HERE or getattr(exc, "winerror", 0) == _NOT_PRIVILEGED:
            files.write_atomic(models, pointer, f"{name}\n".encode())
            return
        raise
    try:
        models.replace(temporary, pointer)
    except OSError:
        models.unlink(temporary)
        raise


def pointed(models: OpenDirectory, pointer: str) -> str | None:
    """Return which checkpoint a pointer names; ``None`` where it names none.

    Raises:
        OSError: it cannot be read.
    """
    try:
        kind = models.stat(pointer).st_mode
        if stat.S_ISLNK(kind):
            name = models.linked(pointer)
        elif stat.S_ISREG(kind):
            name = (models.read(pointer) or b"")[:256].decode(errors="replace").strip()
        else:
            return None
    except FileNotFoundError:
        return None
    return name if kind_of(name) in (Kind.CHECKPOINT, Kind.FINAL_MODEL) else None
