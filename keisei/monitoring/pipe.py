"""The pipes between the program and its sampler, which the program never waits for."""

from __future__ import annotations

import os
import subprocess
import threading
from collections import deque
from contextlib import suppress

_CHUNK = 1 << 16


class Pipe:
    """What the sampler writes, and what is written to it, without ever waiting for it."""

    def __init__(self, process: subprocess.Popen[bytes]) -> None:
        self._process = process
        assert process.stdin is not None
        assert process.stdout is not None
        self._input, self._output = process.stdin.fileno(), process.stdout.fileno()
        self._chunks: deque[bytes] | None = None
        if os.name == "nt":  # its pipes always wait
            self._chunks = deque()
            threading.Thread(target=self._pump, name="keisei-sampler", daemon=True).start()
        else:
            os.set_blocking(self._input, False)
            os.set_blocking(self._output, False)

    def read(self) -> tuple[bytes, bool]:
        """Return what there is to read, and whether there may be more later."""
        data = bytearray()
        try:
            while True:
                chunk = self._next()
                if not chunk:
                    return bytes(data), False
                data += chunk
        except BlockingIOError:
            return bytes(data), True
        except OSError:
            return bytes(data), False

    def write(self, data: bytes) -> int:
        """Write what can be written at once, and return how many bytes that is."""
        try:
            return os.write(self._input, data)
        except OSError:  # it is full, or it has ended, which its output says
            return 0

    def _next(self) -> bytes:
        if self._chunks is None:
            return os.read(self._output, _CHUNK)
        try:
            return self._chunks.popleft()
        except IndexError:
            raise BlockingIOError from None

    def _pump(self) -> None:
        assert self._chunks is not None
        with suppress(OSError):
            while chunk := os.read(self._output, _CHUNK):
                self._chunks.append(chunk)
        self._chunks.append(b"")
