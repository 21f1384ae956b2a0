"""What a session knows of the cost of its run while that goes on, and whether its budget holds it.

All of it is at work where the config has a price or a budget, or once something was spent. A shared
thread reads what the other processes and the earlier attempts have logged, every 15 s, or sooner
where a limit is reached sooner. What this process spends counts at the call.
"""

from __future__ import annotations

import threading
import time
from collections.abc import Mapping
from contextlib import suppress
from decimal import Decimal
from typing import Any

from keisei._io.process import host_name
from keisei._io.shared_threads import SharedThreads, join_threads
from keisei._log import logger
from keisei.distributed.preemption import Notice
from keisei.errors import JournalError, describe
from keisei.monitoring.budget import Standing, due_in, standings, uncounted
from keisei.monitoring.ledger import HELD, NAMES, RESOURCES, Accounts, Ledger
from keisei.monitoring.money import digits, texts
from keisei.monitoring.run_events import Found, RunEvents
from keisei.session.facts import SessionFacts
from keisei.session.recorder import Recorder
from keisei.session.shutdown import Interruption
from keisei.session.usage_part import UsagePart

INTERVAL = 15.0  # seconds between two looks at what the run has used
LOGGED = 60.0  # seconds between two events that say how far it is
BUDGET = "budget"


class Costs(UsagePart):
    """The cost of a session's run.

    Args:
        facts: what is known of the session.
        recorder: what it records with.
        interruption: what ends it before its body does.

    Attributes:
        over: whether it has looked for the last time.
    """

    def __init__(
        self, facts: SessionFacts[Any], recorder: Recorder, interruption: Interruption
    ) -> None:
        self.over = False
        self._facts, self._recorder, self._interruption = facts, recorder, interruption
        config = facts.config
        self._budget, self._currency = config.budget, config.cost.currency
        fields = ("node_hour", "gpu_hour", "kwh")
        prices = {name: getattr(config.cost, name) for name in fields}
        self._prices = {
            n: digits(Decimal(repr(price))) for n, price in prices.items() if price is not None
        }
        recorder.spending.currency = self._currency
        recorder.spending.on_spent = self._spent
        self._accounts = Accounts()
        self._guard, self._reading = threading.RLock(), threading.Lock()
        self._events: RunEvents | None = None
        self._threads: SharedThreads | None = None
        self._started = 0.0
        self._next_log = 0.0
        self._warned: set[str] = set()
        self._last_signs: dict[tuple[int, str | None], float | None] = {}
        self._has_read = self._is_spent = self._complained = False

    def claimed(self) -> None:
        """Begin, where there is a price or a budget; called on the thread that has claimed."""
        self._started = time.time() - (self._facts.elapsed() or 0.0)
        if self._prices or self._budget.is_set:
            self._begin()

    def _begin(self) -> None:
        with self._guard:
            if self._events is not None or self._facts.paths is None or self.over:
                return
            self._events = RunEvents(self._facts.paths.run_artifact_dir, NAMES)
        with suppress(RuntimeError):  # no thread is left: what is spent counts at the call
            self._threads = join_threads(self)
            self._threads.call(self, 0.0)

    def left(self) -> None:
        """Learn that it has left the threads, which changes nothing."""

    def serve(self) -> float | None:
        """Look once; return after how many seconds to look again."""
        if self.over:
            return None
        try:
            self._read()
            if self._budget.is_set:
                self._check()
            if time.monotonic() >= self._next_log:
                self._next_log = time.monotonic() + LOGGED
                self._log()
            return self._due()
        except Exception as exc:  # noqa: BLE001 - the threads are shared, and it looks again
            if not self._complained:
                self._complained = True
                text = "what run %s has cost is not known: %s"
                logger.warning(text, self._facts.run_name, describe(exc))
            return INTERVAL

    def _read(self) -> None:
        """Take what the others have logged: other processes, and earlier ones."""
        if self._events is None:
            return
        with self._reading:
            for event in self._events.read():
                if not self._is_own(event):
                    with self._guard:
                        self._accounts.take(event.attempt, event.part, event.name, event.data)
            if not self._has_read:
                self._has_read = True
                self._events.close(but=self._facts.attempt)

    def _is_own(self, event: Found) -> bool:
        """Return whether this process has logged an event, and knows of it."""
        left = getattr(self._facts.owned, "left", None)  # by an earlier process of the same rank
        before = 0 if left is None else left.records
        return (event.attempt, event.part) == self._own and event.seq >= before

    @property
    def _own(self) -> tuple[int, str | None]:
        owned = self._facts.owned
        return self._facts.attempt, getattr(owned, "part", None)

    def used(self, data: Mapping[str, object]) -> None:
        """Count the GPUs and the energy that this process has used by now; from any thread.

        Args:
            data: as an event `usage.resources` has them.
        """
        with self._guard:
            self._accounts.take(*self._own, RESOURCES, data)

    def _spent(self, name: str, data: Mapping[str, object]) -> None:
        """Count what this process has spent, and look at the budget; on the caller's thread."""
        with self._guard:
            self._accounts.take(*self._own, name, data)
        if self._events is None:
            self._begin()
        if not self._budget.is_set or "amount" not in data:
            return
        if self._is_spent and self._interruption.holds and self._facts.shared is None:
            # It spends more, and does not wait for the checkpoint; ranks have to meet at one.
            self._interruption.tell()
        self._check()

    def _ledger(self, ahead: float = 0.0) -> Ledger:
        """Return the ledger as it is now, or will be in so many seconds."""
        now, current = time.time() + ahead, self._facts.attempt

        def last_sign(attempt: int, part: str | None) -> float | None:
            if (attempt, part) == self._own:
                return None  # it is asked itself: the clock may have been set meanwhile
            # Ranks of this attempt live, or it ends; of earlier ones the journal says how long.
            if attempt == current:
                return now
            return None if self._events is None else self._signs(attempt, part)

        with self._guard:
            self._accounts.take(*self._own, HELD, self._held(ahead))
            return self._accounts.ledger(last_sign)

    def _signs(self, attempt: int, part: str | None) -> float | None:
        assert self._events is not None
        known = self._last_signs
        if (attempt, part) not in known:
            known[attempt, part] = self._events.last_sign(attempt, part)
        return known[attempt, part]

    def _held(self, ahead: float = 0.0) -> dict[str, object]:
        return {
            "host": host_name(),
            "started": round(self._started, 3),
            "elapsed_s": round((self._facts.elapsed() or 0.0) + ahead, 3),
            "at": round(time.time() + ahead, 3),
            "ended": self.over,
            "prices": self._prices,
            "currency": self._currency,
            "gpus": self._facts.config.cost.gpus,
        }

    def _check(self) -> None:
        """Warn, or end the run, where a limit says so."""
        if self._is_spent:
            return
        ledger = self._ledger()
        self._say_uncounted(ledger)
        for standing in standings(self._budget, ledger, self._currency):
            if standing.is_spent:
                self._end(standing)
                return
            if standing.share >= self._budget.warn_at:
                self._warn(standing)

    def _say_uncounted(self, ledger: Ledger) -> None:
        """Warn, once each, of what the budget cannot hold."""
        for field, what in uncounted(self._budget, ledger, self._currency).items():
            if field == "budget.energy_kwh" and (self._facts.elapsed() or 0.0) < LOGGED:
                continue  # the first sample may still come
            with self._guard:
                is_first = f"-{field}" not in self._warned
                self._warned.add(f"-{field}")
            if is_first and self._facts.rank == 0:
                logger.warning("run %s: %s does not count %s", self._facts.run_name, field, what)

    def _warn(self, standing: Standing) -> None:
        with self._guard:
            is_first = standing.field not in self._warned
            self._warned.add(standing.field)
        if is_first and self._facts.rank == 0:
            text = "run %s has used %s of its budget: %s"
            logger.warning(text, self._facts.run_name, f"{standing.share:.0%}", standing)
            self._log_event(BUDGET, {**_of(standing), "ends": False})

    def _end(self, standing: Standing) -> None:
        with self._guard:
            if self._is_spent:
                return
            self._is_spent = True
        self._log_event(BUDGET, {**_of(standing), "ends": True})
        patience = min(self._facts.config.signals.grace, INTERVAL)
        notice = Notice("cancelled", standing.source(), saves_for=patience)
        if self._interruption.stop_by(notice):
            logger.warning("run %s ends as cancelled: %s", self._facts.run_name, notice.source)

    def _due(self) -> float:
        if not self._budget.is_set or self._is_spent:
            return INTERVAL
        now, later = (
            standings(self._budget, self._ledger(ahead), self._currency)
            for ahead in (0.0, INTERVAL)
        )
        return due_in(now, later, INTERVAL) + 0.001

    def leave_loop(self) -> None:
        """Look no more at the budget: the session ends."""
        self._is_spent = True

    def record_end(self) -> None:
        """Log what the run has cost, where there is something; on any thread."""
        self._recorder.spending.settle()
        self.over = True
        if self._threads is not None:
            self._threads.call(self, 0.0)
        if self._events is None:
            return
        self._read()
        self._log()
        with self._reading:
            self._events.close()

    def _log(self) -> None:
        ledger = self._ledger()
        more = {"energy_kwh": None if ledger.energy_kwh is None else float(ledger.energy_kwh)}
        run = {"run": texts(ledger.totals), **more, "unpriced": len(ledger.unpriced)}
        self._log_event(HELD, {**self._held(), **run})

    def _log_event(self, name: str, data: Mapping[str, object]) -> None:
        if (journal := self._recorder.first()) is not None:
            with suppress(JournalError):
                journal.log_event(name, data)

    def summary(self) -> dict[str, Any]:
        """Return the ledger as plain data; ``None`` where nothing has a price and none is spent."""
        if self._events is None:
            return {"cost": None}
        ledger = self._ledger()
        budget = [
            {**_of(one), "share": round(one.share, 6)}
            for one in standings(self._budget, ledger, self._currency)
        ]
        return {"cost": {**ledger.as_data(), "budget": budget}}


def _of(standing: Standing) -> dict[str, object]:
    used, limit = digits(standing.used), digits(standing.limit)
    return {"field": standing.field, "used": used, "of": limit, "unit": standing.unit}
