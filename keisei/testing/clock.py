"""A clock that stands still until a test moves it, for what keisei writes of the wall clock."""

from __future__ import annotations

import importlib
import time
from collections.abc import Callable
from datetime import UTC, datetime, timedelta, tzinfo
from typing import Any

START = datetime(2030, 1, 1, tzinfo=UTC)

# Where keisei reads the wall clock to write a run, below `keisei`: by `time.time()`, by a `time`
# that is imported from there, and by `datetime.now()`.
_BY_MODULE = ("run.names", "session.media_methods", "session.recording")
_BY_FUNCTION = ("journal.file", "journal.unread", "journal.writer")
_BY_CLASS = ("checkpoints.content", "run.owned")


class Clock:
    """A wall clock that stands still until it is moved.

    Args:
        start: what it shows at first, with a time zone.

    Raises:
        ValueError: the start has no time zone.
    """

    def __init__(self, start: datetime = START) -> None:
        if start.tzinfo is None:
            raise ValueError(f"the clock's start {start.isoformat()!r} has no time zone")
        self._now = start

    @property
    def now(self) -> datetime:
        """What it shows."""
        return self._now

    def advance(self, seconds: float) -> None:
        """Move it on.

        Args:
            seconds: how far; it does not go back.

        Raises:
            ValueError: the number is negative.
        """
        if seconds < 0:
            raise ValueError(f"a clock does not go back: {seconds} s")
        self._now += timedelta(seconds=seconds)

    def install(self, put: Callable[[object, str, object], None]) -> None:
        """Take the place of the wall clock, and of chance in run names and session ids.

        Args:
            put: sets an attribute, as `setattr` or a fixture's ``monkeypatch.setattr`` does.
        """
        stand_ins: list[tuple[tuple[str, ...], str, object]] = [
            (_BY_MODULE, "time", _Time(self)),
            (_BY_FUNCTION, "time", self.time),
            (_BY_CLASS, "datetime", _datetime_by(self)),
        ]
        for modules, name, stand_in in stand_ins:
            for module in modules:
                put(importlib.import_module(f"keisei.{module}"), name, stand_in)
        names = importlib.import_module("keisei.run.names")
        put(names, "secrets", _NoChance())
        put(names, "_last_tick", 0)

    def time(self) -> float:
        """Return what it shows in seconds since 1970."""
        return self._now.timestamp()


class _Time:
    """What stands in for the module `time`: only the wall clock is the test's.

    Args:
        clock: the clock.
    """

    def __init__(self, clock: Clock) -> None:
        self._clock = clock

    def __getattr__(self, name: str) -> Any:
        return getattr(time, name)

    def time(self) -> float:
        """Return the clock's time, in seconds since 1970."""
        return self._clock.time()

    def time_ns(self) -> int:
        """Return the clock's time, in nanoseconds since 1970."""
        since = self._clock.now - datetime(1970, 1, 1, tzinfo=UTC)
        return since // timedelta(microseconds=1) * 1000


class _NoChance:
    """What stands in for `secrets` where names are made."""

    def randbits(self, count: int) -> int:
        """Return 0."""
        return 0


def _datetime_by(clock: Clock) -> type[datetime]:
    """Return a class that is `datetime` but for what it calls now."""

    def now(cls: type[datetime], tz: tzinfo | None = None) -> datetime:
        return datetime.fromtimestamp(clock.time(), tz)

    return type("datetime", (datetime,), {"now": classmethod(now)})
