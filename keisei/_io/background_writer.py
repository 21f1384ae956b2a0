"""A queue that leads to a file, and the writer behind it, which runs on the shared threads.

A call appends to the queue without a lock. A thread takes all that is queued at once, and so
numbers the records in the order of the queue. What makes this thread-safe:

- *No record is left lying.* The writer sets `asleep`, and then looks at the queue once more; a
  call appends, and then looks at `asleep`. One of the two sees the other.
- *No record comes after the end.* The writer sets `_ended`, and then takes what is queued for the
  last time; a call appends, and then looks. A record that came too late is an error to its caller.
- *A flush is for all that was queued before it.* It leaves a request. The writer takes the
  requests first and the records after them, and answers when these records are durable.

Waking the writer needs no lock (see `shared_threads`): a call from a signal handler cannot wait
for the one that it interrupts.
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

from keisei._io.backoff import Backoff, may_pass
from keisei._io.loop import on_loop
from keisei._io.shared_threads import SharedThreads, join_threads, on_shared_thread
from keisei.errors import quoted

RecordT = TypeVar("RecordT")

Policy = Literal["wait", "drop_oldest", "latest"]

logger = logging.getLogger("keisei")

LONGEST_WAIT = 10.0
_MANY = 4_096  # records that are written without gathering more, however many there is room for
_FIRST_PAUSE, _LONGEST_PAUSE = 0.05, 5.0
_LAST_PAUSE = 0.5  # between retries at the end
_SHARE = 0.9  # of the time for the end, in which what fails is tried again


class WriterError(RuntimeError):
    """What is queued cannot be written now (its cause is the system's error), or nothing may be."""


OnDurable = Callable[[WriterError | None], object]


class Counters(NamedTuple):
    """What has become of the records of a writer.

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
    """What a background writer writes to; one thread at a time calls it.

    Attributes:
        path: its path.
        error: why the last attempt to write has failed; ``None`` where it has not.
        written: how many records are written.
        pending: how many are taken and not written yet.
        bytes: how many bytes are written.
        dropped: how many it has taken, and given up or lost since.
    """

    path: str
    error: OSError | None
    written: int
    pending: int
    bytes: int
    dropped: int

    def add(self, records: list[RecordT], skipped: int) -> None:
        """Take records to write next, and how many were dropped before them."""
        ...

    def write(self) -> None:
        """Write what was taken; what fails is kept, and tried again at the next call."""
        ...


class BackgroundWriter(Generic[RecordT]):
    """A queue to a file, which the shared threads write from the first record on.

    Args:
        file: what is written to.
        delay: how long records are gathered, in seconds.
        capacity: how many may be queued.
        policy: what to do when that many are.
        on_written: called on a shared thread each time that records have been written.

    Attributes:
        queue: records as the file takes them; a call appends to it, after `relieve` where it is
            as long as `high`, and before `ring` where `asleep`.
        lock: held for moments, and re-entrant: a signal handler may log.
        over: whether it has ended, with all that was queued written or given up.
    """

    def __init__(
        self,
        file: Sink[RecordT],
        delay: float,
        capacity: int,
        policy: Policy,
        on_written: Callable[[], object] | None = None,
    ) -> None:
        self.queue: deque[RecordT] = deque()
        self.lock = threading.RLock()
        self.high = max(1, min(capacity // 2, _MANY))
        self.asleep = True
        self.over = False
        self._file, self._delay, self._capacity, self._policy = file, delay, capacity, policy
        self._on_written = on_written
        self._requests: deque[OnDurable] = deque()
        self._backoff = Backoff(_FIRST_PAUSE, _LONGEST_PAUSE)
        self._pressed = self._stalled = False
        self._closing = self._ended = self._forked = False
        self._give_up, self._said = 0.0, False
        self._finished = threading.Event()
        self._threads: SharedThreads | None = None
        self._taken = self._dropped = self._gap = self._lost = self._failures = 0

    @property
    def error(self) -> WriterError | None:
        """Why records cannot be written at present; ``None`` where they can."""
        exc = self._file.error
        return None if exc is None else self._refusal(exc)

    @property
    def started(self) -> bool:
        """Whether it has threads to leave, or anything that waits for one."""
        return self._threads is not None or bool(self.queue)

    @property
    def counters(self) -> Counters:
        """What has become of the records so far."""
        with self.lock:
            written, queued, lost = self._file.written, len(self.queue), self._file.dropped
            return Counters(
                logged=self._taken + queued + self._dropped,
                written=written,
                dropped=self._dropped + lost,
                queued=self._taken + queued - written - lost,
                bytes=self._file.bytes,
                errors=self._failures,
            )

    @property
    def kept(self) -> int:
        """How many records were taken and not given up at the end: no file has those."""
        return self.counters.logged - self._lost

    def request(self, callback: OnDurable) -> None:
        """Call a function, once, when all that is queued is durable, or cannot be written.

        Raises:
            WriterError: it is closed or a forked child's, or no thread can be started.
        """
        self.check_open()
        self._requests.append(callback)
        self.ring()
        if self._threads is None and self._file.error is not None:
            with suppress(ValueError):
                self._requests.remove(callback)
            raise self._refusal(self._file.error)

    def end(self, timeout: float | None) -> None:
        """Write what is queued, and end. Blocks; ending again, or in a fork, is no error.

        What cannot be written is tried again until the wait is nearly over, and then given up.

        Args:
            timeout: the longest wait, in seconds; what hangs goes on after it. ``None`` waits for
                what hangs as long as it takes, and tries but once.

        Raises:
            WriterError: records could not be written, and are lost.
            TimeoutError: it is not done yet.
        """
        if self._forked:
            return
        with self.lock:
            self._give_up = time.monotonic() + _SHARE * (timeout or 0.0)
            self._closing = True
            if self._threads is None and not self.queue and not self._requests:
                self._ended = True
                return
        with suppress(WriterError):  # it has ended already
            self.ring()
        with self.lock:
            if self._threads is None and not self.over:  # none can be started, but this can write
                self.serve()
        if self._threads is not None:
            if not self._finished.wait(timeout):
                path = quoted(self._file.path, 300)
                raise TimeoutError(f"{path} is not written after {timeout:g} s")
            self._threads.join()
        if self._lost and self._file.error is not None:
            raise self._refusal(self._file.error, f"{self._lost:,} rows are lost: ")

    def after_fork(self) -> None:
        """Be of no use in a forked child."""
        self._forked = self.asleep = True
        self.lock = threading.RLock()  # the parent's may have been held
        self.queue.clear()

    def check_open(self) -> None:
        """Refuse what comes after the end, or from a forked child.

        Raises:
            WriterError: it does.
        """
        if self._forked:
            path = quoted(self._file.path, 300)
            raise WriterError(f"a forked child cannot write to its parent's {path}")
        if self._closing:
            raise WriterError(f"{quoted(self._file.path, 300)} is closed")

    def _refusal(self, exc: OSError, what: str = "") -> WriterError:
        reason = exc.strerror or str(exc)
        error = WriterError(f"{what}{quoted(self._file.path, 300)} cannot be written: {reason}")
        error.__cause__ = exc
        return error

    def relieve(self) -> None:
        """Hurry, for the queue is long; where it is full, do as the policy says."""
        if not self._pressed:
            self._pressed = True
            self.ring()
        if self._policy == "wait":
            give_up = time.monotonic() + LONGEST_WAIT
            while len(self.queue) >= self._capacity:
                if not self._may_wait():
                    break
                if time.monotonic() > give_up:
                    self._stalled = True  # nobody waits again before something was written
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
        return not on_shared_thread() and not on_loop()  # the first: a callback that logs

    def ring(self) -> None:
        """Wake the writer: at once where somebody waits for it, else after the delay.

        Raises:
            WriterError: it has ended, or is another process's.
        """
        self.asleep = False
        if self._forked or self._ended:
            self.asleep = True
            self.check_open()
        threads = self._threads
        if threads is None:
            with self.lock:
                threads = self._threads or (None if self._ended else self._join())
        if threads is not None:
            threads.call(self, 0.0 if self._hurried() else self._delay)

    def _join(self) -> SharedThreads | None:
        try:
            self._threads = join_threads(self)
        except RuntimeError:  # the system has no thread left: the next call tries again
            self._threads, self.asleep = None, True
            self._failures += 1
            self._file.error = OSError(errno.EAGAIN, "no thread can be started")
        return self._threads

    def _hurried(self) -> bool:
        return bool(self._closing or self._requests or len(self.queue) >= self.high)

    def serve(self) -> float | None:
        """Write what is queued; return when to go on, in seconds, or ``None``: at the next call."""
        if self._closing:
            self.asleep = self._ended = True
            if not self._write():
                left = self._give_up - time.monotonic()
                if left > 0 and self._file.error is not None and may_pass(self._file.error):
                    self._say_once(left)
                    return min(self._backoff.next(), _LAST_PAUSE, left)
                with self.lock:
                    self._lost = len(self.queue) + self._file.pending
                    self._taken -= self._file.pending
                    self._dropped += self._lost
                    self.queue.clear()
            self.over = True
            return None
        if not self._write():
            return self._backoff.next()
        self._backoff.reset()
        self.asleep = True
        if not self.queue and not self._requests and not self._closing:
            return None
        self.asleep = False
        return 0.0 if self._hurried() else self._delay

    def _say_once(self, left: float) -> None:
        """Log that the end waits for the disk."""
        if not self._said:
            self._said = True
            text = "%s; the end of the session tries again for %.0f s"
            logger.warning(text, self.error, left)

    def left(self) -> None:
        """Wake who waits for the end."""
        self._finished.set()

    def _write(self) -> bool:
        """Write what is queued, and answer who has asked for it before."""
        requests = [self._requests.popleft() for _ in range(len(self._requests))]
        error: WriterError | None = None
        written = self._file.written
        try:
            self._file.write()  # what an earlier error has left
            self._take()
            self._file.write()
            self._stalled = False
        except Exception as exc:  # noqa: BLE001 - it would take all who wait with it
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
        """Take all queued records."""
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
