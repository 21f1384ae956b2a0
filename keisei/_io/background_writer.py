"""The journal's own thread, and the queue that leads to it.

A call appends to the queue without a lock. The thread takes all that is queued at once, and so
gives the sequence numbers in the order of the queue. What makes this safe:

- *No row is left lying.* The thread says that it will sleep (`asleep`), and then looks at the
  queue once more; a call appends, and then looks at `asleep`. One of the two sees the other.
- *No row comes after the end.* The thread sets `_ended`, and then takes what is queued for the
  last time; a call appends, and then looks. A row that came too late is an error to its caller.
- *A flush is for all that was logged before it.* It leaves a request. The thread takes the
  requests first and the rows after them, and answers when these rows are durable.

The bell that wakes the thread is a bare lock that is released, so that ringing needs no lock
itself: a call from a signal handler cannot wait for the one that it interrupts.
"""

from __future__ import annotations

import errno
import logging
import threading
import time
from collections import deque
from collections.abc import Callable
from contextlib import suppress
from typing import Generic, Literal, NamedTuple, Protocol, TypeVar

from anyio.lowlevel import current_token

from keisei.errors import JournalError, quoted

RecordT = TypeVar("RecordT")

Policy = Literal["wait", "drop_oldest", "latest"]
OnDurable = Callable[[JournalError | None], object]

logger = logging.getLogger("keisei")

LONGEST_WAIT = 10.0
_MANY = 4_096  # records that are written without gathering more, however many there is room for
_FIRST_PAUSE, _LONGEST_PAUSE = 0.05, 5.0


class Counters(NamedTuple):
    """What has become of the rows and events of a journal.

    Attributes:
        logged: how many were taken from callers.
        written: how many were handed to the system (with ``fsync``: to the disk).
        dropped: how many were given up because the queue was full, or at the end.
        queued: how many wait for one of the two.
        bytes: the bytes written.
        errors: how many times the disk refused.
    """

    logged: int
    written: int
    dropped: int
    queued: int
    bytes: int
    errors: int


class Sink(Protocol[RecordT]):
    """What a lane's thread writes to; no other thread calls it.

    Attributes:
        path: its path.
        error: why the last attempt to write has failed; ``None`` where it has not.
        written: how many records are written.
        pending: how many are taken and not written yet.
        bytes: how many bytes are written.
    """

    path: str
    error: OSError | None
    written: int
    pending: int
    bytes: int

    def add(self, records: list[RecordT], skipped: int) -> None:
        """Take records to write next, and how many were dropped before them."""
        ...

    def write(self) -> None:
        """Write what was taken; what fails is kept, and tried again at the next call."""
        ...

    def close(self) -> None:
        """Give back what is held open."""
        ...


