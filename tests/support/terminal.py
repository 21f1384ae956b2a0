"""A program in a terminal of its own, and what stands on its screen."""

from __future__ import annotations

import os
import select
import subprocess
import sys
import termios
import time
from collections.abc import Callable, Mapping, Sequence
from contextlib import suppress
from pathlib import Path

import pyte

_TIMEOUT = 60.0


class Terminal:
    """A pseudo-terminal with a program that runs in it.

    Args:
        arguments: Python's.
        cwd: where it runs.
        columns: of the terminal.
        rows: of the terminal.
        env: what is added to the environment.
        stdout: where its standard output goes; into the terminal, if nowhere.

    Attributes:
        output: all that was written to it.
        screen: what stands in it.
        process: the program.
    """

    def __init__(
        self,
        arguments: Sequence[str],
        cwd: Path,
        columns: int = 100,
        rows: int = 24,
        env: Mapping[str, str] | None = None,
        stdout: int | None = None,
    ) -> None:
        import pty

        self.output = b""
        self.screen = pyte.Screen(columns, rows)
        self._stream = pyte.ByteStream(self.screen)
        self._leader, follower = pty.openpty()
        self.resize(columns, rows)
        environ = {**os.environ, "TERM": "xterm-256color", "PYTHONPATH": os.getcwd()}
        for name in ("CI", "FORCE_COLOR", "TTY_COMPATIBLE", "NO_COLOR", "COLUMNS", "LINES"):
            environ.pop(name, None)
        self.process = subprocess.Popen(
            [sys.executable, *arguments],
            stdin=follower,
            stdout=follower if stdout is None else stdout,
            stderr=follower,
            cwd=cwd,
            env={**environ, **(env or {})},
        )
        os.close(follower)

    def __enter__(self) -> Terminal:
        return self

    def __exit__(self, *exc: object) -> None:
        self.process.kill()
        self.process.wait()
        os.close(self._leader)

    @property
    def lines(self) -> list[str]:
        """The lines of the screen, without what is blank at their and its end."""
        return "\n".join(line.rstrip() for line in self.screen.display).rstrip().split("\n")

    def resize(self, columns: int, rows: int) -> None:
        """Change the terminal's size."""
        termios.tcsetwinsize(self._leader, (rows, columns))
        self.screen.resize(rows, columns)

    def type(self, text: str) -> None:
        """Type a text."""
        os.write(self._leader, text.encode())

    def until(self, holds: Callable[[], bool]) -> None:
        """Read what is written until something holds."""
        deadline = time.monotonic() + _TIMEOUT
        while not holds():
            ready, _, _ = select.select([self._leader], [], [], 0.2)
            if ready:
                try:
                    part = os.read(self._leader, 65536)
                except OSError:  # the other end is closed
                    part = b""
                self.output += part
                self._stream.feed(part)
                assert part or holds(), self.lines
            assert time.monotonic() < deadline, self.lines

    def end(self) -> int:
        """Read until the program has ended, and return its exit status."""
        with suppress(OSError):
            while part := os.read(self._leader, 65536):
                self.output += part
                self._stream.feed(part)
        return self.process.wait(_TIMEOUT)
