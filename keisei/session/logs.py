"""A session's part of the user's own logging: lines for `training.log` and `evaluation.log`.

A call queues, and a background writer does the rest, as the journal's does: it hides secrets,
escapes, and appends all that came within `DELAY` at once, forced to the disk. A disk that refuses
delays the lines, which are kept and tried again, as many as the queue holds.
"""

from __future__ import annotations

import copy
import logging
import os
import threading
import time
import weakref
from collections import Counter
from contextlib import suppress
from traceback import TracebackException

import anyio

from keisei._io.background_writer import BackgroundWriter, OnDurable, WriterError
from keisei._io.files import append_whole
from keisei._io.forks import after_in_child
from keisei._io.held import HeldDirectory
from keisei._io.loop import calling_soon, on_loop
from keisei._io.shared_threads import on_shared_thread
from keisei._io.switching import yield_gil
from keisei._log import logger
from keisei._text import one_line
from keisei.redaction import secret_values
from keisei.run.layout import EVALUATION_LOG, TRAINING_LOG, log_file
from keisei.session import evaluation_log
from keisei.session.context import current
from keisei.session.log_format import CUT, LONGEST, Item, Raw, Tail, formatted

DELAY = 0.2  # seconds that lines are gathered: a crash loses at most what is younger
CAPACITY = 65_536  # lines that may wait
_SHORT, _MOST_LONG = 2048, 1000  # where so many lines wait, others are cut to this: for the memory
_BREATH = 16
_CLOSE_TIMEOUT = 2.0


class LogFiles:
    """The two log files of a session, as their background writer has them.

    Args:
        home: the run's directory.
        run_name: the run's name.
        part: the part of the run whose logs these are; ``None`` for the owner's own.

    Attributes:
        path: the run's directory.
        error: why the last attempt to write has failed; ``None`` where it has not.
        written: how many lines and records are written.
        pending: how many are taken and not written yet.
        bytes: how many bytes are written.
        dropped: how many were given up because that many were pending.
        cuts: whether evaluations that a resume has left behind are to be moved away.
    """

    def __init__(self, home: HeldDirectory, run_name: str, part: str | None) -> None:
        self.path, self._home, self._run_name, self._part = home.path, home, run_name, part
        self.error: OSError | None = None
        self.written = self.pending = self.bytes = self.dropped = 0
        self._fresh = False
        self._raw: list[Item] = []
        self._left: dict[str, list[bytes]] = {TRAINING_LOG: [], EVALUATION_LOG: []}
        self._counts = Counter[str]()
        self.cuts = False

    def add(self, records: list[Item], skipped: int) -> None:
        """Take lines and records to write next, and how many were dropped before them."""
        self._fresh = True
        excess = max(0, self.pending + len(records) - CAPACITY)
        self.dropped += excess
        if skipped + excess:
            gap = f"{skipped + excess:,} lines before this were dropped"
            self._left[TRAINING_LOG].append(formatted((TRAINING_LOG, time.time(), gap, []), ()))
        self._raw += records[excess:]
        self.pending += len(records) - excess

    def write(self) -> None:
        """Write what was taken, with what an earlier error has left.

        Raises:
            OSError: it is to be tried again.
        """
        if not self._fresh:  # before the queue was looked at: one failure must not keep it full
            return
        self._fresh = False
        if self._raw:
            known = secret_values(os.environ)
            for number, item in enumerate(self._raw):
                self._left[item[0]].append(formatted(item, known))
                self._counts[item[0]] += 1
                if number % _BREATH == 0:
                    yield_gil()
            self._raw.clear()
        error: OSError | None = None
        for name, lines in self._left.items():
            if lines:
                try:
                    self._append(name, lines)
                except OSError as exc:
                    error = error or exc
        if self.cuts and error is None:
            try:
                with self._home.entered() as directory:
                    evaluation_log.cut(directory, self._part)
                self.cuts = False
            except OSError as exc:
                error = exc
        if error is None:
            self.error = None
            return
        if self.error is None:
            self.error = error  # first: what is said of it may be a line itself
            logger.warning(
                "lines of run %s cannot be written now, and are kept: %s", self._run_name, error
            )
        raise error

    def _append(self, name: str, lines: list[bytes]) -> None:
        data = b"".join(lines)
        with self._home.entered() as directory:
            append_whole(directory, log_file(name, self._part), data)
        self.bytes += len(data)
        many = self._counts.pop(name, 0)
        self.written += many
        self.pending -= many
        lines.clear()


