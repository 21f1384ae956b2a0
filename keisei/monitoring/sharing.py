"""Many sessions that watch one loop share a watchdog; each hears of the stalls while it is open."""

from __future__ import annotations

import threading
import time
from collections.abc import Callable
from contextlib import suppress
from dataclasses import replace

from anyio.lowlevel import current_token

from keisei._io.forks import after_in_child
from keisei.monitoring.watchdog import Stall, Watchdog


class _Shared:
    """A watchdog, and who hears of its stalls.

    Args:
        key: what it is shared by: a loop and a threshold.
    """

    def __init__(self, key: tuple[object, float]) -> None:
        self._key, self.threshold = key, key[1]
        self.listeners: list[Watch] = []
        self.watchdog = Watchdog(key[1], self._hear, self.forget)

    def forget(self) -> None:
        """Share it with nobody more."""
        with _sharing:
            if _shared.get(self._key) is self:
                del _shared[self._key]

    def leave(self, listener: Watch) -> None:
        """Note that a listener needs it no more; end it with the last one.

        Args:
            listener: the listener, which may be told of a stall still.
        """
        with _sharing:
            if not self.watchdog.tells:
                self._remove(listener)
            if any(one.until is None for one in self.listeners):
                return
            self.forget()
        self.watchdog.stop()

    def _hear(self, stall: Stall) -> None:
        for listener in tuple(self.listeners):
            with suppress(Exception):  # one that fails keeps no other from hearing
                listener.hear(stall)
            if listener.until is not None:
                self._remove(listener)

    def _remove(self, listener: Watch) -> None:
        with suppress(ValueError):
            self.listeners.remove(listener)


# Re-entrant: a signal handler may end a session.
_sharing = threading.RLock()
_shared: dict[tuple[object, float], _Shared] = {}


def _share_anew() -> None:
    global _sharing
    _sharing = threading.RLock()
    _shared.clear()


after_in_child(_share_anew)


class Watch:
    """Hears of the stalls of one loop while it is open, with others that do.

    Args:
        shared: the watchdog.
        on_stall: called with each stall, on the watchdog's thread.

    Attributes:
        until: when it has ended, by `time.monotonic`; ``None`` while it has not.
    """

    def __init__(self, shared: _Shared, on_stall: Callable[[Stall], object]) -> None:
        self._shared, self._on_stall = shared, on_stall
        self._since = time.monotonic()
        self.until: float | None = None

    def hear(self, stall: Stall) -> None:
        """Pass on the share of a stall that was while this was open."""
        began, ended = stall.began, stall.began + stall.seconds
        if self._since > began or (self.until is not None and self.until < ended):
            began = max(began, self._since)
            ended = ended if self.until is None else min(ended, self.until)
            if ended - began < self._shared.threshold:
                return
            stall = replace(stall, seconds=ended - began, began=began)
        self._on_stall(stall)

    def stop(self) -> None:
        """End, in the loop: the stall that ends here is told still. A second call does nothing."""
        if self.until is None:
            self._shared.watchdog.beat()
            self.until = time.monotonic()
            self._shared.leave(self)

    def leave(self) -> None:
        """End, as `stop` does; thread-safe, and where the loop does not run any more."""
        if self.until is None:
            self.until = time.monotonic()
            self._shared.leave(self)

    def settle(self, timeout: float) -> None:
        """Wait until it is told what it has to hear; on any thread.

        Args:
            timeout: for how long at most, in seconds.
        """
        self._shared.watchdog.settle(timeout)


def watch(threshold: float, on_stall: Callable[[Stall], object]) -> Watch:
    """Watch the loop that runs here; all who do it with one threshold share a watchdog.

    Args:
        threshold: what counts as a stall, in seconds.
        on_stall: called with each stall, on the watchdog's thread.

    Returns:
        What ends it.

    Raises:
        RuntimeError: no thread can be started.
    """
    key = current_token(), threshold
    with _sharing:
        shared = _shared.get(key)
        if shared is None:
            shared = _Shared(key)
            shared.watchdog.start()
            _shared[key] = shared
        else:
            shared.watchdog.beat()  # the loop turns: what has held it before is a stall of its own
        listener = Watch(shared, on_stall)
        shared.listeners.append(listener)
    return listener
