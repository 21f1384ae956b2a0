"""`keisei export`: what runs have logged, for other programs."""

from __future__ import annotations

import io
import json
import os
import sys
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from itertools import chain
from typing import IO, Annotated, Literal

import typer

from keisei._io.directories import OpenDirectory
from keisei._io.files import replacing
from keisei._text import one_line
from keisei.cli.completion import run_names
from keisei.cli.metric_names import missing, select
from keisei.cli.program import app
from keisei.cli.shared import Json, RegistryUrl, Root, failures_of
from keisei.cli.source import source_of
from keisei.errors import quoted
from keisei.journal.records import SYSTEM
from keisei.reports import exporting
from keisei.reports.exporting import FIXED, Record, Row
from keisei.reports.parquet import check_extra, write_parquet
from keisei.run.find import absolute_path
from keisei.store.rows import RunRow

Format = Literal["csv", "parquet", "jsonl"]

_SUFFIXES: dict[str, Format] = {".parquet": "parquet", ".jsonl": "jsonl", ".ndjson": "jsonl"}
_MOST_COLUMNS = 20_000


@app.command()
def export(
    runs: Annotated[
        list[str],
        typer.Argument(metavar="RUN...", help="A run, or several.", autocompletion=run_names),
    ],
    form: Annotated[
        Format | None,
        typer.Option("--format", "-f", help="How; else as the file's name ends, else csv."),
    ] = None,
    output: Annotated[
        str, typer.Option("--output", "-o", metavar="FILE", help="Where to; `-` is the output.")
    ] = "-",
    metrics: Annotated[
        list[str] | None,
        typer.Option("--metric", "-m", metavar="KEY", help="These metrics, or patterns."),
    ] = None,
    wide: Annotated[
        bool, typer.Option("--wide", "-w", help="A column for each metric, a line for each row.")
    ] = False,
    events: Annotated[
        bool, typer.Option("--events", "-e", help="The events, and not the metrics.")
    ] = False,
    root: Root = None,
    url: RegistryUrl = None,
    as_json: Json = False,
) -> None:
    """Write what runs have logged as CSV, Parquet or JSON lines.

    Each line has run, attempt, rank, part, time (seconds since the epoch) and step; then metric and
    value, or with --wide all metrics. Rows of other ranks and of members are among them; what a
    resumed run has left behind is not, nor what it uses of its machine, unless that is named. It is
    read and written row by row; a file is written whole or not at all.

    Exit status: 0 where it is written, 2 where a run or a metric cannot be found or read or the
    file cannot be written, 130 after Ctrl-C.
    """
    with failures_of("export", "interrupted: nothing is written" if output != "-" else ""):
        source = source_of(root, url)
        rows = [*{row.directory: row for row in map(source.one, dict.fromkeys(runs))}.values()]
        kind = form or _SUFFIXES.get(os.path.splitext(output)[1].lower(), "csv")
        if kind == "parquet":
            check_extra()
            if output == "-" and sys.stdout.isatty():
                raise ValueError("Parquet is nothing for a terminal: name a file by --output")
        if events and metrics:
            raise ValueError("--events are no metrics: leave --metric out")
        exported = _Events(rows) if events else _Metrics(rows, metrics or (), wide=wide)
        if output == "-":
            _write(exported, kind, sys.stdout.buffer, escaped=sys.stdout.isatty())
        else:
            with _replaced(output) as file:
                count = _write(exported, kind, file)
            said = {"file": absolute_path(output), "format": kind, "rows": count}
            shown = {**said, "bytes": os.stat(absolute_path(output)).st_size}
            text = f"{count:,} rows written to {quoted(output, 300)}"
            sys.stdout.write((json.dumps(shown, indent=2) if as_json else text) + "\n")
        sys.stdout.flush()


class _Metrics:
    """The metrics of some runs.

    Args:
        rows: the runs.
        wanted: names, or patterns, of metrics.
        wide: whether each has a column.
    """

    what = "metrics"

    def __init__(self, rows: Sequence[RunRow], wanted: Sequence[str], *, wide: bool) -> None:
        self._rows = rows
        self.numbers: Sequence[str] = ("value",)
        self.head: Sequence[str] = (*FIXED, "metric", "value")
        self.as_rows: Callable[[Iterator[Record]], Iterator[Row]] = exporting.long_rows
        keys: list[str] = []
        if wanted or wide:
            known = chain.from_iterable(exporting.keys_of(row.directory) for row in rows)
            keys = list(dict.fromkeys(known))
            if problem := missing(wanted, keys):
                raise ValueError(problem)
            keys = [keys[at] for at in select(wanted, keys)]
            keys = keys if wanted else [key for key in keys if not key.startswith(SYSTEM)]
        self._chosen = frozenset(keys) if wanted else None
        self._system = any(key.startswith(SYSTEM) for key in keys)
        if wide:
            if len(keys) > _MOST_COLUMNS:
                raise ValueError(f"{len(keys):,} columns are too many: leave --wide out")
            self.head = exporting.column_names(keys)
            self.numbers = self.head[len(FIXED) :]
            self.as_rows = lambda records: exporting.wide_rows(records, keys)

    def records(self) -> Iterator[Record]:
        """Yield the rows of all runs."""
        chosen = self._chosen
        wanted = (lambda key: True) if chosen is None else chosen.__contains__
        for row in self._rows:
            yield from exporting.metric_records(
                row.name, row.directory, wanted, system=self._system
            )


class _Events:
    """The events of some runs.

    Args:
        rows: the runs.
    """

    what = "event"
    numbers: Sequence[str] = ()
    head: Sequence[str] = (*FIXED[:-1], "name", "data")
    as_rows = staticmethod(exporting.event_rows)

    def __init__(self, rows: Sequence[RunRow]) -> None:
        self._rows = rows

    def records(self) -> Iterator[Record]:
        """Yield the events of all runs."""
        for row in self._rows:
            yield from exporting.event_records(row.name, row.directory)


def _write(
    exported: _Metrics | _Events, kind: Format, file: IO[bytes], *, escaped: bool = False
) -> int:
    """Write what is exported; return how many lines it has.

    Args:
        exported: what.
        kind: how.
        file: where to.
        escaped: whether it is a terminal, which no name may steer.
    """
    records = exported.records()
    if kind == "parquet":
        return write_parquet(exported.head, exported.as_rows(records), exported.numbers, file)
    text = io.TextIOWrapper(file, "utf-8", "backslashreplace", newline="", write_through=False)
    try:
        if kind == "jsonl":
            return exporting.write_lines(records, exported.what, text)
        head, rows = exported.head, exported.as_rows(records)
        if escaped:
            head, rows = [one_line(name) for name in head], map(_escaped, rows)
        return exporting.write_csv(head, rows, text)
    finally:
        text.flush()
        text.detach()


def _escaped(row: Row) -> Row:
    return [one_line(cell) if isinstance(cell, str) else cell for cell in row]


@contextmanager
def _replaced(output: str) -> Iterator[IO[bytes]]:
    """Yield the file that takes the place of the output once it is whole."""
    path = absolute_path(output)
    if os.path.isdir(path):
        raise IsADirectoryError(f"{quoted(output, 300)} is a directory: name a file in it")
    with (
        OpenDirectory(os.path.dirname(path)) as directory,
        replacing(directory, os.path.basename(path)) as fd,
        open(fd, "wb", buffering=1 << 20, closefd=False) as file,
    ):
        yield file
