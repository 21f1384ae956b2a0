"""The worker of one run and tracker: a thread that starts it, sends the journal, and ends it.

The run's journal is the queue. The worker reads it from the tracker's cursor on, so that a tracker
that hangs, fails or crawls costs no memory and holds nobody: it falls behind, and catches up later,
in a later attempt, or by `keisei sync`. A lock beside the cursor admits one worker at a time: a
resumed run waits for the one that still delivers the attempt before it.

All of the tracker's methods are called on this thread, one at a time. Others see `state`, which the
thread replaces as a whole, and set two events: that there is more, and that the run has ended.
"""

from __future__ import annotations

import threading
import time
from collections.abc import Callable, Mapping
from contextlib import suppress
from typing import Any

from keisei._io.backoff import Backoff, may_pass
from keisei._io.files import OpenDirectory
from keisei._io.held import FollowedDirectory
from keisei._io.locks import HeldLock, LockedError
from keisei._log import logger
from keisei.errors import MissingExtraError, TrackerError, describe
from keisei.journal.format import file_name
from keisei.redaction import redact
from keisei.run.session_file import TrackerRecord
from keisei.run.status import FinalStatus
from keisei.trackers import cursor, trust
from keisei.trackers.answers import kept_of, options_of, position_of, record_of, start_timeout_of
from keisei.trackers.backlog import Backlog
from keisei.trackers.base import Position, RunInfo, Tracker, TrackerRun
from keisei.trackers.cursor import Cursor
from keisei.trackers.media import hand_over, tracks_system
from keisei.trackers.pace import Pace, Turns
from keisei.trackers.state import WorkerHandle

BATCH = 256  # records in one call of a tracker
SEND_TIMEOUT = 30.0  # seconds; a call that takes longer is said to hang
FIRST_PAUSE, LONGEST_PAUSE = 0.1, 30.0  # seconds between two tries
_LAST_PAUSE = 0.1  # between two tries once the run has ended
_LOCK_PAUSE = 0.05


