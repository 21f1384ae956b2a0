"""One line at the cursor of a terminal, which gives way to whatever the program writes.

It stands there only while every other line is whole. Nothing of the terminal is changed for it: no
scroll region, no hidden cursor, no other screen. A process that is killed leaves the line behind,
and nothing else.

This is not `rich.live`, which hides the cursor, ends a line where a prompt or a bar of tqdm's goes
on, and does not see handlers of `logging` that had the stream before it.
"""

from __future__ import annotations

import threading
from collections.abc import Callable, Sequence
from contextlib import suppress
from typing import TextIO

_ERASE = "\r\x1b[K"


class TerminalLine:
    """The line; it may be used from any thread.

    Args:
        streams: those that the program writes to the terminal with; the line is written to the
            first. Each has its method `write` replaced, as what holds the stream itself has to
            give way, too.
    """

    def __init__(self, streams: Sequence[TextIO]) -> None:
        # Reentrant, as a handler of a signal may print while its thread does.
        self._lock = threading.RLock()
        self._stream, self._write = streams[0], streams[0].write
        self._shown = self._known = False
        self._unended: set[int] = set()  # streams whose last line is not whole
        self._replaced: list[tuple[TextIO, Callable[[str], int]]] = []
        for stream in streams:
            self._replace(stream)

    def _replace(self, stream: TextIO) -> None:
        write = stream.write

        def give_way(text: str) -> int:
            with self._lock:
                self._erase()
                if text:
                    self._known = True
                    self._unended.discard(id(stream))
                    if not text.endswith("\n"):
                        self._unended.add(id(stream))
                return write(text)

        with suppress(AttributeError):  # one that takes no attributes: what it writes is not seen
            stream.__dict__["write"] = give_way
            self._replaced.append((stream, give_way))

    def show(self, text: str, width: int) -> None:
        """Show a text in place of the one that is shown, unless a line is being written.

        Args:
            text: the text, which fits into the width.
            width: of the terminal, in columns.

        Raises:
            OSError: the terminal is gone.
            ValueError: the stream is closed.
        """
        with self._lock:
            if self._unended:
                return
            # Blanks to the last column leave a line that was begun before alone: they wrap.
            start = _ERASE if self._known else " " * (width - 1) + _ERASE
            self._known = self._shown = True
            self._write(start + text)
            self._stream.flush()

    def close(self) -> None:
        """Erase the line, and give the streams back.

        Raises:
            OSError: the terminal is gone.
            ValueError: the stream is closed.
        """
        with self._lock:
            self.forget()
            self._erase()

    def forget(self) -> None:
        """Leave the streams and the line alone; takes no lock, for a forked child."""
        for stream, give_way in self._replaced:
            if stream.__dict__.get("write") is give_way:
                del stream.__dict__["write"]
        self._replaced.clear()

    def _erase(self) -> None:
        if self._shown:
            self._shown = False
            self._write(_ERASE)
            self._stream.flush()
