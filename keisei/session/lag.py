"""What a session measures of its event loop: what has held it, and for how long."""

from __future__ import annotations

import threading
import time
from collections.abc import Callable
from contextlib import suppress
from typing import Any

from keisei.errors import JournalError
from keisei.monitoring.lag_table import LAG, STALL, LagTable, Limit, event_of
from keisei.monitoring.sharing import Watch, watch
from keisei.monitoring.watchdog import Stall
from keisei.redaction import clean
from keisei.session.facts import SessionFacts
from keisei.session.recorder import Recorder
from keisei.session.usage_part import UsagePart

PATIENCE = 0.5  # seconds that an end waits to be told of a stall that has just ended
EVERY = 15.0  # seconds between two tables in the journal, where stalls are no events of their own


class Lag(UsagePart):
    """The lag of the loop that one session lives in.

    A stall is an event at once; those of a function that has had its events in this minute are
    counted in the table alone.

    Args:
        facts: what is known of the session.
        recorder: what it records with.
        on_stall: called with how long each stall was, in seconds, and when it had ended by
            `time.monotonic`; on the watchdog's thread.

    Attributes:
        in_own_loop: whether the loop is the program's: the blocking face leases one for each call.
    """

    def __init__(
        self,
        facts: SessionFacts[Any],
        recorder: Recorder,
        on_stall: Callable[[float, float], object] = lambda seconds, ended: None,
    ) -> None:
        self._facts, self._recorder, self._on_stall = facts, recorder, on_stall
        self.in_own_loop = True
        self._watch: Watch | None = None
        self._table, self._limit = LagTable(), Limit()
        self._changing = threading.RLock()  # a signal handler may end the session
        self._logged = 0.0

    def begin(self) -> None:
        """Begin to watch the loop."""
        monitoring = self._facts.config.monitoring
        if monitoring.lag and self.in_own_loop and self._watch is None:
            self._logged = time.monotonic()
            self._watch = watch(monitoring.lag_threshold, self._hear)

    def leave_loop(self) -> None:
        """Watch no longer; the stall that ends here counts still."""
        if self._watch is not None:
            self._watch.stop()

    def record_end(self) -> None:
        """Log the table, where there is anything in it."""
        if self._watch is None:
            return
        self._watch.leave()
        self._watch.settle(PATIENCE)
        with self._changing:
            if self._table:
                self._log_table()

    def summary(self) -> dict[str, Any]:
        """Return the table; ``None`` where no loop is watched."""
        with self._changing:
            return {"lag": None if self._watch is None else self._table.as_data()}

    def _hear(self, stall: Stall) -> None:
        """Count a stall, and log it; on the watchdog's thread."""
        event = clean(event_of(stall.seconds, stall.cause, stall.frame))
        now = time.monotonic()
        self._on_stall(stall.seconds, stall.began + stall.seconds)
        with self._changing:
            self._table.add(event)
            if self._limit.admits(event, now):
                self._log(STALL, event)
                return
            self._table.left_out += 1
            if now - self._logged >= EVERY:
                self._log_table()

    def _log_table(self) -> None:
        self._logged = time.monotonic()
        self._log(LAG, self._table.as_data())

    def _log(self, name: str, data: dict[str, Any]) -> None:
        with suppress(JournalError):  # it is closed: the session ends
            if (journal := self._recorder.first()) is not None:
                journal.log_event(name, data)
