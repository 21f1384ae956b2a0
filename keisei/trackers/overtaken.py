"""Whether a later attempt has taken a run over while the program of this one lives."""

from __future__ import annotations

import time
from contextlib import suppress

from keisei._io.files import OpenDirectory
from keisei._io.held import FollowedDirectory
from keisei.run.layout import RECORD_FILE
from keisei.run.session_file import SessionRecord

PATIENCE = 5.0  # seconds for the word of an attempt that has ended, which may be on its way


class Overtaken:
    """Looks whether a later attempt has begun, and nobody has said meanwhile that this has ended.

    Args:
        home: the run's directory.
        attempt: which attempt this one is.
    """

    def __init__(self, home: FollowedDirectory, attempt: int) -> None:
        self._home, self._attempt = home, attempt
        self._seen: tuple[int, int] | None = None
        self._since: float | None = None

    def look(self) -> bool:
        """Return whether that has been so for `PATIENCE`; cheap where nothing has changed."""
        with suppress(OSError):
            found = self._home.stat(RECORD_FILE)
            if self._seen != (found.st_ino, found.st_mtime_ns):
                self._seen = found.st_ino, found.st_mtime_ns
                with OpenDirectory(self._home.path()) as directory:
                    record = SessionRecord.parsed(directory.read(RECORD_FILE) or b"")
                if record is not None and record.attempt > self._attempt:
                    self._since = self._since or time.monotonic()
        return self._since is not None and time.monotonic() - self._since >= PATIENCE
