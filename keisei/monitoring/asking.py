"""Reads a source on a thread of its own, so that one that hangs holds up nobody else."""

from __future__ import annotations

import threading
import time

from keisei.monitoring.readings import Reading, Sample, Source

_FIRST_PAUSE, _LONGEST_PAUSE = 1.0, 60.0  # seconds before a source that has failed is read again
_LONGEST_TEXT = 200


class Asked:
    """One source, asked again and again; its methods are for one thread.

    Args:
        source: the source.
    """

    def __init__(self, source: Source) -> None:
        self.source = source
        self._wake = threading.Semaphore(0)
        self._answered = threading.Event()
        self._outcome: Reading | BaseException | None = None
        self._since: float | None = None  # when the question was put that waits for its answer
        self._is_first = True
        self._again_at, self._pause = 0.0, _FIRST_PAUSE
        name = f"keisei-{source.name}"
        threading.Thread(target=self._serve, name=name, daemon=True).start()

    def ask(self, now: float) -> None:
        """Ask it, where it has answered the last question, and its pause is over."""
        if self._since is None and now >= self._again_at:
            self._since = now
            self._answered.clear()
            self._wake.release()

    def wait(self, until: float) -> None:
        """Wait for its answer, if it has been asked."""
        if self._since is not None:
            self._answered.wait(max(0.0, until - time.monotonic()))

    def collect(self, sample: Sample, patience: float) -> None:
        """Add what it has answered to a sample, or how it is.

        Args:
            sample: the sample.
            patience: after how many seconds without an answer it hangs; its first answer, before
                which a library is loaded and begins, may take twice as long.
        """
        name, now = self.source.name, time.monotonic()
        if self._since is None:
            return
        if not self._answered.is_set():
            waited = now - self._since
            if waited >= (2 * patience if self._is_first else patience):
                sample.states[name] = ("hung", "it does not answer")
            return
        self._since, self._is_first = None, False
        outcome, self._outcome = self._outcome, None
        if isinstance(outcome, Reading):
            self._pause = _FIRST_PAUSE
            sample.add(name, outcome)
            return
        if outcome is None:
            sample.states[name] = ("absent", "")
        else:
            sample.states[name] = ("failed", f"{type(outcome).__name__}: {outcome}"[:_LONGEST_TEXT])
        self._again_at = now + self._pause
        self._pause = min(2 * self._pause, _LONGEST_PAUSE)

    def _serve(self) -> None:
        while True:
            self._wake.acquire()
            try:
                self._outcome = self.source.read()
            except BaseException as exc:  # noqa: BLE001 - a library's own, or its `sys.exit`
                self._outcome = exc
            self._answered.set()
