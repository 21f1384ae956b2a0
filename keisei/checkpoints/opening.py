"""A checkpoint that is being used: nobody removes it meanwhile, and no symlink is followed.

Whoever writes or reads a checkpoint shares the lock of its directory, which goes with it through
every rename; whoever removes it has to have that lock alone.
"""

from __future__ import annotations

import os
import stat
from collections.abc import Iterator
from contextlib import contextmanager

from keisei._io import files, locks
from keisei._io.directories import OpenDirectory
from keisei.checkpoints import failing
from keisei.checkpoints.digests import new_digest
from keisei.checkpoints.layout import MANIFEST
from keisei.checkpoints.manifest import LARGEST, FileEntry, Manifest, parse

_REMOVED_WITHIN = 5.0  # seconds, for who has the lock alone


class GoneError(Exception):
    """The checkpoint was renamed or removed since its name was read."""


@contextmanager
def opened(models: OpenDirectory, name: str) -> Iterator[OpenDirectory]:
    """Open a checkpoint for a `with` block, in which nobody removes it; it blocks.

    Raises:
        GoneError: it stands there no more.
        CheckpointError: it is no directory.
        OSError: it cannot be opened.
    """
    try:
        kind = models.stat(name).st_mode
        if not stat.S_ISDIR(kind):
            what = "a symlink" if stat.S_ISLNK(kind) else "no directory"
            raise failing.damaged(os.path.join(models.path, name), f"it is {what}")
        directory = models.inside(name)
    except FileNotFoundError:
        raise GoneError(name) from None
    with directory:
        try:
            shared = locks.share_directory(directory, _REMOVED_WITHIN)
        except locks.LockedError:
            raise GoneError(name) from None
        try:
            if not is_named(models, name, directory):
                raise GoneError(name)
            yield directory
        finally:
            if shared:  # not left to close: a process forked meanwhile would share it for its life
                locks.unlock_directory(directory)


def is_named(models: OpenDirectory, name: str, directory: OpenDirectory) -> bool:
    """Return whether an open directory is still the one of that name."""
    if directory.fd is None:
        return models.holds(name)
    try:
        return os.path.samestat(models.stat(name), os.fstat(directory.fd))
    except FileNotFoundError:
        return False


def read_manifest(directory: OpenDirectory) -> tuple[Manifest, int]:
    """Return what an open checkpoint's manifest says, and its length in bytes.

    Raises:
        CheckpointError: it is not whole, or of a newer format.
        OSError: there is none, or it cannot be read.
    """
    if directory.stat(MANIFEST).st_size > LARGEST:
        raise failing.damaged(directory.path, "its manifest is too large")
    text = b"".join(files.parts(directory, MANIFEST))
    return parse(text, directory.path), len(text)


def check_file(directory: OpenDirectory, entry: FileEntry, algorithm: str) -> str | None:
    """Return what is wrong with a file of an open checkpoint; ``None`` where it verifies.

    Raises:
        OSError: it cannot be read.
        MissingExtraError: its digests' algorithm is not installed.
    """
    try:
        with within(directory, entry.name) as (inner, name):
            size, digest = digest_file(inner, name, algorithm)
    except OSError as exc:
        if not failing.is_damage(exc):
            raise
        return f"{entry.name}: {exc.strerror}"
    if size != entry.size:
        return f"{entry.name}: {size:,} bytes, and the manifest says {entry.size:,}"
    return None if digest == entry.digest else f"{entry.name}: its digest does not fit its content"


def digest_file(directory: OpenDirectory, name: str, algorithm: str) -> tuple[int, str]:
    """Return a file's length and its digest."""
    digest, size = new_digest(algorithm), 0
    for part in files.parts(directory, name):
        digest.update(part)
        size += len(part)
    return size, digest.hexdigest()


@contextmanager
def within(directory: OpenDirectory, path: str) -> Iterator[tuple[OpenDirectory, str]]:
    """Open the directory that a file of a checkpoint is in, each component of its path by itself.

    Args:
        directory: the open checkpoint.
        path: the file's path below it, with ``/`` between the components.
    """
    first, slash, rest = path.partition("/")
    if not slash:
        yield directory, path
        return
    with directory.inside(first) as inner, within(inner, rest) as found:
        yield found
