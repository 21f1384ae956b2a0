"""W&B's SDK in the program (`wandb.in_process: true`), which may not be held up at its exit.

The SDK may wait for a server for ever; the program may not.
"""

from __future__ import annotations

import atexit
import os
import threading
import time
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from typing import Any, Literal

from keisei._io.switching import quiet_imports
from keisei.run.status import FinalStatus
from keisei.trackers.base import RunInfo
from keisei.trackers.wandb import sdk
from keisei.trackers.wandb.tracker import WandbRun, WandbTracker, start_run


class ExitGuard:
    """Has the process end although the SDK waits for a server that does not answer.

    The SDK's own atexit hook waits for its service process, and that for the server. When the
    main thread has ended, nobody waits any more for a call of ours that is still under way. It
    gets a moment to come to its end (a late run to be closed, the local files to be flushed, which
    happens every 0.02 s); then the service is killed, and the SDK's hook finds nothing to wait for.
    A run that the program forgot to end is left to the SDK's hook, until its own deadline.
    """

    MOMENT = 0.4

    def __init__(self) -> None:
        self._changed = threading.Condition()
        self._process: int | None = None
        self._under_way = 0
        self._live: dict[int, float] = {}
        self._kill = threading.Event()
        self._grace = 0.0

    @contextmanager
    def call(self) -> Iterator[None]:
        """Count a call of the SDK's as under way."""
        with self._changed:
            if self._process != os.getpid():  # the first call, or the first in a forked child
                self._process = os.getpid()
                self._under_way = 0
                self._live.clear()
                # Runs before the hooks of `atexit`, whatever the order they were registered in.
                getattr(threading, "_register_atexit", atexit.register)(self._at_exit)
                threading.Thread(target=self._killer, name="keisei-exit", daemon=True).start()
            self._under_way += 1
        try:
            yield
        finally:
            with self._changed:
                self._under_way -= 1
                self._changed.notify_all()

    def hold(self, native: object, finish_timeout: float) -> None:
        """Note a run that has to end within so many seconds."""
        with self._changed:
            self._live[id(native)] = finish_timeout

    def let_go(self, native: object) -> None:
        """Forget a run that is being ended."""
        with self._changed:
            self._live.pop(id(native), None)

    def _at_exit(self) -> None:
        if not self._all_ended(self.MOMENT):
            self._kill.set()
            # Now each call fails; a thread that still wrote its failure to stderr while the
            # interpreter goes down would make that abort.
            self._all_ended(self.MOMENT)
        elif self._live:
            # Once its hook has begun to tear down, the service flushes no more until the server
            # has answered: what was logged in the last 0.02 s would go with it.
            time.sleep(self.MOMENT)
            self._grace = max(self._live.values())
            self._kill.set()

    def _all_ended(self, timeout: float) -> bool:
        with self._changed:
            return self._changed.wait_for(lambda: not self._under_way, timeout)

    def _killer(self) -> None:
        self._kill.wait()
        time.sleep(self._grace)
        while True:  # a start that is under way may bring a service up only now
            sdk.kill_service()
            time.sleep(0.02)


exit_guard = ExitGuard()


@dataclass
class GuardedRun(WandbRun):
    """A run whose end the program's exit does not wait for."""

    def finish(self, status: FinalStatus) -> None:
        """End the run, as `WandbRun` does."""
        with exit_guard.call():
            exit_guard.let_go(self.native)
            super().finish(status)

    def discard(self) -> None:
        """End a run that has tracked nothing, as `WandbRun` does."""
        with exit_guard.call():
            exit_guard.let_go(self.native)
            super().discard()


class InProcessWandbTracker(WandbTracker):
    """Starts runs with the W&B SDK in the program itself; see `WandbTracker`."""

    def load(self) -> Any:
        """Import the SDK, in a way that the loop bears."""
        with quiet_imports("wandb"):
            return sdk.load_sdk()

    def start(self, run: RunInfo) -> WandbRun:
        """Start a run, as `WandbTracker` does."""
        with exit_guard.call():
            return super().start(run)

    def init(
        self, module: Any, run: RunInfo, mode: Literal["online", "offline"], run_id: str
    ) -> WandbRun:
        """Start a run of the SDK's, whose end the program's exit does not wait for."""
        with exit_guard.call():
            timeout = self.config.finish_timeout
            started = start_run(module, self.config, run, mode, run_id, max(0.05, timeout - 0.3))
            exit_guard.hold(started.native, timeout)
            return GuardedRun(**vars(started))
