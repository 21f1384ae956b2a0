"""One tracker's lane: a daemon thread that starts it, sends it the run's records, and ends it.

The run's journal is the queue. The thread reads it from the tracker's cursor on, so that a
tracker that hangs, fails or crawls costs no memory and holds nobody: it falls behind, and catches
up later, in a later attempt, or by `keisei sync`.

All of the tracker's methods are called on this thread, one at a time. The session only looks:
each of the attributes is written by the thread alone, and replaced as a whole.
"""

from __future__ import annotations

import threading
import time
from collections.abc import Callable, Sequence
from contextlib import nullcontext, suppress
from typing import Literal

from keisei._io.loop import ThreadEvent
from keisei._io.switching import quick_switches
from keisei._log import logger
from keisei.errors import MissingExtraError, TrackerError
from keisei.journal.follower import Follower, count_after
from keisei.redaction import clean, redact
from keisei.run.session_file import TrackerRecord
from keisei.run.status import FinalStatus
from keisei.trackers import cursor
from keisei.trackers.base import Position, Record, RunInfo, TrackerRun
from keisei.trackers.cursor import Cursor
from keisei.trackers.host.client import ApartRun
from keisei.trackers.loading import describe

Start = Callable[["Lane"], TrackerRun | None]
Phase = Literal["connecting", "live", "broken", "finished", "abandoned"]

BATCH = 256  # records in one call of a tracker
SEND_TIMEOUT = 30.0  # seconds; a call that takes longer is said to hang
_FIRST_PAUSE, _LONGEST_PAUSE, _LAST_PAUSE = 0.1, 30.0, 0.1
# A lane computes for a quarter of the time at most. Four that always compute would have four fifths
# of the interpreter, and the loop would wait behind each of them.
_REST = 3.0