_live: weakref.WeakSet[LogHandler] = weakref.WeakSet()
after_in_child(_live.clear)


class LogHandler(logging.Handler):
    """Writes records into a session's `training.log`, and never makes their logger wait.

    It takes the records that are emitted where its session is the current one; those that are
    emitted where none is only while no other session has a handler. After the session's end, and
    in a forked child, it does nothing. A formatter that is set formats what comes after the time;
    tracebacks follow in lines of their own. Secrets are hidden unless `record.redact` is `False`.
    """

    def __init__(self, logs: Logs) -> None:
        super().__init__()
        self._logs = logs
        self._closed = False
        _live.add(self)

    def handle(self, record: logging.LogRecord) -> bool:
        """Queue a record that passes the filters, without the lock that handlers have."""
        kept: bool | logging.LogRecord = self.filter(record)
        if kept:
            self.emit(record if kept is True else kept)
        return bool(kept)

    def emit(self, record: logging.LogRecord) -> None:
        """Format a record and queue it; nothing is raised, and nothing is waited for."""
        logs = self._logs
        if self._closed or not logs.open:
            return
        owner = current()
        if owner is not logs and (owner is not None or len(_live) > 1):
            return
        try:
            text = self._text(record)[:CUT]
        except Exception:  # noqa: BLE001 - the user's own objects and formatters
            text = (
                f"{record.levelname} {record.name}: {one_line(record.msg)[:LONGEST]} "
                f"(cannot be formatted with {one_line(record.args)[:LONGEST]})"
            )
        shown = Raw(text) if getattr(record, "redact", True) is False else text
        follows = record.exc_info or record.exc_text or record.stack_info
        logs.put((TRAINING_LOG, record.created, shown, _tail(record) if follows else []))

    def _text(self, record: logging.LogRecord) -> str:
        message = record.getMessage()
        if self.formatter is None:
            return f"{record.levelname} {record.name}: {message}"
        shown = copy.copy(record)
        shown.msg, shown.args = one_line(message[:CUT]), ()
        shown.exc_info = shown.exc_text = shown.stack_info = None
        return self.formatter.format(shown)

    def flush(self) -> None:
        """Wait until what was handled is on the disk, at most 2 s, and not on an event loop."""
        self._logs.wait(_CLOSE_TIMEOUT)

    def close(self) -> None:
        """Take no more records; those that were handled are written, as `flush` does."""
        self._closed = True
        _live.discard(self)
        self.flush()
        super().close()


def _tail(record: logging.LogRecord) -> Tail:
    """Return a traceback as it is now; the source's lines are read later, by the writer."""
    tail: Tail = []
    try:
        if record.exc_text:  # another handler has formatted it
            tail.append(record.exc_text)
        elif record.exc_info and record.exc_info[1] is not None:
            kind, error, trace = record.exc_info
            tail.append(TracebackException(kind, error, trace, lookup_lines=False, compact=True))
        if record.stack_info:
            tail.append(record.stack_info)
    except Exception as exc:  # noqa: BLE001 - the user's own error
        tail.append(f"(a traceback that cannot be shown: {type(exc).__name__})")
    return tail


def _shortened(item: Item) -> Item:
    name, moment, text, tail = item
    if name != TRAINING_LOG:
        return item
    text = str(text.data if isinstance(text, Raw) else text)
    short = text if len(text) <= _SHORT else f"{text[:_SHORT]}... (cut: too many lines wait)"
    return name, moment, short, ["(left out: too many lines wait)"] if tail else tail


