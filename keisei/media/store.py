"""Keeps files by their content below a run's `media/`: each once, whole or not at all."""

from __future__ import annotations

import hashlib
import os
from collections.abc import Iterator
from contextlib import suppress
from uuid import uuid4

from keisei._io.directories import OpenDirectory
from keisei._io.held import HeldDirectory
from keisei.errors import MediaError, quoted
from keisei.media.reading import open_file
from keisei.media.values import Content, Kept

FOLDER = "media"
_PIECE = 1 << 20


class MediaStore:
    """A run's `media/`. One thread at a time calls it; other processes may write there, too.

    A file of the user's is copied, and never linked: they may write to it again.

    Args:
        home: the run's directory.
        largest_file: the largest file that is kept, in bytes.
        largest_total: how much is kept in all, in bytes.
        sync: whether what is kept survives the loss of power.

    Attributes:
        bytes: how many bytes were written here.
    """

    def __init__(
        self, home: HeldDirectory, largest_file: int, largest_total: int, *, sync: bool
    ) -> None:
        self._home, self._sync = home, sync
        self._largest_file, self._largest_total = largest_file, largest_total
        self._total: int | None = None
        self._temporary = f".{uuid4().hex}.tmp"
        self.bytes = 0

    def keep(self, content: Content) -> Kept:
        """Write a file, where none of its content is there yet; blocks.

        Raises:
            MediaError: it is larger than what is kept.
            OSError: it cannot be read or written.
        """
        with self._home.entered() as home:
            home.make(FOLDER, sync=self._sync)
            with home.inside(FOLDER) as media:
                if self._total is None:
                    self._total = sum(_sizes(media))
                try:
                    return self._written(media, content)
                except BaseException:
                    with suppress(OSError):
                        media.unlink(self._temporary)
                    raise

    def _written(self, media: OpenDirectory, content: Content) -> Kept:
        digest, size, temporary = hashlib.sha256(), 0, self._temporary
        with open(media.open(temporary, os.O_WRONLY | os.O_CREAT | os.O_EXCL), "wb", 0) as file:
            for piece in _pieces(content):
                size += len(piece)
                self._check(size, content)
                digest.update(piece)
                view = memoryview(piece)
                while view:
                    view = view[file.write(view) :]
            if self._sync:
                os.fsync(file.fileno())
        name = digest.hexdigest()
        folder, file_name = name[:2], name + content.suffix
        media.make(folder, sync=self._sync)
        with media.inside(folder) as inside:
            if not inside.holds(file_name) or inside.stat(file_name).st_size != size:
                media.guard()
                _move(media, temporary, inside, file_name)
                self._total = (self._total or 0) + size
                self.bytes += size
            else:
                media.unlink(temporary)
            if self._sync:
                inside.sync()
        return Kept(f"{folder}/{file_name}", size, name)

    def _check(self, size: int, content: Content) -> None:
        what = "it" if content.path is None else quoted(content.path, 300)
        if size > self._largest_file:
            raise MediaError(
                f"{what} is larger than {self._largest_file:,} bytes (media.largest_file)"
            )
        if (self._total or 0) + size > self._largest_total:
            raise MediaError(
                f"with {what}, media/ would hold more than {self._largest_total:,} bytes "
                "(media.largest_total)"
            )


def _pieces(content: Content) -> Iterator[bytes]:
    if content.data is not None:
        for start in range(0, len(content.data), _PIECE):
            yield content.data[start : start + _PIECE]
    elif content.path is not None:
        with open(open_file(content.path), "rb", 0) as file:
            while piece := file.read(_PIECE):
                yield piece


def _move(source: OpenDirectory, name: str, target: OpenDirectory, new: str) -> None:
    """Rename a file into another directory, over what stands there."""
    if source.fd is None or target.fd is None:
        os.replace(os.path.join(source.path, name), os.path.join(target.path, new))
    else:
        os.rename(name, new, src_dir_fd=source.fd, dst_dir_fd=target.fd)


def _sizes(media: OpenDirectory) -> Iterator[int]:
    """Yield the sizes of the files that are kept."""
    for folder in media.names():
        if len(folder) == 2:
            with suppress(OSError), media.inside(folder) as inside:
                for name in inside.names():
                    yield inside.stat(name).st_size
