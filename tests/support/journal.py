"""A disk under the journal that hangs or refuses as a test says, and short ways to use one."""

from __future__ import annotations

import errno
import os
import threading
from typing import Any

import pytest

from keisei.journal.reader import read_run
from keisei.journal.writer import Journal


class Disk:
    """The disk under the journal, which hangs or refuses as the test says."""

    def __init__(self, monkeypatch: pytest.MonkeyPatch) -> None:
        self.free = threading.Event()
        self.free.set()
        self.reached = threading.Event()
        self.refuse: dict[str, int] = {}
        self.calls: list[str] = []
        self._under = ""
        for name in ("write", "fsync"):
            self._replace(monkeypatch, name)

    def _replace(self, monkeypatch: pytest.MonkeyPatch, name: str) -> None:
        real = getattr(os, name)

        def call(fd: int, *args: Any) -> Any:
            if threading.current_thread().name != "keisei-writer":
                return real(fd, *args)
            if self._under and not os.readlink(f"/proc/self/fd/{fd}").startswith(self._under):
                return real(fd, *args)
            self.calls.append(name)
            self.reached.set()
            assert self.free.wait(30)
            if self.refuse.get(name, 0):
                self.refuse[name] -= 1
                raise OSError(errno.ENOSPC, os.strerror(errno.ENOSPC))
            return real(fd, *args)

        monkeypatch.setattr(f"keisei.journal.file.os.{name}", call)

    def hang(self) -> None:
        """Hang in the next call, until `free` is set."""
        self.reached.clear()
        self.free.clear()

    def only(self, directory: str) -> None:
        """Be the disk under one directory alone, from now on; needs /proc."""
        self._under = directory


def hold(journal: Journal, disk: Disk) -> None:
    """Log one row, and hang its writer in writing it."""
    disk.hang()
    journal.log_metrics({"first": 1.0})
    assert disk.reached.wait(10)


def series(run: str, key: str = "x") -> list[Any]:
    """Return the values of one metric."""
    return list(read_run(run).columns(key)[1])
