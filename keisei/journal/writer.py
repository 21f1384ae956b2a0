"""The one writer of a run's journal: a call packs its row, queues it, and never sees the disk."""

from __future__ import annotations

import os
import sys
import threading
import weakref
from collections.abc import Callable, Collection, Mapping
from contextlib import suppress
from time import time
from typing import Literal, get_args

from keisei._io.background_writer import BackgroundWriter, Counters, Policy, WriterError
from keisei._io.forks import after_in_child
from keisei._io.held import HeldDirectory
from keisei.errors import JournalError, quoted
from keisei.journal.attempt import Left
from keisei.journal.decoding import point_in
from keisei.journal.file import FEW, JournalFile
from keisei.journal.format import (
    LARGEST,
    STORED,
    TAGS,
    Record,
    dump,
    event_text,
    file_name,
    flatten,
    is_row,
    pack_event,
)
from keisei.journal.records import Position, is_system
from keisei.journal.unread import Losses, Queued, UnreadRow
from keisei.journal.unredacted import UnredactedEvent
from keisei.journal.values import EXACT, Unread, step_or_unread

Durability = Literal["buffered", "line", "fsync"]
OnDurable = Callable[[JournalError | None], object]
_MOST_SHAPES, _MOST_NAMES = 4096, 1 << 18  # that are remembered
_MOST_KEYS = 1_000_000
_NAME = frozenset([str])

# An id, the keys, and the tags of a row of floats with a step and without one.
_Shape = tuple[int, tuple[str, ...], tuple[bytes, bytes]]
_NO_SHAPE: _Shape = (0, (), (b"?", b"?"))


