"""The one thread that takes the snapshots of all sessions of the process, and ends with the last.

Sessions that begin at about the same time share one look: it waits until no other session has
begun for a moment, or until one of them ends.
"""

from __future__ import annotations

import atexit
import threading
from collections.abc import Sequence
from contextlib import ExitStack
from itertools import groupby
from time import monotonic

from keisei._io.directories import OpenDirectory
from keisei._io.forks import after_in_child
from keisei._io.held import HeldDirectory
from keisei._io.loop import ThreadEvent
from keisei._io.switching import quick_switches
from keisei._log import logger
from keisei.errors import TakenOverError, describe
from keisei.provenance.snapshot import Seen, Task, look, write

PAUSE = 0.05  # seconds without another session, before a look
LONGEST_PAUSE = 5.0
EXIT_TIMEOUT = 2.0


class Taking:
    """The snapshot of one session, from the end of its entry on.

    The run's directory stays open for it as it is held, so that no other one is written to: not
    what stands in its place after it was removed, and not the next owner's.

    Args:
        task: what is to be recorded.
        home: the run's directory, while it is held.

    Attributes:
        task: the same.
        is_waiting: whether nobody looks yet.
        over: set when nothing more is written.
    """

    def __init__(self, task: Task, home: HeldDirectory) -> None:
        self.task, self.over, self.is_waiting = task, ThreadEvent(), True
        self._stack = ExitStack()
        self._directory: OpenDirectory | None = self._stack.enter_context(home.seen())
        self._thread = _current
        self._thread.put(self)

    def hasten(self) -> None:
        """Take it now, for its session ends."""
        self._thread.hasten(self)

    def leave(self) -> None:
        """Do without git's answer; where no other session waits for it, git is killed."""
        self._thread.leave(self)

    def record(self, seen: Seen) -> None:
        """Write what was seen; one warning says it where that fails."""
        try:
            if self._directory is not None:
                write(self.task, seen, self._directory)
        except (TakenOverError, FileNotFoundError):
            pass  # there is nothing more to write to
        except Exception as exc:  # noqa: BLE001 - whatever it is, the training goes on
            self.warn(exc)

    def warn(self, exc: Exception) -> None:
        """Log that it cannot be recorded."""
        text = "what run %s was started from is not recorded: %s"
        logger.warning(text, self.task.run_name, describe(exc))

    def close(self) -> None:
        """Write nothing more."""
        self._stack.close()
        self.over.set()


class _Thread:
    """Takes the snapshots that wait, on a thread that ends when none does."""

    def __init__(self) -> None:
        self._lock = threading.Lock()
        self._bell = threading.Event()
        self._stop = threading.Event()
        self._waiting: list[Taking] = []
        self._patient: set[Taking] = set()  # those that go on waiting for git's answer
        self._runs = self._is_hasty = self._is_at_exit = False
        self._thread: threading.Thread | None = None
        self._last = 0.0

    def put(self, taking: Taking) -> None:
        """Take one more snapshot."""
        with self._lock:
            self._waiting.append(taking)
            self._patient.add(taking)
            self._last = monotonic()
            if self._runs:
                return
            self._runs = True
        thread = threading.Thread(target=self._serve, name="keisei-provenance", daemon=True)
        try:
            thread.start()
            self._thread = thread
        except RuntimeError as exc:  # the system has no thread left: then it is not recorded
            with self._lock:
                self._runs, left, self._waiting = False, self._waiting, []
            for each in left:
                each.warn(exc)
                self._close(each)

    def hasten(self, taking: Taking) -> None:
        """Look now, where a session's snapshot waits for a look."""
        with self._lock:
            self._is_hasty = self._is_hasty or taking.is_waiting
        self._bell.set()

    def leave(self, taking: Taking) -> None:
        """Count a session no longer as one that waits for git."""
        with self._lock:
            self._patient.discard(taking)
            if not self._patient:
                self._stop.set()

    def finish(self) -> None:
        """Do without git, and wait for a moment until what is known is written; blocks."""
        self._is_at_exit = True
        self._stop.set()
        self._is_hasty = True
        self._bell.set()
        if self._thread is not None:
            self._thread.join(EXIT_TIMEOUT)

    def _serve(self) -> None:
        while True:
            self._pause()
            with self._lock:
                batch, self._waiting, self._is_hasty = self._waiting, [], False
                for taking in batch:
                    taking.is_waiting = False
                if self._patient and not self._is_at_exit:
                    self._stop.clear()
            with quick_switches():
                batch.sort(key=lambda taking: repr(taking.task.look))
                for _, sharing in groupby(batch, key=lambda taking: taking.task.look):
                    self._take(list(sharing), batch[-1])
            with self._lock:
                self._runs = is_on = bool(self._waiting)
            self._close(batch[-1])  # who waits for it finds no thread any more
            if not is_on:
                return

    def _pause(self) -> None:
        longest = monotonic() + LONGEST_PAUSE
        while self._waiting and not self._is_hasty:
            left = min(self._last + PAUSE, longest) - monotonic()
            if left <= 0:
                return
            self._bell.wait(left)
            self._bell.clear()

    def _take(self, sharing: Sequence[Taking], last: Taking) -> None:
        """Look, and write what was seen for all that share it; the last one is closed later."""
        seen: Seen | Exception
        try:
            seen = look(sharing[0].task, self._stop)
        except Exception as exc:  # noqa: BLE001 - whatever it is, the training goes on
            seen = exc
        for taking in sharing:
            if isinstance(seen, Seen):
                taking.record(seen)
            else:
                taking.warn(seen)
            if taking is not last:
                self._close(taking)

    def _close(self, taking: Taking) -> None:
        with self._lock:
            self._patient.discard(taking)
        taking.close()


_current = _Thread()
atexit.register(lambda: _current.finish())


def _begin_anew() -> None:
    global _current
    _current = _Thread()


after_in_child(_begin_anew)
