"""Rows and events on their way into a run of W&B's: each of them once, whatever is killed.

A row has its number in the run's record as a value of its own, an event at the end of its line.
The SDK's service, another process, keeps both in the run's file in the order in which they came:
so the last number in the files of all attempts tells what is held.
"""

from __future__ import annotations

import importlib
import json
import os
import re
import time
from collections.abc import Iterable, Mapping, Sequence
from contextlib import suppress
from datetime import UTC, datetime
from itertools import groupby
from typing import Any

from keisei.errors import TrackerError
from keisei.journal.reader import Event, Row
from keisei.journal.records import is_system, of_part
from keisei.redaction import clean
from keisei.trackers.base import Media, Position, Record
from keisei.trackers.media import event_of
from keisei.trackers.wandb import local_runs, private, run_file
from keisei.trackers.wandb.link import Link, is_finished, link_of
from keisei.trackers.wandb.media import object_of, say, send_artifact

STEP = "global_step"
NUMBER = "_keisei"
# How often the service writes its file, in seconds: as long as that a `send` takes.
FLUSH_INTERVAL = 0.02
PATIENCE = 10.0

_POLL = 0.002
_RESERVED = {"", "_step", "_timestamp", "_runtime", "_wandb", NUMBER, STEP}
_NUMBER = re.compile(r"(\d{1,18})/(\d{1,18})(?: (.+))?", re.ASCII)
_LINE_END = re.compile(rf"\[{NUMBER} (.+)\]\n?\Z")


