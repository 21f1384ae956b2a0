"""Where a checkpoint is written before anybody can see it, and what dead savers leave of that."""

from __future__ import annotations

import os
import re
import secrets
import stat
from collections.abc import Iterator
from contextlib import ExitStack, contextmanager, suppress

from keisei._io import locks
from keisei._io.directories import OpenDirectory
from keisei._log import logger
from keisei.checkpoints.layout import BEST, FILES, LATEST, Kind, kind_of, staged_name
from keisei.checkpoints.manifest import FileEntry, wrong_name
from keisei.checkpoints.opening import GoneError, digest_file, opened
from keisei.errors import describe, quoted

_DEEPEST = 32  # directories in directories
_TRIES = 100
_POINTING = re.compile(rf"\.({LATEST}|{BEST})(\.\d+)?\.tmp", re.ASCII)


@contextmanager
def staged(models: OpenDirectory, name: str) -> Iterator[tuple[OpenDirectory, str]]:
    """Make a directory for a `with` block to write a checkpoint in; it blocks.

    What is not renamed at the block's end is removed. Until then its lock says that it is in use.

    Args:
        models: the run's models directory.
        name: the checkpoint's name.

    Yields:
        The directory, and its name.

    Raises:
        OSError: it cannot be made.
    """
    with ExitStack() as stack:
        for _ in range(_TRIES):
            temporary = staged_name(name, secrets.token_hex(8))
            if models.make(temporary, sync=False):
                stack.callback(_discard, models, temporary)
                try:
                    directory = stack.enter_context(opened(models, temporary))
                except GoneError:  # another process has taken it for a dead saver's
                    continue
                yield directory, temporary
                return
        raise FileExistsError("every name for a temporary directory is taken")


def _discard(models: OpenDirectory, temporary: str) -> None:
    try:
        try:
            remove_unused(models, temporary)  # one that was replaced may be being read
        except OSError:
            models.remove_tree(temporary)
    except OSError as exc:
        logger.warning(
            "%s cannot be removed, and the next save will try again: %s",
            quoted(os.path.join(models.path, temporary), 300),
            describe(exc),
        )


def clear(models: OpenDirectory, *, spare: str | None = None) -> list[str]:
    """Remove what dead savers and removers have left, and return its names; it blocks.

    What cannot be removed is logged, and stays.

    Args:
        models: the run's models directory.
        spare: what is in use, where no lock may say so.
    """
    removed = []
    for name in models.names():
        if _POINTING.fullmatch(name):
            with suppress(OSError):
                models.unlink(name)
        if name != spare and kind_of(name) in (Kind.STAGED, Kind.REMOVING):
            try:
                if remove_unused(models, name):
                    removed.append(name)
            except (OSError, RecursionError) as exc:
                logger.warning(
                    "%s, which a process that died has left, cannot be removed: %s",
                    quoted(os.path.join(models.path, name), 300),
                    describe(exc),
                )
    return removed


def remove_unused(models: OpenDirectory, name: str) -> bool:
    """Remove a directory that nobody uses, and return whether it was so."""
    if not stat.S_ISDIR(models.stat(name).st_mode):
        models.unlink(name)
        return True
    with models.inside(name) as directory:
        try:
            locks.lock_directory(directory, 0.0)
        except locks.LockedError:
            return False
        models.remove_tree(name)
    return True


def take_files(directory: OpenDirectory, algorithm: str) -> list[FileEntry]:
    """Digest and sync the files that a function has written, and close them to others.

    Args:
        directory: the checkpoint; the files are in its `files`.
        algorithm: of their digests.

    Raises:
        ValueError: there are none, or something that is no plain file.
        OSError: one cannot be read or synced.
    """
    with directory.inside(FILES) as inner:
        entries = sorted(_taken(inner, FILES, algorithm, 1), key=lambda entry: entry.name)
    if not entries:
        raise ValueError("the function has written no file into the directory that it was given")
    return entries


def _taken(directory: OpenDirectory, above: str, algorithm: str, depth: int) -> Iterator[FileEntry]:
    if depth > _DEEPEST:
        raise ValueError(f"more than {_DEEPEST} directories in directories")
    for name in directory.names():
        path = f"{above}/{name}"
        found = directory.stat(name)
        if (problem := wrong_name(path) or _no_plain(found)) is not None:
            raise ValueError(f"{quoted(path, 300)} is {problem}: a checkpoint holds plain files")
        if stat.S_ISDIR(found.st_mode):
            directory.set_mode(name, 0o700)
            with directory.inside(name) as inner:
                yield from _taken(inner, path, algorithm, depth + 1)
            continue
        directory.set_mode(name, 0o600)
        size, digest = digest_file(directory, name, algorithm)
        directory.sync_file(name)
        now = directory.stat(name)
        if (now.st_ino, now.st_size, now.st_mtime_ns) != (found.st_ino, size, found.st_mtime_ns):
            raise ValueError(f"{quoted(path, 300)} is still being written: close it first")
        yield FileEntry(name=path, size=size, digest=digest)
    directory.sync()


def _no_plain(found: os.stat_result) -> str | None:
    if stat.S_ISDIR(found.st_mode):
        return None
    if stat.S_ISLNK(found.st_mode):
        return "a symlink"
    if not stat.S_ISREG(found.st_mode):
        return "no plain file"
    return "a file with another name elsewhere (a hard link)" if found.st_nlink > 1 else None