class Journal:
    """A run's own record of its metrics and events, in one file per attempt.

    Nothing touches the disk before the first row, and then only a writer's thread does. A write
    that fails is tried again with a growing backoff, in order and without the callers' noticing;
    `error` and `flush` show it. A child that was forked from this process cannot write.

    Args:
        directory: the run's directory, or its path.
        attempt: the attempt's number; there must be no journal of it yet.
        durability: what a row survives. ``buffered``: it is handed to the system within
            ``max_delay``, or when `flush` returns, and from then on survives the end of the
            process by any signal, but not the loss of power. ``line``: the same, at once: rows
            are written as soon as a thread gets to run. ``fsync``: rows are gathered for
            ``max_delay`` and forced to the disk together; from then on, or when `flush` returns,
            they survive the loss of power too.
        max_delay: the longest that rows are gathered, in seconds.
        capacity: how many rows may be queued; this bounds the memory.
        policy: what a call does when that many are: ``wait`` for room, at most 10 s, and never on
            a thread whose event loop runs nor while the disk refuses: there the oldest row is
            dropped; ``drop_oldest`` drops the oldest row; ``latest`` drops all queued rows. Rows
            that are dropped are counted, and leave a gap in the sequence numbers.
        on_written: called, with nothing, each time that rows have been written, before a `flush`
            of them returns. It is called on a writer's thread, must be quick, and must not
            flush.
        part: the part of the run whose journal it is; ``None`` for the owner's own.
        left: what an earlier process has left of it, where it goes on (see `take_up`).

    Raises:
        ValueError: an argument makes no sense.
    """

    def __init__(
        self,
        directory: str | HeldDirectory,
        attempt: int,
        *,
        durability: Durability = "buffered",
        max_delay: float = 0.2,
        capacity: int = 262_144,
        policy: Policy = "wait",
        on_written: Callable[[], object] | None = None,
        part: str | None = None,
        left: Left | None = None,
    ) -> None:
        if durability not in get_args(Durability):
            raise ValueError(f"durability must be one of {get_args(Durability)}: {durability!r}")
        if policy not in get_args(Policy):
            raise ValueError(f"policy must be one of {get_args(Policy)}: {policy!r}")
        if attempt < 1 or capacity < 1 or not 0 <= max_delay <= 3600:
            raise ValueError("attempt and capacity begin at 1, max_delay at 0 (and ends at 3600)")
        self.attempt = attempt
        self.durability = durability
        self.policy = policy
        home = directory if isinstance(directory, HeldDirectory) else HeldDirectory(directory)
        self.path = os.path.join(home.path, file_name(attempt, part))
        sync = durability == "fsync"
        file = JournalFile(home, attempt, self._known_shapes, sync=sync, part=part, left=left)
        delay = 0.0 if durability == "line" else max_delay
        self._writer = BackgroundWriter[Queued](file, delay, capacity, policy, on_written)
        self._new_shapes, self._file = file.shapes, file
        self._lost = Losses(self.path)
        self._queue, self._high = self._writer.queue, self._writer.high
        self._shapes: dict[tuple[str, ...], _Shape] = {}
        self._shape = _NO_SHAPE
        self._first, self._shape_count = (left.records, left.shapes) if left else (0, 0)
        self._name_count, self._has_rows = 0, False
        _journals.add(self)

    def __enter__(self) -> Journal:
        return self

    def __exit__(self, *exc: object) -> None:
        self.close()

    @property
    def error(self) -> JournalError | None:
        """Why rows cannot be written at present; ``None`` where they can."""
        exc = self._writer.error
        return None if exc is None else self._error(exc)

    @property
    def started(self) -> bool:
        """Whether there is anything that `close` could have to wait for."""
        return self._writer.started

    @property
    def counters(self) -> Counters:
        """What has become of the rows so far."""
        return self._writer.counters

    @property
    def kept(self) -> int:
        """How many rows were logged and not given up at the end: no file has those."""
        return self._writer.kept

    @property
    def has_rows(self) -> bool:
        """Whether a row was logged by the training: neither events alone, nor `system/...`."""
        return self._has_rows

    def position(self) -> Position:
        """Return the position behind the last record that was logged by now; never waits.

        Records are numbered in the order of their calls, dropped ones too: so it is known before
        they are written. Before the first one it is the position behind all earlier attempts.
        """
        return Position(self.attempt, self._first + self._writer.counters.logged - 1)

    def first_and_last(self) -> tuple[tuple[float, int] | None, tuple[float, int] | None]:
        """Return time and step of the first row and of the last one; never waits.

        Returns:
            ``None`` for one where none of the few records there is a row with a step.
        """
        first = self._file.first or self._queued(range(FEW))
        return point_in(first), point_in([*self._queued(range(-1, -FEW, -1)), *self._file.last])

    def _queued(self, places: range) -> list[Record]:
        """Return the rows in these places of the queue, from which the writer takes meanwhile."""
        found: list[Record] = []
        with suppress(IndexError):
            for place in places:
                one = self._queue[place]
                if isinstance(one, bytes) and is_row(one):
                    found.append(one)
        return found

    def log_metrics(self, metrics: Mapping[str, object], step: int | None = None) -> None:
        """Log one row. May be called from any thread and on the loop; the disk is not touched.

        Args:
            metrics: numbers by name: bool, int, float, and what numpy, jax, torch and their like
                have for one; nested mappings are joined with `/`. It is copied. A number that may
                still be under computation (of jax, or on a GPU) is read by the writer's thread;
                one that cannot be read then is NaN, with one warning.
            step: the training step, if the row has one: a whole number.

        Raises:
            TypeError: a value is no number, or a step not whole; the message names it.
            JournalError: the journal is closed, or this is a forked child.
        """
        shape, keys, tags = self._shape
        row = b""
        try:
            if tuple(metrics) == keys:
                row = dump([shape, time(), *metrics.values(), step], 2)[STORED]
        except (ValueError, TypeError, AttributeError):  # something that is no builtin
            pass
        # The tags are every ninth byte, as long as the one before was that of a float.
        queued = row if row[TAGS] in tags else self._pack(metrics, step)
        writer, queue = self._writer, self._queue
        try:
            if len(queue) >= self._high:
                writer.relieve()
            queue.append(queued)
            if writer.asleep:
                writer.ring()
        except WriterError as exc:
            raise self._error(exc) from exc.__cause__

    def log_event(self, name: str, data: object = None, *, redact: bool = True) -> None:
        """Log what is not a number. It shares the queue and its order with the rows.

        Args:
            name: the kind of event.
            data: what JSON can hold.
            redact: whether the writer hides secrets in it.

        Raises:
            TypeError: the data is not JSON's.
            JournalError: the journal is closed, or this is a forked child.
        """
        writer = self._writer
        try:
            writer.check_open()
            text = event_text(time(), name, data)
            event = UnredactedEvent(text) if redact else pack_event(text)
            if len(writer.queue) >= writer.high:
                writer.relieve()
            writer.queue.append(event)
            if writer.asleep:
                writer.ring()
        except WriterError as exc:
            raise self._error(exc) from exc.__cause__

    def on_durable(self, callback: OnDurable) -> None:
        """Call a function, once, when all that was logged before is durable.

        Args:
            callback: gets ``None``, or why it is not durable yet: the rows are kept and tried
                again. It is called on a writer's thread, must be quick, and must not flush.

        Raises:
            JournalError: the journal is closed, or this is a forked child.
        """

        def answer(exc: WriterError | None) -> None:
            callback(None if exc is None else self._error(exc))

        try:
            self._writer.request(answer)
        except WriterError as exc:
            raise self._error(exc) from exc.__cause__

    def flush(self, timeout: float | None = None) -> None:
        """Wait until all that was logged before is durable. Not for the loop: it blocks.

        Args:
            timeout: the longest wait, in seconds.

        Raises:
            JournalError: it cannot be written now, or the journal is closed, or a forked child's.
            TimeoutError: it is not durable yet.
        """
        outcome: list[JournalError | None] = []
        answered = threading.Event()

        def answer(error: JournalError | None) -> None:
            outcome.append(error)
            answered.set()

        self.on_durable(answer)
        if not answered.wait(timeout):
            raise TimeoutError(f"{quoted(self.path, 300)} is not durable after {timeout:g} s")
        if outcome[0] is not None:
            raise outcome[0]

    def close(self, timeout: float | None = None) -> None:
        """Write what is queued, and end. Blocks; calling it again, or in a fork, is no error.

        Args:
            timeout: the longest wait, in seconds; the writing goes on after it.

        Raises:
            JournalError: rows could not be written, and are lost.
            TimeoutError: it is not done yet.
        """
        try:
            self._writer.end(timeout)
        except WriterError as exc:
            raise self._error(exc) from exc.__cause__
        finally:
            self._shape = _NO_SHAPE  # from now on every call takes the slow way, and is refused

    def _pack(self, metrics: Mapping[str, object], step: object) -> Queued:
        """Make the row of a call in which something is new, nested, no float, or not allowed."""
        self._check_open()
        if not isinstance(metrics, Mapping):
            raise TypeError(
                "metrics must be a mapping of names to numbers, such as {'loss': 0.5}, not "
                f"{type(metrics).__name__}"
            )
        when = step_or_unread(step)
        keys = tuple(metrics) if type(metrics) is dict else ()
        values: Collection[object] = metrics.values()
        if not (
            type(metrics) is dict
            and EXACT.issuperset(map(type, values))
            and (keys in self._shapes or _NAME.issuperset(map(type, keys)))
        ):
            flat = flatten(metrics)
            keys, values = tuple(flat), flat.values()
        shape = self._shapes.get(keys) or self._add_shape(keys)
        if Unread in map(type, values) or type(when) is Unread:
            self._shape = _NO_SHAPE
            return UnreadRow(shape[0], keys, list(values), when, self._lost)
        row = dump([shape[0], time(), *values, when], 2)[STORED]
        if len(row) > LARGEST:
            raise TypeError(f"a row of {len(row):,} bytes is too large")
        with self._writer.lock:
            self._check_open()
            if "jax" not in sys.modules:  # `dump` would wait for what it computes on the CPU
                self._shape = shape
        return row

    def _check_open(self) -> None:
        try:
            self._writer.check_open()
        except WriterError as exc:
            raise self._error(exc) from None

    def _error(self, exc: WriterError) -> JournalError:
        error = JournalError(str(exc), path=self.path)
        error.__cause__ = exc.__cause__
        return error

    def _add_shape(self, keys: tuple[str, ...]) -> _Shape:
        if len(keys) > _MOST_KEYS:
            raise TypeError(f"a row of {len(keys):,} metrics is too large")
        floats = b"g" * (len(keys) + 1)
        with self._writer.lock:
            self._name_count += len(keys)
            if len(self._shapes) >= _MOST_SHAPES or self._name_count > _MOST_NAMES:
                self._shapes.clear()  # whoever makes up names gets new shapes, not more memory
                self._name_count = len(keys)
            shape = (self._shape_count, keys, (floats + b"i", floats + b"N"))
            self._shape_count += 1
            self._has_rows = self._has_rows or not is_system(keys)
            self._new_shapes.append(shape[:2])  # before any row of it is in the queue
            self._shapes[keys] = shape
        return shape

    def _known_shapes(self) -> list[tuple[int, tuple[str, ...]]]:
        with self._writer.lock:
            return [shape[:2] for shape in self._shapes.values()]


_journals: weakref.WeakSet[Journal] = weakref.WeakSet()


def _after_fork() -> None:
    for journal in list(_journals):
        journal._shape = _NO_SHAPE
        journal._writer.after_fork()


after_in_child(_after_fork)
