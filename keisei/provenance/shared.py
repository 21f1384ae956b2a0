"""The one thread that takes the snapshots of all sessions of the process, and ends with the last.

Sessions that begin at about the same time share one look: it waits until no other session has
begun for a moment, or until one of them ends; and what was seen serves those that begin soon after
it, too. No session waits for git: the thread goes on behind the end of one, and gets a short while
more when the program ends.
"""

from __future__ import annotations

import atexit
import os
import threading
from collections.abc import Callable, Mapping, Sequence
from contextlib import ExitStack
from dataclasses import dataclass
from itertools import groupby
from time import monotonic
from typing import Any

from keisei._io.directories import OpenDirectory
from keisei._io.forks import after_in_child
from keisei._io.held import HeldDirectory, unguarded
from keisei._io.loop import ThreadEvent
from keisei._io.switching import quick_switches
from keisei._log import logger
from keisei.errors import TakenOverError, describe
from keisei.provenance.snapshot import Seen, Task, look, write

PAUSE = 0.05  # seconds without another session, before a look
LONGEST_PAUSE = 5.0
EXIT_PATIENCE = 1.0  # seconds that the end of the program waits for git
EXIT_TIMEOUT = 2.0  # and for all
MOST_LEFT = 100  # sessions that have ended, whose directories are kept open while git is asked

# How long what was seen is shared: 20 times as long as the look took, so that a crowd of short
# sessions spends a twentieth of its time on it at most, and within these bounds, in seconds.
AS_LONG_AS, AT_LEAST, AT_MOST = 20.0, 1.0, 10.0
FAILED_FOR = 60.0  # seconds until git is asked again after it has failed


class Taking:
    """The snapshot of one session, from the end of its entry on.

    The run's directory stays open for it as it is held, so that no other one is written to: not
    what stands in its place after it was removed, and not the next owner's.

    Args:
        task: what is to be recorded.
        home: the run's directory, while it is held.
        on_known: called with what was recorded, on the thread, once it is.

    Attributes:
        task: the same.
        is_waiting: whether nobody looks yet.
        seen: set when only the files are still to be written.
        over: set when nothing more is written.
    """

    def __init__(
        self, task: Task, home: HeldDirectory, on_known: Callable[[Mapping[str, Any]], None]
    ) -> None:
        self.task, self.is_waiting = task, True
        self.seen, self.over = ThreadEvent(), ThreadEvent()
        self._on_known = on_known
        self._stack = ExitStack()
        self._directory: OpenDirectory | None = self._stack.enter_context(home.seen())
        self._is_late = False
        self._thread = _current
        self._thread.put(self)

    def hasten(self) -> None:
        """Take it now, for its session ends."""
        self._thread.hasten(self)

    def looking_for(self) -> float:
        """Return how long the look that is under way has taken by now, in seconds."""
        return self._thread.looking_for()

    def leave(self, *, is_owner: bool) -> None:
        """Note that its session has ended, and what is left of it goes on behind that.

        A later attempt may own the run by then: what is written is named after this one, and that
        one has nothing of the kind.

        Args:
            is_owner: whether the session has owned the run to its end: else nothing is written
                where another one does.
        """
        self._is_late = is_owner
        self._thread.leave(self)

    def record(self, seen: Seen) -> None:
        """Write what was seen; one warning says it where that fails."""
        try:
            directory = self._directory
            if directory is not None:
                if self._is_late:
                    directory = unguarded(directory)
                self._on_known(write(self.task, seen, directory))
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
        self.seen.set()
        self.over.set()


@dataclass(frozen=True)
class _Fresh:
    """What was seen last, which serves until a moment."""

    key: tuple[object, ...]
    seen: Seen
    until: float


class _Thread:
    """Takes the snapshots that wait, on a thread that ends when none does."""

    def __init__(self) -> None:
        self._lock = threading.Lock()
        self._bell = threading.Event()
        self._stop = threading.Event()
        self._waiting: list[Taking] = []
        self._left: set[Taking] = set()  # those whose sessions have ended
        self._runs = self._is_hasty = self._is_at_exit = False
        self._thread: threading.Thread | None = None
        self._last = 0.0
        self._began: float | None = None  # of the look that is under way
        self._fresh: _Fresh | None = None

    def put(self, taking: Taking) -> None:
        """Take one more snapshot."""
        with self._lock:
            self._waiting.append(taking)
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

    def looking_for(self) -> float:
        """Return how long the look that is under way has taken by now, in seconds."""
        began = self._began
        return 0.0 if began is None else monotonic() - began

    def leave(self, taking: Taking) -> None:
        """Note that a session has ended; where too many wait for git, it is killed."""
        with self._lock:
            if not taking.over.is_set():
                self._left.add(taking)
            if len(self._left) > MOST_LEFT:
                self._stop.set()

    def finish(self) -> None:
        """Wait until what was begun is written, for a moment without and then with git killed."""
        self._is_at_exit = self._is_hasty = True
        self._bell.set()
        if self._thread is not None:
            self._thread.join(EXIT_PATIENCE)
            self._stop.set()
            self._thread.join(EXIT_TIMEOUT - EXIT_PATIENCE)

    def _serve(self) -> None:
        while True:
            self._pause()
            with self._lock:
                batch, self._waiting, self._is_hasty = self._waiting, [], self._is_at_exit
                for taking in batch:
                    taking.is_waiting = False
                if len(self._left) <= MOST_LEFT and not self._is_at_exit:
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
            seen = self._seen(sharing[0].task)
        except Exception as exc:  # noqa: BLE001 - whatever it is, the training goes on
            seen = exc
        for taking in sharing:
            taking.seen.set()
        for taking in sharing:
            if isinstance(seen, Seen):
                taking.record(seen)
            else:
                taking.warn(seen)
            if taking is not last:
                self._close(taking)

    def _seen(self, task: Task) -> Seen:
        """Return what was seen a moment ago, or look."""
        key = (*task.look, tuple(sorted(os.environ.items())))
        fresh = self._fresh
        if fresh is not None and fresh.key == key and monotonic() < fresh.until:
            return fresh.seen
        self._began = began = monotonic()
        try:
            seen = look(task, self._stop)
        finally:
            self._began = None
        over = monotonic()
        serves = min(max(AS_LONG_AS * (over - began), AT_LEAST), AT_MOST)
        if seen.code.about.get("problem") is not None:
            serves = FAILED_FOR
        self._fresh = _Fresh(key, seen, over + serves)
        return seen

    def _close(self, taking: Taking) -> None:
        with self._lock:
            self._left.discard(taking)
        taking.close()


_current = _Thread()
atexit.register(lambda: _current.finish())


def _begin_anew() -> None:
    global _current
    _current = _Thread()


after_in_child(_begin_anew)
