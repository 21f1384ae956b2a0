"""A state whose save takes as long as a test wants."""

from __future__ import annotations

import threading
from pathlib import Path

from keisei._io.loop import ThreadEvent


class SlowWriter:
    """A function that writes a file into a directory, once it is let.

    Args:
        text: what it writes.

    Attributes:
        begun: set when a save has called it.
        calls: how many have.
    """

    def __init__(self, text: str = "weights") -> None:
        self.begun = ThreadEvent()
        self.calls = 0
        self._text = text
        self._may_end = threading.Event()

    def let(self) -> None:
        """Let it write, now and from now on."""
        self._may_end.set()

    def __call__(self, directory: Path) -> None:
        """Write the file."""
        self.calls += 1
        self.begun.set()
        assert self._may_end.wait(30)
        (directory / "weights.txt").write_text(self._text)
