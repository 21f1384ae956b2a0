"""What an open page is told as it happens, by server-sent events."""

from __future__ import annotations

import json
import time
from collections.abc import AsyncIterator, Callable
from itertools import islice
from typing import Any, Protocol

import anyio
from anyio import to_thread

from keisei.dashboard import details
from keisei.dashboard.kept import Kept
from keisei.dashboard.listing import Listing
from keisei.errors import KeiseiError
from keisei.redaction import clean
from keisei.run.layout import TRAINING_LOG, log_file
from keisei.run.log_tail import LogTail

_TICK = 0.25  # seconds between two looks
_ALIVE = 5.0  # seconds after which a silent stream says that it lives
_MOST_LINES = 500  # of a log that are sent at once


class Stream(Protocol):
    """What is looked at again and again.

    Attributes:
        every: how often, in seconds.
    """

    every: float

    def look(self) -> dict[str, Any] | None:
        """Return what has changed; it blocks."""

    def close(self) -> None:
        """Close the files."""


class RunsStream:
    """The rows of the list that have changed.

    Args:
        listing: the runs.
        query: which.
        order_by: in which order.
        limit: the most.
        extra: columns beside the usual ones.
    """

    every = 1.0

    def __init__(
        self, listing: Listing, query: str, order_by: str, limit: int, extra: list[str]
    ) -> None:
        self._listing, self._asked, self._extra = listing, (query, order_by, limit), extra
        self._sent: dict[str, dict[str, Any]] = {}
        self._before: object = None

    def look(self) -> dict[str, Any] | None:
        """Return the names in order, and the rows that are not as they were."""
        rows, counts, total = self._listing.find(*self._asked)
        now = {row.name: details.row_data(row, self._extra) for row in rows}
        changed = [data for name, data in now.items() if self._sent.get(name) != data]
        head = (list(now), counts, total)
        if not changed and head == self._before:
            return None
        self._sent, self._before = now, head
        return {"order": head[0], "rows": changed, "counts": counts, "total": total}

    def close(self) -> None:
        """Do nothing."""


class RunStream:
    """How runs go on: their state, how many rows there are, and the lines of a log.

    Args:
        listing: the runs.
        kept: their series.
        names: which runs.
        part: the part of the run; ``None`` for the owner's own.
        wants_log: whether the lines of the first one's log are wanted.
    """

    every = _TICK

    def __init__(
        self, listing: Listing, kept: Kept, names: list[str], part: str | None, *, wants_log: bool
    ) -> None:
        self._listing, self._kept, self._names, self._part = listing, kept, names, part
        self._wants_log = wants_log
        self._log: LogTail | None = None
        self._states: dict[str, tuple[float, dict[str, Any]]] = {}
        self._before: object = None

    def look(self) -> dict[str, Any] | None:
        """Return the state of each run, where anything has changed."""
        found = [self._one(name) for name in self._names]
        lines = self._lines() if self._wants_log else []
        if not lines and found == self._before:
            return None
        self._before = found
        return {"runs": found, "lines": lines}

    def close(self) -> None:
        """Close the log."""
        if self._log is not None:
            self._log.close()
            self._log = None

    def _one(self, name: str) -> dict[str, Any]:
        checked, state = self._states.get(name, (0.0, {}))
        if time.monotonic() - checked >= 1.0:
            try:
                row = self._listing.row(name)
            except FileNotFoundError:
                self._states[name] = time.monotonic(), {"name": name, "status": "gone"}
                return self._states[name][1]
            state = {**details.row_data(row), "directory": row.directory}
            self._states[name] = time.monotonic(), state
        if state.get("status") == "gone":
            return state
        try:
            run = self._kept.run(state["directory"], self._part)
        except OSError as exc:
            return {**state, "problem": str(exc)}
        metrics, step = len(run.keys()), run.last_step()
        return {
            **state,
            "rows": run.rows,
            "metrics": metrics,
            "events": len(run.events),
            "media": len(run.media),
            "step": step,
            "share": run.share,
        }

    def _lines(self) -> list[str]:
        directory = self._states.get(self._names[0], (0.0, {}))[1].get("directory")
        if directory is None:
            return []
        if self._log is None:
            self._log = LogTail(directory, log_file(TRAINING_LOG, self._part))
            found = [*self._log.last(_MOST_LINES)]
        else:
            found = [*islice(self._log.new(), 100 * _MOST_LINES)][-_MOST_LINES:]
        return [clean(line) for line in found]


async def streamed(stream: Stream, stopping: Callable[[], bool]) -> AsyncIterator[bytes]:
    """Yield what a stream says as server-sent events, until the server ends.

    Args:
        stream: the stream.
        stopping: whether the server ends.
    """
    due = said = 0.0
    try:
        while not stopping():
            now = anyio.current_time()
            if now < due:
                await anyio.sleep(min(_TICK, due - now))
                continue
            due = now + stream.every
            try:
                news = await to_thread.run_sync(stream.look)
            except (OSError, ValueError, KeiseiError) as exc:
                news = {"problem": clean(str(exc))}
                due = now + 2.0
            if news is not None:
                text = json.dumps(news, allow_nan=False, separators=(",", ":"))
                yield f"data: {text}\n\n".encode()
                said = now
            elif now - said >= _ALIVE:
                yield b": alive\n\n"
                said = now
    finally:
        stream.close()
