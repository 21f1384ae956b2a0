"""A few threads that many members share: each is served when it is due, and none waits for a hang.

One thread is the clock: it knows when each member is due, and does nothing else. Workers serve
the members that are due, one after the other. One worker is enough while nothing hangs; where a
member that is due has waited for 0.1 s, one more is started. It ends when there is nothing to do.
Two threads for a thousand members also spare the event loop, which competes with every thread
that wakes for the GIL.

Calls come from any thread and from signal handlers. They append to a deque and release a bare
lock, and wait for nobody: what the clock knows, it alone changes.
"""

from __future__ import annotations

import threading
from collections import deque
from contextlib import suppress
from time import monotonic
from typing import Protocol

from keisei._io.forks import after_in_child

_NEVER = float("inf")
_TOGETHER = 0.02  # seconds: what is due so soon is served with what is due now
_PATIENCE = 0.1  # seconds that a member waits for a busy worker
_MOST_BUSY = 4  # workers, as long as they get on: more would only compete for the GIL


class Member(Protocol):
    """Something that is served by the shared threads, never by two at once.

    Attributes:
        over: whether it has been served for the last time.
    """

    over: bool

    def serve(self) -> float | None:
        """Do what is due; return after how many seconds more will be, or ``None``: when called."""
        ...

    def left(self) -> None:
        """Learn that it has left the threads, after it was over."""
        ...


class Bell:
    """Wakes the one thread that waits for it. Ringing needs no lock: a signal handler may do it."""

    def __init__(self) -> None:
        self._lock = threading.Lock()
        self._lock.acquire()

    def ring(self) -> None:
        """Wake who waits, or who waits next."""
        with suppress(RuntimeError):  # it has been rung already
            self._lock.release()

    def wait(self, timeout: float) -> None:
        """Wait until it is rung, at most so many seconds."""
        self._lock.acquire(timeout=-1 if timeout == _NEVER else max(0.0, timeout))


class SharedThreads:
    """The threads of the members that are there at a time; they end with the last one.

    Attributes:
        over: whether the last member has left.
    """

    def __init__(self) -> None:
        self.over = False
        self._members: set[Member] = set()
        self._threads: set[threading.Thread] = set()
        self._clock: threading.Thread | None = None
        # When a member is due, and whether that is what a worker says who has served it.
        self._calls: deque[tuple[float, Member, bool]] = deque()
        self._due: dict[Member, float] = {}
        self._busy: dict[Member, float] = {}  # those that are served, and when they are due again
        self._ready: deque[tuple[float, Member]] = deque()
        self._wake, self._work = Bell(), Bell()
        self._wakes_at = _NEVER
        self._idle = threading.Lock()  # held by the one worker that waits for work
        self._workers = 0
        self._begun = 0.0

    def call(self, member: Member, delay: float) -> None:
        """Serve a member once, within so many seconds; thread-safe, also in a signal handler."""
        due = monotonic() + delay
        self._calls.append((due, member, False))
        if due < self._wakes_at:
            self._wake.ring()

    def add(self, member: Member) -> None:
        """Take a member; the caller holds the lock of all that join and leave.

        Raises:
            RuntimeError: no thread can be started.
        """
        self._members.add(member)
        if self._clock is None:
            self._clock = threading.Thread(
                target=self._keep_time, name="keisei-writers", daemon=True
            )  # first: a signal handler that logs now must not start another one
            self._threads.add(self._clock)
            try:
                self._clock.start()
            except RuntimeError:
                self._threads.clear()
                self._members.discard(member)
                self._clock = None
                raise

    def join(self) -> None:
        """Wait for the threads to end where the last member has left; they have nothing to do."""
        if self.over and not on_shared_thread():
            with _joining:
                threads = tuple(self._threads)
            for thread in threads:
                thread.join(1.0)

    def _keep_time(self) -> None:
        while not self.over:
            now = monotonic()
            while self._calls:
                self._note(*self._calls.popleft())
            for member in [m for m, due in self._due.items() if due <= now + _TOGETHER]:
                del self._due[member]
                self._busy[member] = _NEVER
                self._ready.append((now, member))
            self._find_worker(now)
            wakes_at = min(self._due.values(), default=_NEVER)
            if self._ready:
                wakes_at = min(wakes_at, now + _PATIENCE)
            self._wakes_at = wakes_at  # then look again: who calls appends, and then looks at it
            if not self._calls:
                self._wake.wait(wakes_at - monotonic())

    def _note(self, due: float, member: Member, served: bool) -> None:
        if served:
            due = min(due, self._busy.pop(member))
        if member in self._busy:
            self._busy[member] = min(due, self._busy[member])
        elif due < _NEVER:
            self._due[member] = min(due, self._due.get(member, _NEVER))

    def _find_worker(self, now: float) -> None:
        """See that somebody serves what is ready."""
        if not self._ready:
            return
        self._work.ring()
        if self._workers and self._idle.locked():
            return
        try:
            waits = now - self._ready[0][0]
        except IndexError:  # it has just been taken
            return
        hung = now - self._begun > _PATIENCE
        if not self._workers or (waits > _PATIENCE and (hung or self._workers < _MOST_BUSY)):
            worker = threading.Thread(target=self._serve, name="keisei-writer", daemon=True)
            with _joining:  # without the GIL a worker that ends would be counted for ever
                self._threads.add(worker)
                self._workers += 1
            try:
                worker.start()
            except RuntimeError:  # the system has no thread left: one has to do
                with _joining:
                    self._threads.discard(worker)
                    self._workers -= 1
                while self._ready and not self._workers:
                    self._serve_next()

    def _serve(self) -> None:
        while not self.over:
            while self._ready:
                self._serve_next()
            if not self._idle.acquire(blocking=False):  # another one waits: one is enough
                break
            try:
                self._work.wait(_NEVER)
            finally:
                self._idle.release()
        with _joining:
            self._workers -= 1
            if not self.over:
                self._threads.discard(threading.current_thread())

    def _serve_next(self) -> None:
        try:
            _, member = self._ready.popleft()
        except IndexError:
            return
        self._begun = monotonic()
        pause = member.serve()
        if member.over:
            self._leave(member)
        due = _NEVER if pause is None else monotonic() + pause
        self._calls.append((due, member, True))
        if min(due, self._busy.get(member, _NEVER)) < self._wakes_at:
            self._wake.ring()

    def _leave(self, member: Member) -> None:
        with _joining:
            self._members.discard(member)
            self.over = not self._members
        if self.over:
            self._wake.ring()
            self._work.ring()
        member.left()


_joining = threading.RLock()  # re-entrant: a signal handler may log
_current = SharedThreads()


def join_threads(member: Member) -> SharedThreads:
    """Return the threads that serve a member from now on, until it is over.

    Raises:
        RuntimeError: no thread can be started.
    """
    global _current
    with _joining:
        if _current.over:
            _current = SharedThreads()
        threads = _current
        threads.add(member)
        return threads


def on_shared_thread() -> bool:
    """Return whether this is one of the threads that serve."""
    return threading.current_thread().name in ("keisei-writers", "keisei-writer")


def _after_fork() -> None:
    global _current, _joining
    _current, _joining = SharedThreads(), threading.RLock()


after_in_child(_after_fork)
