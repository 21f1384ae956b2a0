"""What a run has logged, row by row, for other programs: CSV and JSON lines."""

from __future__ import annotations

import csv
import json
import math
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from itertools import count
from typing import Any, NamedTuple, TextIO

from keisei._text import as_utf8
from keisei.journal.reader import RunJournal
from keisei.redaction import clean
from keisei.reports.words import non_finite
from keisei.run.part_file import rank_of

FIXED = ("run", "attempt", "rank", "part", "time", "step")  # columns of each record

Row = Sequence[object]


class Record(NamedTuple):
    """A row of metrics, or an event.

    Attributes:
        run: the run's name.
        attempt: the attempt that has logged it.
        rank: the rank that has, 0 for the owner; ``None`` where a member has.
        part: the rank or the member; ``None`` for the owner.
        time: when, in seconds since the epoch.
        step: its training step, if it has one.
        values: the metrics; of an event its `name` and `data`.
    """

    run: str
    attempt: int
    rank: int | None
    part: str | None
    time: float
    step: int | None
    values: Mapping[str, object]


def metric_records(
    run: str, directory: str, wanted: Callable[[str], bool], *, system: bool = False
) -> Iterator[Record]:
    """Yield the rows of a run and of all its parts, without what is superseded.

    Args:
        run: the run's name.
        directory: its directory.
        wanted: returns whether a metric is exported.
        system: yield the rows of its machine, too.

    Raises:
        OSError: a journal cannot be read.
    """
    owner = RunJournal(directory)
    for part in (None, *owner.parts()):
        rank = 0 if part is None else rank_of(part)
        chosen: dict[tuple[str, ...], list[tuple[int, str]]] = {}
        for attempt, superseded, _, keys, raw in owner.of(part).merged(system=system):
            if superseded:
                continue
            if keys not in chosen:
                chosen[keys] = [(at, key) for at, key in enumerate(keys, 1) if wanted(key)]
            if columns := chosen[keys]:
                values = {key: raw[at] for at, key in columns}
                yield Record(run, attempt, rank, part, raw[0], raw[-1], values)  # type: ignore[arg-type]


def event_records(run: str, directory: str) -> Iterator[Record]:
    """Yield the events of a run and of all its parts; `values` has their `name` and `data`.

    Args:
        run: the run's name.
        directory: its directory.

    Raises:
        OSError: a journal cannot be read.
    """
    owner = RunJournal(directory)
    for part in (None, *owner.parts()):
        rank = 0 if part is None else rank_of(part)
        for event in owner.of(part).events():
            said = {"name": event.name, "data": clean(event.data)}
            yield Record(run, event.attempt, rank, part, event.time, None, said)


def keys_of(directory: str) -> list[str]:
    """Return the names of all metrics of a run and its parts, in the order in which they came.

    Raises:
        OSError: a journal cannot be read.
    """
    owner, found = RunJournal(directory), dict[str, None]()
    for part in (None, *owner.parts()):
        journal = owner.of(part)
        for attempt in journal.attempts():
            with journal.open(attempt) as reader:
                for shape in reader.shapes():
                    found.update(dict.fromkeys(shape))
    return list(found)


def long_rows(records: Iterable[Record]) -> Iterator[Row]:
    """Yield a row for each value: the fixed columns, `metric` and `value`."""
    for record in records:
        fixed = record[:-1]
        for key, value in record.values.items():
            yield (*fixed, as_utf8(key), value)


def wide_rows(records: Iterable[Record], keys: Sequence[str]) -> Iterator[Row]:
    """Yield a row for each record: the fixed columns, and one for each metric.

    Args:
        records: the records.
        keys: the metrics.
    """
    for record in records:
        get = record.values.get
        yield (*record[:-1], *(get(key) for key in keys))


def event_rows(records: Iterable[Record]) -> Iterator[Row]:
    """Yield a row for each event: the fixed columns but the step, `name`, and `data` as JSON."""
    for record in records:
        said = record.values
        data = json.dumps(finite(said["data"]), default=str)
        yield (*record[:-2], as_utf8(str(said["name"])), data)


def column_names(keys: Sequence[str]) -> list[str]:
    """Return the heads of wide rows: a metric that is called as a fixed column is `metric/...`."""
    names = list(FIXED)
    for key in keys:
        name = as_utf8(key)
        while name in FIXED:
            name = f"metric/{name}"
        names.append(name)
    return names


def write_csv(head: Row, rows: Iterable[Row], file: TextIO) -> int:
    """Write rows as CSV (RFC 4180); return how many.

    What there is none of is empty; a number that is none is `nan`, `inf` or `-inf`, a flag is
    `True` or `False`, as pandas and polars read them.
    """
    written = count()
    writer = csv.writer(file)
    writer.writerow(head)
    writer.writerows(row for row, _ in zip(rows, written, strict=False))
    return next(written)


def write_lines(records: Iterable[Record], what: str, file: TextIO) -> int:
    """Write records as JSON, one a line; return how many.

    Args:
        records: the records.
        what: `metrics`, which become an object of their own, or `event`.
        file: where to.
    """
    written = 0
    for record in records:
        written += 1
        line: dict[str, Any] = dict(zip(FIXED, record[:-1], strict=True))
        if what == "metrics":
            line["metrics"] = record.values
        else:
            del line["step"]
            line |= record.values
        try:
            text = json.dumps(line, allow_nan=False, default=str)
        except ValueError:
            text = json.dumps(finite(line), allow_nan=False, default=str)
        file.write(text + "\n")
    return written


def finite(value: object) -> object:
    """Return a value as JSON has it: numbers that are none as text."""
    if isinstance(value, float) and not math.isfinite(value):
        return non_finite(value)
    if isinstance(value, Mapping):
        return {str(key): finite(inner) for key, inner in value.items()}
    if isinstance(value, list | tuple):
        return [finite(inner) for inner in value]
    return value
