"""A tracker in a process of its own: no import, no collection of garbage, no crash of it is felt.

The process gets requests through its standard input, one at a time, and answers through what was
its standard output (`apart_child`). It ends when that input does: with this process at the
latest. What it is sent is plain: a name, options, records, a status.
"""

from __future__ import annotations

import pickle
import subprocess
import sys
from collections.abc import Mapping, Sequence
from contextlib import suppress
from typing import IO, Any, cast

import keisei.errors
from keisei._log import logger
from keisei.errors import KeiseiError
from keisei.run.status import FinalStatus
from keisei.trackers.base import Position, Record, RunInfo, Tracker, TrackerRun

CHILD = "from keisei.trackers.host.process import main; main()"
END_TIMEOUT = 2.0  # seconds; what the process may still do when nobody wants anything of it
# On Windows: no window, and the training goes first where there are more threads than cores.
_FLAGS = getattr(subprocess, "CREATE_NO_WINDOW", 0) | getattr(
    subprocess, "BELOW_NORMAL_PRIORITY_CLASS", 0
)
FACTS = ("run_id", "url", "mode", "directory", "upload_as")


class ApartTracker(Tracker):
    """Starts the runs of a named tracker in a process of its own; a run at a time.

    Args:
        name: the tracker's entry point.
        options: what it is made with.

    Raises:
        TrackerError: there is no such tracker, or it cannot be made with these options.
        OSError: the process cannot be started.
    """

    def __init__(self, name: str, options: Mapping[str, object]) -> None:
        self._entry_point, self._options = name, dict(options)
        self._process: subprocess.Popen[bytes] | None = None
        self._killed = False
        self.name, self.start_timeout = name, 0.0
        self._make()

    def start(self, run: RunInfo) -> ApartRun:
        """Start a run there."""
        started = ApartRun(self, run)
        started.start()
        return started

    def call(self, method: str, *args: object) -> Any:
        """Call a method of the tracker or of its run in the process; blocks.

        Raises:
            ConnectionError: the process has ended.
            Exception: what the method has raised, by its name and its message.
        """
        process = self._process
        if process is None:
            raise ConnectionError("the tracker's process has ended")
        try:
            pickle.dump((method, args), cast(IO[bytes], process.stdin), pickle.HIGHEST_PROTOCOL)
            cast(IO[bytes], process.stdin).flush()
            while True:
                kind, *said = pickle.load(cast(IO[bytes], process.stdout))
                if kind == "log":
                    logger.log(*said)
                elif kind == "error":
                    raise _error(*said)
                else:
                    return said[0]
        except (EOFError, BrokenPipeError, pickle.UnpicklingError) as exc:
            self.end(0.0)
            status = process.returncode
            raise ConnectionError(f"the tracker's process has ended (status {status})") from exc

    def alive(self) -> bool:
        """Tell whether its process lives; one that has died is replaced."""
        if self._process is None and not self._killed:
            self._make()
            return False
        return True

    def end(self, timeout: float = END_TIMEOUT) -> None:
        """End the process; blocks.

        Args:
            timeout: how long it may take by itself, in seconds.
        """
        process, self._process = self._process, None
        if process is not None:
            for pipe in (process.stdin, process.stdout):
                with suppress(OSError):
                    cast(IO[bytes], pipe).close()
            try:
                process.wait(timeout)
            except subprocess.TimeoutExpired:
                process.kill()
                process.wait()

    def kill(self) -> None:
        """End the process at once, from any thread; who waits for its answer gets an error."""
        self._killed = True
        process = self._process
        if process is not None:
            process.kill()

    def _make(self) -> None:
        self._process = subprocess.Popen(
            [sys.executable, "-c", CHILD],
            stdin=subprocess.PIPE,
            stdout=subprocess.PIPE,
            # What is typed at the terminal, and what is sent to the program's group, is not for it.
            start_new_session=True,
            creationflags=_FLAGS,
        )
        try:
            made = self.call("make", sys.path, self._entry_point, self._options)
            self.name, self.start_timeout = made
        except BaseException:
            self.end(0.0)
            raise


class ApartRun(TrackerRun):
    """A run of a tracker that lives in a process of its own.

    Args:
        tracker: the tracker.
        info: what it is told of the run.
    """

    def __init__(self, tracker: ApartTracker, info: RunInfo) -> None:
        self._tracker, self._info = tracker, info
        self.run_id = info.session_id

    def start(self) -> None:
        """Start the run there, and take over what is known of it."""
        for name, value in zip(FACTS, self._tracker.call("start", self._info), strict=True):
            setattr(self, name, value)

    def send(self, records: Sequence[Record]) -> None:
        """Send the records there."""
        self._tracker.call("send", records)

    def position(self) -> Position | None:
        """Ask for the position; where the process has died, another one is started first."""
        if not self._tracker.alive():
            self.start()
        place = self._tracker.call("position")
        return None if place is None else Position(*place)

    def finish(self, status: FinalStatus) -> None:
        """End the run there, and the process."""
        try:
            if not self._tracker.alive():
                self.start()
            self._tracker.call("finish", status)
        finally:
            self._tracker.end()


def _error(kind: str, text: str) -> Exception:
    """Give an error of keisei's as it was, and another one by its name."""
    known = getattr(keisei.errors, kind, None)
    if isinstance(known, type) and issubclass(known, KeiseiError):
        return known(text)
    error: Exception = type(kind, (RuntimeError,), {})(text)
    return error