class Lane:
    """A tracker's lane; its thread begins with `begin`.

    Args:
        name: the tracker's name.
        info: what it is told of the run.
        start: starts the tracker's run, blocking; gives ``None`` where it is disabled.
        options: what a named tracker was made with; ``None`` where it cannot be made again.
        logged: tells how many records this attempt has logged.
        on_live: called on the thread when the run has started.
        retry: whether a start that has failed is tried again, and at the end a call.

    Attributes:
        run: the tracker's run, once it has started.
        start_timeout: how long its start may take, in seconds, once that is known.
        made: set when ``start_timeout`` is known.
        attempted: set when the first start has come to something.
        done: set when the thread has nothing left to do.
        problem: what went wrong last; ``None`` where all is well.
        sent: how many records the tracker was sent.
        kill: ends what a call of the tracker waits for, where that can be ended.
        kept: whether its place is kept, so that it can be brought up to date later.
    """

    def __init__(
        self,
        name: str,
        info: RunInfo,
        start: Start,
        *,
        options: dict[str, object] | None = None,
        logged: Callable[[], int] = lambda: 0,
        on_live: Callable[[TrackerRun], object] = lambda run: None,
        retry: bool = True,
    ) -> None:
        self.name, self.info = name, info
        self.run: TrackerRun | None = None
        self.problem: str | None = None
        self.sent = 0
        self.kill: Callable[[], object] | None = None
        self.kept = False
        self.start_timeout = 0.0
        self.made, self.attempted, self.done = ThreadEvent(), ThreadEvent(), ThreadEvent()
        self._start, self._logged, self._on_live, self._retry = start, logged, on_live, retry
        self._options: dict[str, object] | None = None if options is None else redact(options)
        self._phase: Phase = "connecting"
        self._position = cursor.NOWHERE
        self._known = TrackerRecord()  # of an earlier attempt, until this one has started
        self._earlier = 0
        self._calling: float | None = None
        self._said_to_hang = False
        self._status: FinalStatus | None = None
        self._send_until = 0.0
        self._computed = 0.0
        self._abandoned = False
        self._bell, self._ending = threading.Event(), threading.Event()
        self._thread: threading.Thread | None = None

    def begin(self) -> None:
        """Start the thread; where the system has none left, the end tries again."""
        thread = threading.Thread(target=self._work, name=f"keisei-{self.name}", daemon=True)
        try:
            thread.start()
            self._thread = thread
        except RuntimeError as exc:
            self.problem, self._phase = describe(exc), "broken"
            self._attempted()

    @property
    def live(self) -> bool:
        """Whether the tracker tracks the run."""
        return self.run is not None

    @property
    def behind(self) -> int:
        """How many records the tracker has not got yet."""
        place = self._position
        here = place.seq + 1 if place.attempt == self.info.attempt else 0
        return max(0, self._earlier + self._logged() - here)

    @property
    def hanging(self) -> float | None:
        """How long a call of the tracker has not returned, in seconds, where that is too long."""
        began = self._calling
        took = 0.0 if began is None else time.monotonic() - began
        return took if took > SEND_TIMEOUT else None

    def record(self) -> TrackerRecord:
        """Give what is known of the tracker by now."""
        run, phase, problem = self.run, self._phase, self.problem
        if phase == "live" and (hanging := self.hanging) is not None:
            phase, problem = "broken", f"it has not answered for {hanging:.0f} s"
        if run is not None:
            self._known = TrackerRecord(
                run_id=run.run_id,
                upload_as=run.upload_as,
                url=clean(run.url),
                mode=run.mode,
                directory=run.directory,
            )
        state = "abandoned" if self._abandoned else phase
        now = {"state": state, "behind": self.behind, "problem": problem}
        return self._known.model_copy(update=now)

    def wake(self) -> None:
        """Tell the thread that there may be more to send; never waits."""
        self._bell.set()
        if not self._said_to_hang and (hanging := self.hanging) is not None:
            self._said_to_hang = True
            text = "%s has not answered for %.0f s: run %s goes on, and what it misses is kept"
            logger.warning(text, self.name, hanging, self.info.run_name)

    def end(self, status: FinalStatus, send_for: float) -> None:
        """Have the thread send what is left, and end the tracker's run; does not wait for it.

        Args:
            status: how the run ended.
            send_for: how long it may still send, in seconds.
        """
        self._send_until = time.monotonic() + send_for
        self._status = status
        self._ending.set()
        self._bell.set()
        self._attempted()
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

    def abandon(self) -> None:
        """Let the thread be: when it comes back, it ends the tracker's run, and keeps nothing."""
        self._abandoned = True
        if self.kill is not None:
            self.kill()

    def _work(self) -> None:
        try:
            with suppress(OSError):
                before = cursor.load(self.info.directory, self.name)
                self._position, self._known = before.position, before.known
                self._count_earlier()
            run = self._connect()
            if run is not None:
                self._follow(run)
                self._finish(run)
        finally:
            self._attempted()
            self.done.set()

    def _connect(self) -> TrackerRun | None:
        pause = _FIRST_PAUSE
        while True:
            try:
                run = self._start(self)
            except BaseException as exc:  # noqa: BLE001 - foreign code, on a thread of its own
                self.problem, self._phase = describe(exc), "broken"
                hopeless = isinstance(exc, (TrackerError, MissingExtraError))
                del exc  # or its traceback would hold what the tracker has made
                self._failed_to_start(again=self._retry and not hopeless)
                if hopeless or not self._retry or self._ending.wait(pause):
                    return None
                pause = min(pause * 2, _LONGEST_PAUSE)
                continue
            if run is not None:
                self.run, self.problem, self._phase = run, None, "live"
                self._on_live(run)
                self._store("live")
            self._attempted()
            return run

    def ready(self, start_timeout: float) -> None:
        """Note that the tracker is made, and what its start may take; from now on it is known.

        Args:
            start_timeout: the longest that its start may take, in seconds.
        """
        self.start_timeout = start_timeout
        self.made.set()
        self._store("connecting")  # so that what it misses, should it never come, is known later

    def _failed_to_start(self, *, again: bool) -> None:
        """Say so once, unless the session has ended meanwhile, and let nobody wait any longer."""
        if not self.attempted.is_set():
            then = "goes on, and it is tried again" if again else "goes on without it"
            text = "%s did not start (%s): run %s %s."
            logger.warning(text, self.name, self.problem, self.info.run_name, then)
        self._attempted()

    def _attempted(self) -> None:
        self.attempted.set()  # first: who waits for the other one looks at it then
        self.made.set()

    def _follow(self, run: TrackerRun) -> None:
        """Send what there is and what comes, until the end."""
        follower: Follower | None = None
        pause = 0.0
        while not self._abandoned:
            self._bell.clear()
            ending = self._ending.is_set()  # before the look: then it sees all that there is
            if self._has_nothing(ending):
                if ending:
                    break
                self._bell.wait()
                continue
            try:
                if follower is None:
                    follower = Follower(self.info.directory, self._place(run), self.info.attempt)
                sent = self._send(run, follower)
                pause = 0.0
            except BaseException as exc:  # noqa: BLE001 - foreign code, on a thread of its own
                self.problem, self._phase = describe(exc), "broken"
                del exc
                self._calling = None
                if follower is not None:
                    follower.close()
                    follower = None
                pause = min(max(2 * pause, _FIRST_PAUSE), _LONGEST_PAUSE)
                if not self._ending.wait(pause):
                    continue
                if not self._retry or time.monotonic() + _LAST_PAUSE > self._send_until:
                    break
                time.sleep(_LAST_PAUSE)
                continue
            if sent and not ending:
                self._ending.wait(_REST * self._computed)
            elif sent:
                if time.monotonic() > self._send_until:
                    break
            elif ending:
                break
            else:
                self._bell.wait()
        if follower is not None:
            follower.close()

    def _has_nothing(self, ending: bool) -> bool:
        """Tell whether there is nothing to send, without asking the tracker or the disk."""
        if self._logged():
            return False
        return self.info.attempt == 1 or (ending and self._phase == "live" and not self._earlier)

    def _send(self, run: TrackerRun, follower: Follower) -> bool:
        began = time.thread_time()
        with quick_switches():
            records = follower.read(BATCH)
        if records:
            # One that lives apart computes elsewhere.
            with nullcontext() if isinstance(run, ApartRun) else quick_switches():
                self._calling = time.monotonic()
                run.send(records)
                self._calling = None
        self._said_to_hang = False
        if self._phase == "broken":
            self.problem, self._phase = None, "live"
        if records and not self._abandoned:
            self._passed(records)
            self._store("live")
        self._computed = time.thread_time() - began
        return bool(records)

    def _passed(self, records: Sequence[Record]) -> None:
        own = self.info.attempt
        if records[0].attempt != own:
            self._earlier -= sum(record.attempt != own for record in records)
        self._position = Position(records[-1].attempt, records[-1].seq)
        self.sent += len(records)

    def _place(self, run: TrackerRun) -> Position:
        """Tell behind which record to go on."""
        self._calling = time.monotonic()
        told = run.position()
        self._calling = None
        if told is not None and told != self._position:
            self._position = Position(*told)
            self._count_earlier()
        return self._position

    def _count_earlier(self) -> None:
        self._earlier = count_after(self.info.directory, self._position, self.info.attempt - 1)

    def _finish(self, run: TrackerRun) -> None:
        assert self._status is not None or self._abandoned
        if self.behind and self.problem is None:
            self.problem = "it is slower than what was logged"
        try:
            run.finish(self._status or "failed")
            self._phase = "finished"
        except BaseException as exc:  # noqa: BLE001 - foreign code, on a thread of its own
            self.problem, self._phase = f"failed to finish ({describe(exc)})", "abandoned"
            del exc
        self._store(self._phase)

    def _store(self, state: Phase) -> None:
        """Keep the cursor; nothing is kept by a thread that comes back after it was left."""
        if self._abandoned:
            return
        kept = Cursor(
            attempt=self._position.attempt,
            seq=self._position.seq,
            options=self._options,
            known=self.record().model_copy(update={"state": state}),
        )
        try:
            cursor.store(self.info.directory, self.name, kept)
            self.kept = True
        except OSError as exc:
            # The tracker's own account, or a row twice in the worst case, is better than none.
            self.problem = f"its place cannot be kept ({describe(exc)})"
