"""Lets each device of a machine be read by one of the ranks that see it."""

from __future__ import annotations

import hashlib
import os
import stat
import tempfile
import time
from contextlib import suppress

try:
    import fcntl
except ImportError:  # Windows
    fcntl = None  # type: ignore[assignment]


class MachineLocks:
    """Decides which of the ranks of a launch on this machine reads a device: one, as it lives.

    A lower local rank asks earlier. When its process ends, in whatever way, another takes over.

    Args:
        launch: what the ranks have in common; empty where there are no others.
        local_rank: which of the machine's ranks this is, from 0.
        directory: where the locks live; by default in the system's for temporary files.
        pause: how much later each rank asks than the one before it, in seconds.
    """

    def __init__(
        self, launch: str, local_rank: int, directory: str | None = None, pause: float = 1.0
    ) -> None:
        self._launch, self._local_rank = launch, local_rank
        self._directory = directory
        self._asks_at = time.monotonic() + pause * local_rank
        self._held: dict[str, int] = {}
        self._is_ready = False

    def holds(self, name: str) -> bool:
        """Return whether a device is this process's to read; where there are no locks, rank 0's."""
        if not self._launch or name in self._held:
            return True
        if time.monotonic() < self._asks_at:
            return False
        try:
            fd = self._take(name)
        except OSError:
            return self._local_rank == 0
        if fd is None:
            return False
        self._held[name] = fd
        return True

    def release(self) -> None:
        """Release what is held."""
        while self._held:
            _, fd = self._held.popitem()
            with suppress(OSError):
                os.close(fd)

    def _take(self, name: str) -> int | None:
        """Take the lock of a device; ``None`` where another process has it.

        Raises:
            OSError: there can be no locks.
        """
        if fcntl is None:
            raise OSError("no locks")
        mark = hashlib.sha256(f"{self._launch}\0{name}".encode()).hexdigest()[:32]
        flags = os.O_RDWR | os.O_CREAT | os.O_NOFOLLOW | os.O_CLOEXEC
        fd = os.open(os.path.join(self._own_directory(), f"{mark}.lock"), flags, 0o600)
        try:
            fcntl.flock(fd, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except BlockingIOError:
            os.close(fd)
            return None
        except OSError:
            os.close(fd)
            raise
        return fd

    def _own_directory(self) -> str:
        """Return the directory of this user's locks, made where it is missing."""
        if self._directory is None:
            self._directory = os.path.join(tempfile.gettempdir(), f"keisei-{os.getuid()}")
        if not self._is_ready:
            with suppress(FileExistsError):
                os.mkdir(self._directory, 0o700)
            found = os.lstat(self._directory)
            if not stat.S_ISDIR(found.st_mode) or found.st_uid != os.getuid():
                raise OSError("the directory of the locks is another user's")
            self._is_ready = True
        return self._directory
