"""What a session uses of its machine: rows `system/...` of its journal, peaks and energy."""

from __future__ import annotations

import os
import threading
import time
from collections.abc import Callable, Mapping
from contextlib import suppress
from typing import Any

from keisei._io.process import host_name
from keisei.errors import JournalError
from keisei.journal.records import SYSTEM
from keisei.monitoring.readings import Sample
from keisei.monitoring.resources import EVENT, STATE, Totals, changes, is_record_due, pace
from keisei.monitoring.sampling import Subscriber, subscribe, unsubscribe
from keisei.session.facts import SessionFacts
from keisei.session.recorder import Recorder
from keisei.session.usage_part import UsagePart

SWITCH = "KEISEI_RESOURCES"

_ON = {"on": True, "1": True, "true": True, "off": False, "0": False, "false": False}


class Resources(UsagePart):
    """Logs what one session uses, as the program's sampler says it.

    Args:
        facts: what is known of the session.
        recorder: what it records with.
        on_used: called with the GPUs and the energy that were used by now, at each sample.
    """

    def __init__(
        self,
        facts: SessionFacts[Any],
        recorder: Recorder,
        on_used: Callable[[Mapping[str, object]], object],
    ) -> None:
        self._facts, self._recorder, self._on_used = facts, recorder, on_used
        self._subscriber: Subscriber | None = None
        self._totals: Totals | None = None
        self._lock = threading.RLock()  # re-entrant: a signal may end the session
        self._row_due = self._before = 0.0
        self._recorded_at: float | None = None
        self._is_over = False

    def claimed(self) -> None:
        """Ask for samples, on the thread that has claimed the run."""
        config, paths = self._facts.config.monitoring, self._facts.paths
        if paths is None or not _is_wanted(config.resources):
            return
        self._totals = Totals(host_name())
        directory, samplers = paths.run_artifact_dir, config.samplers
        self._subscriber = Subscriber(directory, config.interval, self._take, samplers)
        self._before = self._subscriber.began
        launch = self._facts.shared
        if launch is None:
            subscribe(self._subscriber, "", 0)
        else:
            identity = f"{launch.identity}/{launch.restart}/{launch.requeues}"
            local_rank = launch.rank if launch.local_rank is None else launch.local_rank
            subscribe(self._subscriber, identity, local_rank)

    def leave_loop(self) -> None:
        """Ask for no more samples."""
        if self._subscriber is not None:
            unsubscribe(self._subscriber)

    def record_end(self) -> None:
        """Log what was used in all, where anything was measured."""
        self.leave_loop()
        with self._lock:
            was_over, self._is_over = self._is_over, True
            if not was_over and self._has_something():
                self._record()

    def summary(self) -> dict[str, Any]:
        """Return what was used by now, where anything was measured."""
        with self._lock:
            if self._totals is None or not self._has_something():
                return {}
            return {"resources": self._totals.record()}

    def _has_something(self) -> bool:
        return self._totals is not None and self._totals.samples > 0

    def _take(self, sample: Sample, drawn: Mapping[str, float], about: Mapping[str, Any]) -> None:
        """Log a sample, on a shared thread, and what has changed with it."""
        with self._lock, suppress(JournalError):
            if not self._is_over and not self._facts.forked():
                self._log(sample, drawn, about)

    def _log(self, sample: Sample, drawn: Mapping[str, float], about: Mapping[str, Any]) -> None:
        totals, subscriber = self._totals, self._subscriber
        if totals is None or subscriber is None or (journal := self._recorder.first()) is None:
            return
        now = time.monotonic()
        age = now - subscriber.began
        for change in changes(totals.states, sample):
            journal.log_event(STATE, change._asdict())
            if change.state == "ok":
                totals.states.pop(change.source, None)
        totals.states |= sample.states
        metrics = sample.metrics | sample.runs.get(subscriber.key, {})
        if not metrics:
            return
        totals.add(metrics, drawn, now - self._before, about)
        self._before = now
        self._on_used(totals.charged())
        if now >= self._row_due:
            wait = pace(age, subscriber.interval)
            self._row_due = now + 0.75 * wait  # samples come at about that pace, not exactly
            row = {SYSTEM + name: value for name, value in metrics.items()}
            if totals.energy:
                row[f"{SYSTEM}energy_joules"] = totals.energy
            journal.log_metrics(row)
        if is_record_due(age, self._recorded_at):
            self._recorded_at = age
            self._record()

    def _record(self) -> None:
        if self._totals is not None and (journal := self._recorder.first()) is not None:
            with suppress(JournalError):
                journal.log_event(EVENT, self._totals.record())


def _is_wanted(configured: bool) -> bool:
    by_variable = _ON.get(os.environ.get(SWITCH, "").lower())
    return configured if by_variable is None else by_variable
