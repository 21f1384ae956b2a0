"""What has held a run's event loop, a row for each function: added up, read from the journal."""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from dataclasses import dataclass, field
from typing import Any, TypeVar

from keisei.monitoring.stalls import Cause, Frame

STALL = "stall"  # the event of one stall
LAG = "usage.lag"  # the event of an attempt's whole table so far

CAUSES: dict[Cause, str] = {
    "own code": "code",
    "garbage collection": "gc",
    "another thread with the GIL": "gil",
    "no CPU": "no_cpu",
    "suspended": "suspended",
}
_NOBODYS = ("no_cpu", "suspended")  # no function is to blame for these
_OTHERS = "(others)"

MOST_FUNCTIONS = 100  # rows of a table
MOST_EVENTS = 5  # of one function in a minute
_MINUTE = 60.0

_Key = tuple[str | None, str | None]  # function and file
T = TypeVar("T", int, str)
N = TypeVar("N", int, float)


@dataclass
class _Row:
    """What is known of one function.

    Attributes:
        line: where its longest stall was seen.
        count: how often it has held the loop.
        seconds: for how long altogether.
        longest_s: for how long at most.
        causes: how often by the cause's short name.
    """

    line: int | None = None
    count: int = 0
    seconds: float = 0.0
    longest_s: float = 0.0
    causes: dict[str, int] = field(default_factory=dict)

    def add(self, other: _Row) -> None:
        """Add what another row has counted."""
        if other.longest_s >= self.longest_s:
            self.line, self.longest_s = other.line, other.longest_s
        self.count += other.count
        self.seconds += other.seconds
        for cause, count in other.causes.items():
            self.causes[cause] = self.causes.get(cause, 0) + count


class LagTable:
    """The stalls of a loop by function.

    Attributes:
        left_out: how many of them stand in the journal as no event of their own.
    """

    def __init__(self) -> None:
        self.left_out = 0
        self._rows: dict[_Key, _Row] = {}

    def __bool__(self) -> bool:
        return bool(self._rows)

    def add(self, event: Mapping[str, Any]) -> None:
        """Add a stall.

        Args:
            event: what `event_of` has made of it.
        """
        cause = event["cause"]
        row = _Row(event["line"], 1, event["seconds"], event["seconds"], {cause: 1})
        if cause in _NOBODYS:
            row.line = None
            self._add((None, None), row)
        else:
            self._add((event["function"], event["file"]), row)

    def add_table(self, data: object) -> None:
        """Add a whole table; what is none changes nothing.

        Args:
            data: what `as_data` has returned.
        """
        if not isinstance(data, Mapping):
            return
        self.left_out += _number(data.get("left_out"), int)
        rows = data.get("functions")
        for one in rows if isinstance(rows, list) else ():
            if not isinstance(one, Mapping):
                continue
            causes = one.get("causes")
            row = _Row(
                _optional(one.get("line"), int),
                _number(one.get("count"), int),
                _number(one.get("seconds"), float),
                _number(one.get("longest_s"), float),
                {str(k): _number(v, int) for k, v in causes.items()}
                if isinstance(causes, Mapping)
                else {},
            )
            self._add((_optional(one.get("function"), str), _optional(one.get("file"), str)), row)

    def as_data(self) -> dict[str, Any]:
        """Return the table as plain data, the function that took longest first; all in seconds."""
        self._shorten(MOST_FUNCTIONS)
        rows = self._sorted()
        return {
            "stalls": sum(row.count for _, row in rows),
            "seconds": round(sum(row.seconds for _, row in rows), 3),
            "longest_s": round(max((row.longest_s for _, row in rows), default=0.0), 3),
            "left_out": self.left_out,
            "functions": [
                {
                    "function": function,
                    "file": file,
                    "line": row.line,
                    "count": row.count,
                    "seconds": round(row.seconds, 3),
                    "longest_s": round(row.longest_s, 3),
                    "causes": dict(row.causes),
                }
                for (function, file), row in rows
            ],
        }

    def _sorted(self) -> list[tuple[_Key, _Row]]:
        return sorted(
            self._rows.items(), key=lambda item: (item[0][0] == _OTHERS, -item[1].seconds)
        )

    def _add(self, key: _Key, row: _Row) -> None:
        self._rows.setdefault(key, _Row()).add(row)
        if len(self._rows) > 2 * MOST_FUNCTIONS:
            self._shorten(MOST_FUNCTIONS)

    def _shorten(self, most: int) -> None:
        """Add up the least of the functions, where there are too many, in one row."""
        for key, row in self._sorted()[most:]:
            if key[0] != _OTHERS:
                del self._rows[key]
                row.line = None
                self._rows.setdefault((_OTHERS, None), _Row()).add(row)


class Limit:
    """Decides which stalls are events of their own: a function has so many in a minute."""

    def __init__(self) -> None:
        self._minute = 0.0
        self._counts: dict[_Key, int] = {}

    def admits(self, event: Mapping[str, Any], now: float) -> bool:
        """Return whether a stall is an event of its own.

        Args:
            event: what `event_of` has made of it.
            now: the time in seconds, by any clock that goes on.
        """
        if now - self._minute >= _MINUTE:
            self._minute = now
            self._counts.clear()
        key = event["function"], event["file"]
        if len(self._counts) >= MOST_FUNCTIONS and key not in self._counts:
            return False
        self._counts[key] = self._counts.get(key, 0) + 1
        return self._counts[key] <= MOST_EVENTS


def event_of(seconds: float, cause: Cause, frame: Frame | None) -> dict[str, Any]:
    """Return the event of a stall as plain data.

    Args:
        seconds: how long it was.
        cause: what held the loop.
        frame: which frame did, or stood there meanwhile; ``None`` where none was seen.
    """
    return {
        "seconds": round(seconds, 4),
        "cause": CAUSES[cause],
        "function": None if frame is None else frame.function,
        "file": None if frame is None else frame.file,
        "line": None if frame is None else frame.line,
    }


def folded(attempts: Iterable[Iterable[tuple[str, object]]]) -> dict[str, Any] | None:
    """Return the table of a whole run; ``None`` where it says nothing of its loops' lag.

    An attempt's last table counts, and the stalls behind it: a process that was killed has not
    logged its last one.

    Args:
        attempts: for each attempt of each part, name and data of its events in their order; those
            that say nothing of lag are passed over.
    """
    total = LagTable()
    found = False
    for events in attempts:
        table = LagTable()
        for name, data in events:
            if name == LAG and isinstance(data, Mapping):
                found, table = True, LagTable()
                table.add_table(data)
            elif name == STALL and (event := _event(data)) is not None:
                found = True
                table.add(event)
        total.add_table(table.as_data())
    return total.as_data() if found else None


def _event(data: object) -> dict[str, Any] | None:
    """Return the event of a stall; ``None`` where it is not keisei's, or damaged."""
    if not isinstance(data, Mapping) or data.get("cause") not in CAUSES.values():
        return None
    return {
        "seconds": _number(data.get("seconds"), float),
        "cause": data["cause"],
        "function": _optional(data.get("function"), str),
        "file": _optional(data.get("file"), str),
        "line": _optional(data.get("line"), int),
    }


def _optional(value: object, kind: type[T]) -> T | None:
    return value if isinstance(value, kind) else None


def _number(value: object, kind: type[N]) -> N:
    return kind(value) if isinstance(value, int | float) and 0 <= value < 1e15 else kind(0)