class Lane(Generic[RecordT]):
    """The way of rows to the disk: a queue, and a daemon thread that starts with the first row.

    Args:
        file: what the thread writes to.
        delay: how long rows are gathered, in seconds.
        capacity: how many may be queued.
        policy: what to do when that many are.
        on_written: called on the thread each time that rows have been written.
        name: the thread's name.

    Attributes:
        queue: rows and events as the file takes them; a call appends to it, after `relieve` where
            it is as long as `high`, and before `ring` where `asleep`.
        lock: held for moments, and re-entrant: a signal handler may log.
    """

    def __init__(
        self,
        file: Sink[RecordT],
        delay: float,
        capacity: int,
        policy: Policy,
        on_written: Callable[[], object] | None = None,
        name: str = "keisei-journal",
    ) -> None:
        self.queue: deque[RecordT] = deque()
        self.lock = threading.RLock()
        self.high = max(1, min(capacity // 2, _MANY))
        self.asleep = True
        self._file, self._delay, self._capacity, self._policy = file, delay, capacity, policy
        self._on_written = on_written
        self._name = name
        self._requests: deque[OnDurable] = deque()
        self._bell = threading.Lock()
        self._bell.acquire()
        self._pressed = self._stalled = False
        self._closing = self._ended = self._forked = False
        self._thread: threading.Thread | None = None
        self._taken = self._dropped = self._gap = self._lost = self._failures = 0

    @property
    def error(self) -> JournalError | None:
        """Why rows cannot be written at present; ``None`` where they can."""
        exc = self._file.error
        return None if exc is None else self._refusal(exc)

    @property
    def started(self) -> bool:
        """Whether there is a thread to end, or anything that waits for one."""
        return self._thread is not None or bool(self.queue)

    @property
    def counters(self) -> Counters:
        """What has become of the rows so far."""
        with self.lock:
            written, queued = self._file.written, len(self.queue)
            return Counters(
                logged=self._taken + queued + self._dropped,
                written=written,
                dropped=self._dropped,
                queued=self._taken + queued - written,
                bytes=self._file.bytes,
                errors=self._failures,
            )

    def request(self, callback: OnDurable) -> None:
        """Have a function called when all that is queued is durable, or cannot be written."""
        self.check_open()
        self._requests.append(callback)
        self.ring()
        if self._thread is None and self._file.error is not None:
            with suppress(ValueError):
                self._requests.remove(callback)
            raise self._refusal(self._file.error)

    def end(self, timeout: float | None) -> None:
        """Write what is queued, and end; see `Journal.close`."""
        if self._forked:
            return
        with self.lock:
            self._closing = True
            if self._thread is None and not self.queue and not self._requests:
                self._ended = True
                return
        with suppress(JournalError):  # it has ended already
            self.ring()
        if self._thread is None:
            cause = self._file.error or OSError(errno.EAGAIN, "no thread can be started")
            raise self._refusal(cause, f"{len(self.queue):,} rows are lost: ")
        self._thread.join(timeout)
        if self._thread.is_alive():
            path = quoted(self._file.path, 300)
            raise TimeoutError(f"{path} is not written after {timeout:g} s")
        if self._lost and self._file.error is not None:
            raise self._refusal(self._file.error, f"{self._lost:,} rows are lost: ")

    def after_fork(self) -> None:
        """Be of no use in a forked child."""
        self._forked = self.asleep = True
        self.lock = threading.RLock()  # the parent's may have been held
        self.queue.clear()
        self._file.close()

    def check_open(self) -> None:
        """Refuse what comes after the end, or from a forked child.

        Raises:
            JournalError: it does.
        """
        path = self._file.path
        if self._forked:
            raise JournalError("a forked child cannot write its parent's journal", path=path)
        if self._closing:
            raise JournalError(f"{quoted(path, 300)} is closed", path=path)

    def _refusal(self, exc: OSError, what: str = "") -> JournalError:
        reason = exc.strerror or str(exc)
        text = f"{what}{quoted(self._file.path, 300)} cannot be written: {reason}"
        error = JournalError(text, path=self._file.path)
        error.__cause__ = exc
        return error

    def relieve(self) -> None:
        """Wake the thread, for the queue is long; where it is full, do as the policy says."""
        if not self._pressed:
            self._pressed = True
            self.ring()
        if self._policy == "wait":
            give_up = time.monotonic() + LONGEST_WAIT
            while len(self.queue) >= self._capacity:
                if not self._may_wait():
                    break
                if time.monotonic() > give_up:
                    self._stalled = True  # let nobody wait again before something was written
                time.sleep(0.0005)
            else:
                return  # where other threads have taken the room, the queue is a bit longer
        with self.lock:
            while len(self.queue) >= self._capacity:
                many = len(self.queue) if self._policy == "latest" else 1
                for _ in range(many):
                    self.queue.popleft()
                self._dropped += many

    def _may_wait(self) -> bool:
        if self._stalled or self._closing or self._file.error is not None:
            return False
        if threading.current_thread() is self._thread:  # a callback that logs
            return False
        try:
            current_token()
        except RuntimeError:
            return True
        return False  # on an event loop

    def ring(self) -> None:
        """Wake the thread, or start it.

        Raises:
            JournalError: it has ended, or is another process's.
        """
        self.asleep = False
        if self._forked or self._ended:
            self.asleep = True
            self.check_open()
        if self._thread is None:
            with self.lock:
                if self._thread is None:
                    self._start()
        with suppress(RuntimeError):  # it has been rung already
            self._bell.release()

    def _start(self) -> None:
        thread = threading.Thread(target=self._run, name=self._name, daemon=True)
        self._thread = thread  # first: a signal handler that logs must not start another one
        try:
            thread.start()
        except RuntimeError:  # the system has no thread left: the next call tries again
            self._thread = None
            self.asleep = True
            self._failures += 1
            self._file.error = OSError(errno.EAGAIN, "no thread can be started")

    def _run(self) -> None:
        pause = 0.0
        while not self._closing:
            if pause:
                self._bell.acquire(timeout=pause)
            else:
                self.asleep = True
                if not self.queue and not self._requests:
                    self._bell.acquire()
                self.asleep = False
                if self._delay and not self._hurried():
                    self._bell.acquire(timeout=self._delay)
            done = self._serve()
            pause = 0.0 if done else min(max(pause * 2, _FIRST_PAUSE), _LONGEST_PAUSE)
        self.asleep = self._ended = True
        if not self._serve():
            with self.lock:
                self._lost = len(self.queue) + self._file.pending
                self._taken -= self._file.pending
                self._dropped += self._lost
                self.queue.clear()
        self._file.close()

    def _hurried(self) -> bool:
        return bool(self._closing or self._requests or len(self.queue) >= self.high)

    def _serve(self) -> bool:
        """Write what is queued, and answer who has asked for it before."""
        requests = [self._requests.popleft() for _ in range(len(self._requests))]
        error: JournalError | None = None
        written = self._file.written
        try:
            self._file.write()  # what an earlier error has left
            self._take()
            self._file.write()
            self._stalled = False
        except Exception as exc:  # noqa: BLE001 - a thread that ends would take all waiters with it
            self._failures += 1
            known = exc if isinstance(exc, OSError) else OSError(errno.EIO, repr(exc))
            self._file.error = known
            error = self._refusal(known)
        if self._on_written is not None and self._file.written > written:
            _call(self._on_written)
        for request in requests:
            _call(request, error)
        return error is None

    def _take(self) -> None:
        """Take all queued rows."""
        with self.lock:
            records = [self.queue.popleft() for _ in range(len(self.queue))]
            skipped, self._gap = self._dropped - self._gap, self._dropped
            self._taken += len(records)
            self._pressed = False
        self._file.add(records, skipped)


def _call(function: Callable[..., object], *args: object) -> None:
    """Call a caller's own function, which must not end the thread."""
    try:
        function(*args)
    except Exception:
        logger.warning("a callback of the journal has raised", exc_info=True)
