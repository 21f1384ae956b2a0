"""Looks, every second, for what ends a session from elsewhere; of all sessions on shared threads.

A request in the run's directory costs one call of the system; the file that tells a preemption, and
the end of a SLURM job's time, are looked at where the config says so.
"""

from __future__ import annotations

import os
import signal
import time
from collections.abc import Callable
from contextlib import suppress
from datetime import datetime
from typing import Any

from keisei._io.held import HeldDirectory
from keisei._io.shared_threads import SharedThreads, join_threads
from keisei._log import logger
from keisei.config.schema import AppConfig
from keisei.distributed.meeting import Meeting
from keisei.distributed.preemption import Notice
from keisei.distributed.sources import EndOfTime, PreemptFile, Source
from keisei.errors import describe
from keisei.run.layout import STOP_FILE
from keisei.run.stop_request import StopRequest, read_request, write_request
from keisei.session import signal_names
from keisei.session.shutdown import Interruption

LOOK = 1.0  # seconds from one look to the next


def requested(request: StopRequest, deadline: float, number: int) -> Notice:
    """Return what a request tells a session.

    Args:
        request: the request.
        deadline: that of a preemption which has none, in seconds since the epoch.
        number: the signal that a preemption exits like.
    """
    if request.status == "preempted":
        return Notice("preempted", request.source, request.deadline or deadline, number)
    ends_process = None if request.deadline is None else int(signal.SIGTERM)
    saves_for = request.saves_for
    return Notice("cancelled", request.source, request.deadline, ends_process, saves_for)


class Watching:
    """Watches for what ends one session from elsewhere, from its claim to its end.

    Args:
        config: the run's config.
        interruption: what it tells.

    Attributes:
        over: whether it has looked for the last time.
        meeting: the ranks that agree on where they end once they are preempted, where there are
            several; a preemption is shared with them by a request.
        last_step: returns the last safe point.
        on_look: called at each look; it must be quick, and raise nothing.
    """

    def __init__(self, config: AppConfig, interruption: Interruption) -> None:
        self.over = False
        self.meeting: Meeting | None = None
        self._config, self._interruption = config, interruption
        self._home: HeldDirectory | None = None
        self._run = ("", 0)
        self._threads: SharedThreads | None = None
        self._sources: list[Source] = []
        self._knows_end = self._shared = self._complained = False
        self._is_asked = False  # by a request, which need not be written again
        self._seen: tuple[Any, ...] | None = None
        self.last_step: Callable[[], int | None] = lambda: None
        self.on_look: Callable[[], object] = lambda: None

    def start(self, home: HeldDirectory, session_id: str, attempt: int) -> None:
        """Begin to look; where the system has no thread left, do nothing.

        Args:
            home: the run's directory.
            session_id: the session's id.
            attempt: which attempt it is.
        """
        self._home, self._run = home, (session_id, attempt)
        distributed, grace = self._config.distributed, self._config.signals.grace
        if distributed.preempt_file is not None:
            self._sources.append(PreemptFile(str(distributed.preempt_file), grace))
        with suppress(RuntimeError):
            self._threads = join_threads(self)
            self._interruption.wake = self._wake
            self._threads.call(self, 0.0 if self._interruption.verdict.notice else LOOK)

    def stop(self) -> None:
        """Look no more; from any thread, and twice."""
        self.over = True
        self._wake()

    def _wake(self) -> None:
        if self._threads is not None:
            self._threads.call(self, 0.0)

    def left(self) -> None:
        """Learn that it has left the threads, which changes nothing."""

    def serve(self) -> float | None:
        """Look once; return after how many seconds to look again."""
        if self.over:
            return None
        self.on_look()
        told = self._interruption
        try:
            if told.verdict.notice is None:
                self._look(time.time())
            elif self.meeting is not None and not self._shared:
                self._share(told.verdict.notice)
        except Exception as exc:  # noqa: BLE001 - the threads are shared, and it looks again
            if not self._complained:
                self._complained = True
                logger.warning("what ends the run from elsewhere cannot be read: %s", describe(exc))
        now = time.monotonic()
        if told.holds and told.tell_at is not None and now >= told.tell_at:
            told.tell()
        if told.force_at is not None and now >= told.force_at:
            told.force()
        due = (at - now for at in (told.tell_at, told.force_at) if at is not None)
        return max(0.0, min(LOOK, *due, LOOK))

    def _look(self, now: float) -> None:
        distributed, signals = self._config.distributed, self._config.signals
        if distributed.end_time and not self._knows_end and self._interruption.handles_signals:
            self._knows_end = True
            self._sources.append(EndOfTime(os.environ, self._interruption.grace, now))
        number = signal_names.exit_number(signals.preemption)
        for source in self._sources:
            if (found := source.look(now)) is not None:
                self._tell(Notice("preempted", found.source, found.deadline, number))
        if (request := self._request()) is not None:
            self._is_asked = True
            self._tell(requested(request, now + signals.grace, number))

    def _tell(self, notice: Notice) -> None:
        if self._interruption.stop_by(notice):
            logger.warning("the run ends as %s: %s", notice.status, notice.source)

    def _request(self) -> StopRequest | None:
        """Return the request that has come since the last look, if it is for this attempt."""
        assert self._home is not None
        with self._home.seen() as directory:
            if directory is None:
                return None
            try:
                stat = directory.stat(STOP_FILE)
            except OSError:
                return None
            seen = stat.st_ino, stat.st_mtime_ns, stat.st_size
            if seen == self._seen:
                return None
            self._seen = seen
            found = read_request(directory)
        is_own = found is not None and (found.session_id, found.attempt) == self._run
        return found if is_own else None

    def _share(self, notice: Notice) -> None:
        """Write a preemption, or a budget's end, where the run's other processes look."""
        self._shared = True
        is_shared = notice.preempting is not None or notice.saves_for is not None
        if not is_shared or self._home is None or self.meeting is None:
            return
        self.meeting.learn(self.last_step(), ends=not self._interruption.holds)
        if self._is_asked:
            return
        session_id, attempt = self._run
        request = StopRequest(
            session_id=session_id,
            attempt=attempt,
            status="cancelled" if notice.preempting is None else "preempted",
            source=notice.source,
            deadline=notice.deadline,
            saves_for=notice.saves_for,
            asked_at=datetime.now().astimezone().isoformat(timespec="milliseconds"),
        )
        with self._home.seen() as directory:
            if directory is not None:
                write_request(directory, request)