class Rows:
    """Sends a run its rows and events, and knows what is held of them.

    Args:
        native: the SDK's run.
        directory: the run's directory, where the SDK keeps the files of all its attempts.
        file: the file of this one; ``None`` where it is not known, and `send` cannot wait for it.
        on_server: the last rows that the server had when this attempt began.
        part: the part of the run whose rows these are, under its name; ``None`` for the owner's.
        lags: whether the SDK (before 0.31) writes the file only when 32 KiB have come, and at the
            end. Then a row counts as sent once the service has it, and as kept once the file has.

    Attributes:
        directory: the run's directory, or the one of a part in which the SDK keeps its files.
        rewound: the position to which W&B has gone back before the file began; else ``None``.
    """

    def __init__(
        self,
        native: Any,
        directory: str,
        file: str | None,
        on_server: Iterable[Mapping[str, object]] = (),
        part: str | None = None,
        *,
        lags: bool = False,
    ) -> None:
        self._native, self._part = native, part
        self.lags = lags
        self._handed: Position | None = None
        self.directory = directory
        try:
            run_file.parsed(b"")
            self._blind = False
        except private.MissingName:  # nobody can read the files
            self._blind, file = True, None
        self._file = file
        self._on_server = [number_in(row, part) for row in on_server]
        self.rewound: Position | None = None
        self._awaited: Position | None = None
        self._stepped = False

    def send(self, records: Sequence[Record]) -> None:
        """Log records; returns when the run's file has them, or where that lags the service.

        Args:
            records: rows and events.

        Raises:
            TimeoutError: the SDK's service does not write them.
            ConnectionError: it has gone.
            TrackerError: the run has been ended. What the SDK raises is raised as it is.
        """
        if not records:
            return
        if self._finished:
            raise TrackerError("the W&B run was ended by its own finish()")
        if not self._stepped and any(isinstance(r, Row) and r.step is not None for r in records):
            # Charts are drawn over the training step; what users log beside goes with the last one.
            self._native.define_metric("*", step_metric=STEP)
            self._stepped = True
        for is_media, some in groupby(records, lambda record: isinstance(record, Media)):
            self._hand_over(list(some), None if is_media else link_of(self._native))
        if not self._settled():
            raise ConnectionError("W&B's service process has gone")

    def _hand_over(self, records: list[Record], link: Link | None) -> None:
        if link is None:
            for record in records:
                _log(self._native, record, self._part)
                self._awaited = Position(record.attempt, record.seq)
        else:
            requests = _requests(link, records, self._part)
            passed: list[Any] = []
            if not self.lags:
                self._awaited = Position(records[-1].attempt, records[-1].seq)
            try:
                link.publish(requests, passed)
            finally:
                if self.lags and passed:
                    last = records[len(passed) - 1]
                    self._awaited = Position(last.attempt, last.seq)

    def position(self) -> Position | None:
        """Return the last record that is held: the run's files have it, or the server had.

        Where the file lags, it is the last one that the service has, while that lives.

        Raises:
            TimeoutError: there are some of which it is not known yet.
        """
        self._settled()
        if self._handed is not None:
            link = link_of(self._native)
            if not self._finished and (link is None or link.answers(PATIENCE)):
                return self._handed
            if self._file is not None:
                with suppress(FileNotFoundError):
                    self._written(self._file, self._handed, alive=False)
        return self._held()

    def kept(self) -> Position | None:
        """Return the last record that the files have; ``None`` where they have all that was sent.

        Raises:
            OSError: a directory cannot be read.
        """
        return (self._held() or Position(0, -1)) if self.lags and not self._blind else None

    def wait_closed(self) -> None:
        """Wait until the file of a run that has ended has all that was sent; blocks.

        Raises:
            TimeoutError: it does not get it.
        """
        if self._handed is not None and self._file is not None:
            with suppress(FileNotFoundError):  # somebody has removed it
                self._written(self._file, self._handed, alive=True)

    @property
    def _finished(self) -> bool:
        return is_finished(self._native)

    def _held(self) -> Position | None:
        if self._blind:
            return None
        paths = [attempt.path for attempt in local_runs.attempts_in(self.directory)]
        if self.rewound is not None:  # before the file began
            paths = [path for path in paths if path == self._file]
        found: list[Position | None] = [self.rewound, *self._on_server]
        for path in reversed(paths):  # a later one may go on from before where an earlier one ended
            with suppress(OSError):
                found.append(last_number(path, self._part))
                if found[-1] is not None:
                    break
        held = max((number for number in found if number is not None), default=None)
        if self.lags:  # a kill may have left nothing of an attempt in its file
            earlier = local_runs.attempts_in(self.directory, empty=True)
            paths = [attempt.path for attempt in earlier]
        if held is None and any(path != self._file for path in paths):
            return Position(1, -1)
        return held

    def _settled(self) -> bool:
        """Wait until the file has all that was handed over; false where the service has gone."""
        if self._awaited is None:
            return True
        link = link_of(self._native)
        alive = link is None or link.answers(PATIENCE)
        if self.lags:
            self._handed = self._awaited if alive else self._handed
        elif self._file is not None:
            with suppress(FileNotFoundError):  # somebody has removed it: nothing can be told
                alive = self._written(self._file, self._awaited, alive)
        self._awaited = None
        return alive

    def _written(self, file: str, awaited: Position, alive: bool) -> bool:
        give_up, size = time.monotonic() + PATIENCE, -1
        while True:
            before, size = size, os.path.getsize(file)
            if size != before:
                held = last_number(file, self._part)
                if held is not None and held >= awaited:
                    return True
            elif not alive:
                return False
            elif time.monotonic() > give_up:
                raise TimeoutError("W&B's service does not write the run's file")
            time.sleep(_POLL if alive else 2 * FLUSH_INTERVAL)


def _requests(link: Link, records: Iterable[Record], part: str | None) -> list[Any]:
    """Make the messages that `run.log` and `run.write_logs` would send."""
    made = []
    for record in records:
        if isinstance(record, Row):
            items = _items(record, part).items()
            made.append(link.row({name: json.dumps(value) for name, value in items}))
        elif isinstance(record, Event):
            made.append(link.line(_line(record, part)))
    return made


def _log(native: Any, record: Record, part: str | None) -> None:
    """Log a record by the SDK's public methods."""
    if isinstance(record, Row):
        native.log(_items(record, part))
        return
    if isinstance(record, Media):
        sdk = importlib.import_module("wandb")
        shown = None if record.kind == "file" else object_of(sdk, native, record)
        if shown is not None:
            row = Row(record.seq, record.time, record.step, record.attempt, {})
            try:
                native.log({**_items(row, part), _media_name(record, part): shown})
                return
            except Exception as exc:  # noqa: BLE001 - a server that takes no artifacts, before 0.30
                say(record, exc)
        send_artifact(sdk, native, record)
        record = event_of(record)
    if write := getattr(native, "write_logs", None):
        write(_line(record, part))