class Logs:
    """What a session's lines go through: nothing is made, and no thread runs, before the first use.

    It also stands for the session where one has to be the current one (see `current`).

    Attributes:
        ready: whether lines may be logged: the run's directory is the session's own.
    """

    _making = threading.RLock()

    def __init__(self) -> None:
        self.ready = False
        self._process = os.getpid()
        self._home: HeldDirectory | None = None
        self._run_name = ""
        self._part: str | None = None
        self._files: LogFiles | None = None
        self._writer: BackgroundWriter[Item] | None = None
        self._handler: weakref.ref[LogHandler] | None = None
        self._warned = False

    def set_up(self, home: HeldDirectory, run_name: str, part: str | None = None) -> None:
        """Take lines from now on.

        Args:
            home: the run's directory.
            run_name: the run's name.
            part: the part of the run whose logs these are; ``None`` for the owner's own.
        """
        self._home, self._run_name, self._part = home, run_name, part
        self.ready = True

    @property
    def open(self) -> bool:
        """Whether lines may be logged from this process."""
        return self.ready and os.getpid() == self._process

    def start(self) -> None:
        """Start the writer, here and not at the first line: a signal handler may log."""
        with self._making:
            if self._writer is None:
                assert self._home is not None
                self._files = LogFiles(self._home, self._run_name, self._part)
                self._writer = BackgroundWriter(self._files, DELAY, CAPACITY, "drop_oldest")
        if self._writer.asleep:
            with suppress(WriterError):  # the session has just ended
                self._writer.ring()

    def cut_evaluations(self) -> None:
        """Ask the writer to move away what a resume has left behind of the evaluations.

        The journal has to hold that resume. One that comes too late is nothing.
        """
        if self.open:
            self.start()
            assert self._files is not None
            self._files.cuts = True
            with suppress(WriterError):  # the session has just ended
                self._writer.ring()  # type: ignore[union-attr]

    def handler(self) -> LogHandler:
        """Return the session's handler, the same one as long as somebody has it."""
        self.start()
        with self._making:
            handler = None if self._handler is None else self._handler()
            if handler is None or handler._closed:
                handler = LogHandler(self)
                self._handler = weakref.ref(handler)
            return handler

    def put(self, item: Item) -> None:
        """Queue a line or a record; one that comes too late is nothing."""
        writer = self._writer
        if writer is None or not self.open:
            return
        queue = writer.queue
        with suppress(WriterError):  # the session has just ended
            if len(queue) >= _MOST_LONG:
                item = _shortened(item)
                if len(queue) >= writer.high:
                    writer.relieve()
            queue.append(item)
            if writer.asleep:
                writer.ring()

    def _request(self, callback: OnDurable) -> bool:
        if self._writer is None or not self.open:
            return False
        try:
            self._writer.request(callback)
        except WriterError:  # it has ended, or no thread can be started
            return False
        return True

    async def flush(self) -> None:
        """Wait until what was logged is on the disk, or the disk has refused it for now."""
        answered = anyio.Event()
        wake = calling_soon(answered.set)
        if self._request(lambda _: wake()):
            await answered.wait()

    def wait(self, timeout: float) -> None:
        """Do what `flush` does, blocking; not on a thread that must not wait.

        Args:
            timeout: the longest wait, in seconds.
        """
        if not on_loop() and not on_shared_thread():
            answered = threading.Event()
            if self._request(lambda _: answered.set()):
                answered.wait(timeout)

    @property
    def started(self) -> bool:
        """Whether `close` could have to wait."""
        return self._writer is not None and self._writer.started

    def close(self, timeout: float) -> None:
        """Write what is queued, and end; blocks, and logs what could not be written.

        Args:
            timeout: the longest wait, in seconds.
        """
        if os.getpid() != self._process:
            return
        self.ready = False
        handler = None if self._handler is None else self._handler()
        if handler is not None:
            _live.discard(handler)
        if self._writer is None or self._files is None:
            return
        try:
            self._writer.end(timeout)
        except (WriterError, TimeoutError) as exc:
            if not self._warned:
                self._warned = True
                logger.error("the lines of run %s are not all written: %s", self._run_name, exc)

    def counters(self) -> dict[str, int] | None:
        """Return what has become of the lines; ``None`` where there were none."""
        if self._writer is None or self._files is None or os.getpid() != self._process:
            return None
        counted = self._writer.counters._asdict()
        del counted["bytes"]
        return counted