class Worker(WorkerHandle):
    """Delivers one run to one tracker; its thread begins with `begin`.

    Args:
        name: the tracker's name.
        info: what the tracker is told of the run.
        make: makes the tracker, blocking.
        options: what a named tracker was made with, for the cursor; ``None`` where it cannot be
            made again.
        named: whether this user has named the tracker and its options here: then the cursor is
            signed, and `keisei sync` obeys it.
        logged: returns how many records this attempt has logged.
        on_change: called on the thread with each new state.
        retry: whether a start that has failed is tried again, and a call once the run has ended.
        start_by: when a start has to be over, by the monotonic clock, in seconds.
        pace: bounds what the workers of one process compute together.

    Attributes:
        home: the run's directory, wherever it is moved.
        run: the tracker's run, once it has started.
    """

    def __init__(
        self,
        name: str,
        info: RunInfo,
        make: Callable[[], Tracker],
        *,
        options: dict[str, object] | None = None,
        named: bool = True,
        logged: Callable[[], int] = lambda: 0,
        on_change: Callable[[Worker], object] = lambda worker: None,
        retry: bool = True,
        start_by: float | None = None,
        pace: Pace | None = None,
    ) -> None:
        super().__init__(name, info, logged)
        self.run: TrackerRun | None = None
        self._make, self._on_change, self._retry = make, on_change, retry
        self._start_by = start_by
        self._options: dict[str, object] | None = None if options is None else redact(options)
        self._named = named and options is not None
        self._signature: str | None = None
        self.home = FollowedDirectory(info.directory)
        self._journal, self._journal_size = file_name(info.attempt, info.part), -1
        measured = tracks_system(info.config_text)
        self._backlog = Backlog(self.home, info.attempt, info.part, tracks_system=measured)
        self._tracker: Tracker | None = None
        self._lock: HeldLock | None = None
        self._earlier_record = TrackerRecord(state="connecting")
        self._calling: float | None = None
        self._said_to_hang = self._tells = False
        self._status: FinalStatus | None = None
        self._send_until = 0.0
        self._more, self._ending = threading.Event(), threading.Event()
        self._turns = Turns(pace, self._ending)
        self._thread: threading.Thread | None = None

    def begin(self) -> None:
        """Start the thread; where the system has none left, `end` tries again."""
        thread = threading.Thread(target=self._work, name=f"keisei-{self.name}", daemon=True)
        try:
            thread.start()
            self._thread = thread
        except RuntimeError as exc:
            self._publish(state="broken", problem=describe(exc), attempted=True)

    def wake(self) -> None:
        """Note that the journal has grown, and warn once of a call that hangs; never waits."""
        self._more.set()
        began = self._calling
        took = 0.0 if began is None else time.monotonic() - began
        if took > SEND_TIMEOUT and not self._said_to_hang:
            self._said_to_hang = True
            text = "%s has not answered for %.0f s: run %s goes on, and what it misses is kept"
            logger.warning(text, self.name, took, self.info.run_name)
            self._publish(state="broken", problem=f"it has not answered for {took:.0f} s")

    def look(self) -> None:
        """Wake the thread if the journal's file has grown: for a process without the journal."""
        size = self._journal_size
        with suppress(OSError):
            size = self.home.stat(self._journal).st_size
        if size != self._journal_size or self._calling is not None:
            self._journal_size = size
            self.wake()

    def end(self, status: FinalStatus, within: float) -> None:
        """Ask the thread to send the backlog and to end the tracker's run; never waits.

        Args:
            status: how the run ended.
            within: how long it may take, in seconds; a part of it is left for the tracker's own
                end.
        """
        self._send_until = time.monotonic() + within - min(2.0, within / 4)
        self._status = status
        self._ending.set()
        self._more.set()
        self.attempted.set()
        self.made.set()
        if self._thread is None:
            self.begin()

    def join(self, timeout: float) -> None:
        """Wait until the thread has nothing left to do; blocks.

        Args:
            timeout: the longest wait, in seconds; what is not done then is abandoned.
        """
        if self._thread is not None:
            self._thread.join(timeout)
        if not self.done.is_set():
            self.abandon()

    def _publish(self, **changes: object) -> None:
        """Replace the snapshot: fields of `WorkerState`, or of its record."""
        about: dict[str, Any] = {
            name: changes.pop(name) for name in ("state", "problem") if name in changes
        }
        if about:
            changes["record"] = self.state.record.model_copy(update=about)
        self.update(self.state._replace(**changes))  # type: ignore[arg-type]
        self._on_change(self)

    def _work(self) -> None:
        try:
            with self._turns.next():  # two hundred may be asked for at one instant
                locked = self._take_lock()
                if locked:
                    self._read_cursor()
            if locked:
                run = self._connect()
                if run is not None:
                    self._follow(run)
                    self._finish(run)
        except BaseException as exc:  # noqa: BLE001 - a thread that dies in silence helps nobody
            self._publish(state="broken", problem=describe(exc))
            text = "%s: its worker has failed (%s): run %s goes on without it"
            logger.error(text, self.name, describe(exc), self.info.run_name)
        finally:
            self._publish(attempted=True, closing=True)
            with suppress(Exception):  # perhaps there is no tracker, or it has no such method
                self._tracker.close()  # type: ignore[union-attr]
            if self._lock is not None:
                self._lock.release()
            self.home.close()
            self._publish(done=True)

    def _read_cursor(self) -> None:
        with suppress(OSError):
            before = cursor.load(self.home.path(), self.name, self.info.part)
            self._earlier_record = before.known
            self._backlog.told = Position(*before.rewound)
            self._backlog.move(before.position)
        self._note_position()

    def _take_lock(self) -> bool:
        """Wait until nobody else delivers the run to the tracker; false where that is in vain."""
        while self._lock is None:
            try:
                with OpenDirectory(self.home.path()) as directory:
                    self._lock = cursor.deliverer(directory, self.name, 0.0, self.info.part)
            except OSError as exc:
                problem = str(exc) if isinstance(exc, LockedError) else describe(exc)
                self._publish(state="connecting", problem=problem)
                in_vain = not (self._retry or may_pass(exc))
                if in_vain or (self._ending.is_set() and time.monotonic() > self._send_until):
                    self._publish(state="broken")
                    return False
                (time.sleep if self._ending.is_set() else self._ending.wait)(_LOCK_PAUSE)
        return True

    def _connect(self) -> TrackerRun | None:
        backoff = Backoff(FIRST_PAUSE, LONGEST_PAUSE)
        while not self.abandoned:
            try:
                run, record = self._start()
            except BaseException as exc:  # noqa: BLE001 - foreign code, on a thread of its own
                problem = describe(exc)
                hopeless = isinstance(exc, (TrackerError, MissingExtraError))
                del exc  # or its traceback would hold what the tracker has made
                again = self._retry and not hopeless
                if not self.attempted.is_set():
                    then = "goes on, and it is tried again" if again else "goes on without it"
                    text = "%s did not start (%s): run %s %s."
                    log = logger.info if getattr(self._tracker, "quiet", False) else logger.warning
                    log(text, self.name, problem, self.info.run_name, then)
                self._publish(state="broken", problem=problem, attempted=True)
                if not again:
                    return None
                if self._ending.wait(backoff.next()):
                    late = time.monotonic() + _LAST_PAUSE > self._send_until
                    if late or not self._backlog.left():
                        return None
                    time.sleep(_LAST_PAUSE)
                continue
            self.run = run
            self._earlier_record = record
            self._publish(record=record, live=True, attempted=True)
            self._store(record)
            return run
        return None

    def _keep(self, options: Mapping[str, object]) -> None:
        """Keep what the tracker is to be made with again, signed where this user has named it."""
        if self._named:
            wanted = {**(self._options or {}), **redact(dict(options))}
            self._signature = trust.sign(self.info.session_id, self.name, wanted)
            if self._signature is not None:
                self._options = wanted

    def _start(self) -> tuple[TrackerRun, TrackerRecord]:
        if self._tracker is None:
            self._tracker = self._make()
            timeout = start_timeout_of(self._tracker)
            if self._start_by is not None:
                left = self._start_by - time.monotonic()
                timeout = self._tracker.start_timeout = max(min(1.0, timeout), min(timeout, left))
            self._publish(start_timeout=timeout)
            self._keep({})
            # From now on it is known, so that what it misses, should it never come, is found.
            self._store(self._earlier_record.model_copy(update={"state": "connecting"}))
        run = self._tracker.start(self.info)
        try:
            record = record_of(run)
            self._keep(options_of(run))
            return run, record
        except TrackerError:
            with suppress(Exception):
                run.finish("failed")  # nobody can use it
            raise

    def _follow(self, run: TrackerRun) -> None:
        """Send what there is and what comes, until the end."""
        backoff = Backoff(FIRST_PAUSE, LONGEST_PAUSE)
        while not self.abandoned:
            self._more.clear()
            ending = self._ending.is_set()  # before the look: then it sees all that there is
            if self._has_nothing(ending):
                if ending:
                    break
                self._more.wait()
                continue
            try:
                if not self._backlog.opened:
                    self._ask(run)
                sent = self._send(run)
                backoff.reset()
            except BaseException as exc:  # noqa: BLE001 - foreign code, on a thread of its own
                self._calling = None
                self._publish(state="broken", problem=describe(exc))
                del exc
                self._backlog.close()
                if not self._ending.wait(backoff.next()):
                    continue
                if not self._retry or time.monotonic() + _LAST_PAUSE > self._send_until:
                    break
                time.sleep(_LAST_PAUSE)
                continue
            if ending and (not sent or time.monotonic() > self._send_until):
                break
            if not sent:
                self._more.wait()
        self._backlog.close()

    def _has_nothing(self, ending: bool) -> bool:
        """Return whether there is nothing to send, without asking the tracker."""
        with suppress(OSError):
            self.home.stat(self._journal)
            return False
        well = self.state.record.state == "live" and not self.state.earlier
        return self.info.attempt == 1 or (ending and well)

    def _send(self, run: TrackerRun) -> bool:
        with self._turns.next() as done:
            records = self._backlog.read(BATCH)
            resumed = self._backlog.resumes(records)
            if resumed:
                self._go_back(run)  # and then read again, without what was left behind
            elif records:
                self._calling = time.monotonic()
                record = hand_over(run, records, self.state.record, self._backlog)
                self._calling = None
            self._said_to_hang = False
            if records and not resumed:
                self._backlog.passed(records)
                self._note_position()
                self._publish(record=record, sent=self.state.sent + len(records))
                self._store(record)
            elif self.state.record.state == "broken":
                self._publish(state="live", problem=None)
            done += records
        return bool(records)

    def _go_back(self, run: TrackerRun) -> None:
        """Go on behind a resume, from where the tracker stands once it has gone back itself."""
        self._calling = time.monotonic()
        dropped = self._backlog.go_back(run)
        self._calling = None
        if dropped:
            self._publish(record=record_of(run))
            self._keep(options_of(run))
        elif dropped is not None:
            text = "%s cannot drop what run %s has left behind by resuming: it keeps it"
            logger.warning(text, self.name, self.info.run_name)
        self._note_position()
        self._store(self.state.record)

    def _ask(self, run: TrackerRun) -> None:
        """Go on behind the tracker's own position, where it can tell it."""
        self._calling = time.monotonic()
        held = position_of(run)
        self._calling = None
        self._tells = held is not None
        if held is not None and held != self._backlog.position:
            self._backlog.move(held)
        self._note_position()

    def _note_position(self) -> None:
        position, earlier = self._backlog.position, self._backlog.earlier
        self.state = self.state._replace(position=position, earlier=earlier)

    def _finish(self, run: TrackerRun) -> None:
        if self.state.record.problem is None and self._backlog.left():
            self._publish(problem="it is slower than what was logged")
        try:
            run.finish(self._status or "failed")
            record = self.state.record.model_copy(update={"state": "finished"})
        except BaseException as exc:  # noqa: BLE001 - foreign code, on a thread of its own
            changes = {"state": "abandoned", "problem": f"failed to finish ({describe(exc)})"}
            del exc
            record = self.state.record.model_copy(update=changes)
        self._publish(record=record)
        self._store(record)  # last: what fails in it is said

    def _store(self, record: TrackerRecord) -> None:
        """Store the cursor, no further than what outlives this process."""
        at, part = kept_of(self.run, self.state.position), self.info.part
        told, signed = self._backlog.told, self._signature
        kept = Cursor(attempt=at.attempt, seq=at.seq, options=self._options, known=record)
        kept = kept.model_copy(update={"rewound": told, "signature": signed})
        try:
            # One that knows its own position needs no cursor that survives a loss of power.
            cursor.store(self.home.path(), self.name, kept, sync=not self._tells, part=part)
            self.state = self.state._replace(kept=True)
        except OSError as exc:
            # The tracker's own account, or a row twice in the worst case, is better than none.
            problem = f"its cursor cannot be stored ({describe(exc)})"
            if self.state.record.problem != problem:
                self._publish(problem=problem)