def _media_name(media: Media, part: str | None) -> str:
    """Return the name of media on W&B, apart from those of metrics."""
    return _name(
        f"{media.kind}/{media.name}" if part is None else f"{part}/{media.kind}/{media.name}"
    )


def _items(row: Row, part: str | None) -> dict[str, float | str]:
    """Return the values that a row has on W&B."""
    items: dict[str, float | str] = {} if row.step is None else {STEP: _number(row.step)}
    for name, value in row.values.items():
        known = _name(name if part is None else of_part(part, name))
        items[known] = value if type(value) is not int else _number(value)
    items["_timestamp"] = row.time
    items[NUMBER] = _numbered(row, part)
    return items


def _name(name: str) -> str:
    """Return a metric's name on W&B, where some belong to W&B, and all have to be encoded."""
    if name.replace("own", "") in _RESERVED and name != "own":  # no two names become one
        return f"own{name}"
    return name if name.isascii() else _encodable(name)


def _number(value: int) -> float:
    """Return an integer as one that W&B takes, and as a float where it is larger."""
    if -(2**63) <= value < 2**63:
        return value
    try:
        return float(value)
    except OverflowError:
        return float("inf") if value > 0 else float("-inf")


def _encodable(text: str) -> str:
    return text.encode("utf-8", "backslashreplace").decode()


def _numbered(record: Record, part: str | None) -> str:
    return f"{record.attempt}/{record.seq}" + ("" if part is None else f" {part}")


def _line(event: Event, part: str | None) -> str:
    """Return an event as a line of the run's log."""
    moment = datetime.fromtimestamp(event.time, UTC).isoformat(timespec="milliseconds")
    said = clean(f"{json.dumps(event.name)[1:-1]} {json.dumps(event.data)}")
    return f"{moment} {said} [{NUMBER} {_numbered(event, part)}]\n"


def last_number(path: str, part: str | None = None) -> Position | None:
    """Return the last record that a run file holds; reads no more of its end than it has to.

    Args:
        path: the file.
        part: the part of the run whose records are meant; ``None`` for the owner's own.

    Raises:
        OSError: it cannot be read.
    """
    for payload in run_file.last_payloads(path, NUMBER.encode()):
        record = run_file.parsed(payload)
        kind = record.WhichOneof("record_type")
        number = None
        if kind == "history":  # and no summary, which comes first, with the same value
            number = number_of(record, part)
        elif kind == "output_logger" and (found := _LINE_END.search(record.output_logger.line)):
            number = number_in({NUMBER: found[1]}, part)
        if number is not None:
            return number
    return None


def number_of(record: Any, part: str | None = None) -> Position | None:
    """Return which record of the run a history row of a run file is; ``None`` for anything else.

    Args:
        record: the SDK's own record.
        part: the part of the run whose rows are meant; ``None`` for the owner's own.
    """
    if record.WhichOneof("record_type") == "history":
        for item in record.history.item:
            if (item.key or "/".join(item.nested_key)) == NUMBER:
                return number_in({NUMBER: json.loads(item.value_json)}, part)
    return None


def is_system_row(row: Mapping[str, object]) -> bool:
    """Return whether a history row has what the run uses of its machine, and nothing else.

    Args:
        row: the row's values, or at least their names.
    """
    return is_system([name for name in row if name != STEP and not name.startswith("_")])


def names_of(record: Any) -> dict[str, object]:
    """Return the names of what a history row of a run file has; their values are not read."""
    items = record.history.item
    return dict.fromkeys(item.key or "/".join(item.nested_key) for item in items)


def number_in(row: Mapping[str, object], part: str | None = None) -> Position | None:
    """Return which record a history row is, by its hidden number; ``None`` where it is not ours.

    Args:
        row: the row's values.
        part: the part of the run whose rows are meant; ``None`` for the owner's own.
    """
    text = row.get(NUMBER)
    found = _NUMBER.fullmatch(text) if isinstance(text, str) else None
    return Position(int(found[1]), int(found[2])) if found and found[3] == part else None
