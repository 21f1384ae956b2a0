"""`keisei tail`: what a run logs, as it comes."""

from __future__ import annotations

import json
import math
import os
import sys
from collections import deque
from collections.abc import Iterator
from contextlib import closing, suppress
from datetime import datetime
from time import monotonic, sleep
from typing import Annotated, Any

import typer
from rich.cells import cell_len
from rich.console import Console
from rich.text import Text

from keisei.cli.log_lines import for_terminal
from keisei.cli.metric_names import missing, short_number, shorten
from keisei.cli.parts import Part, journal_of
from keisei.cli.program import app
from keisei.cli.shared import Keys, Root, Run, failures_of, plain
from keisei.cli.tail_reader import LogTail, RowsTail, ShownRow
from keisei.errors import quoted
from keisei.journal.records import as_float
from keisei.redaction import clean
from keisei.run.find import find_at, find_run, locate, root_of_runs
from keisei.run.layout import RECORD_FILE, TRAINING_LOG, log_file
from keisei.run.status import FINAL

_INTERVAL = 0.2  # seconds between two polls of the files
_OWNER_INTERVAL = 1.0  # seconds between two checks whether the owner lives
_MOST_ROWS, _MOST_LINES = 10, 100  # that are shown of one poll
_ENDS = (*FINAL, "died")
_KEY = 40  # columns of a metric's name


@app.command()
def tail(
    run: Run,
    keys: Keys = None,
    root: Root = None,
    lines: Annotated[
        int,
        typer.Option(
            "-n",
            "--lines",
            min=0,
            metavar="N",
            show_default=False,
            help="How many rows and lines to begin with; 10.",
        ),
    ] = 10,
    follow: Annotated[
        bool,
        typer.Option(
            "--follow/--no-follow",
            show_default=False,
            help="Show what comes until the run has ended, or not.",
        ),
    ] = True,
    part: Part = None,
    metrics: Annotated[
        bool | None, typer.Option("--metrics/--log", help="Only the metrics, or only the log.")
    ] = None,
    wait: Annotated[
        bool, typer.Option("--wait", help="Wait for the run, and for its next attempts.")
    ] = False,
    system: Annotated[
        bool, typer.Option("--system", help="Show what the run uses of its machine, too.")
    ] = False,
    as_json: Annotated[
        bool, typer.Option("--json", help="Print every row and line as a JSON object.")
    ] = False,
) -> None:
    """Show what a run logs, as it comes, until it has ended.

    The last metrics and log lines come first, in the order of their times. Where rows come too
    fast to be read, some are left out, and the output says so; with --json none is.

    Exit status: 0 however the run ends, 1 where a metric is missing, 2 where the run cannot be
    found or read, 130 after Ctrl-C.
    """
    printer = _Printer(as_json)
    show_rows, show_log = metrics is not False, metrics is not True
    with failures_of("tail"):
        root = root_of_runs(root)
        waited = wait and follow and _await(root, run)
        directory = find_run(root, run).directory
        named = journal_of(directory, part).part
        with (
            closing(RowsTail(directory, keys or [], named, system=system)) as rows,
            closing(LogTail(directory, log_file(TRAINING_LOG, named))) as log,
        ):
            if not waited:
                last_lines = log.last(lines) if show_log else []
                last_rows = rows.last(lines) if show_rows else []
                for row_or_line in _by_time(last_rows, last_lines):
                    if isinstance(row_or_line, str):
                        printer.line(row_or_line)
                    else:
                        printer.row(row_or_line)
                if show_rows and rows.keys and missing(keys or [], rows.keys):
                    _hint(missing(keys or [], rows.all_keys()))
            if follow:
                shown = (rows if show_rows else None, log if show_log else None)
                _follow(directory, printer, *shown, wait=wait)
            for line in log.rest():
                printer.line(line)
            printer.flush()
    if keys and show_rows and missing(keys, rows.keys):
        raise typer.Exit(1)


def _by_time(rows: list[ShownRow], lines: list[str]) -> Iterator[ShownRow | str]:
    """Yield rows and lines by the time at which they were logged; each keeps to its own order."""
    moment, waiting = -math.inf, deque(rows)
    for line in lines:
        with suppress(ValueError):  # a line without a time belongs to the one before it
            time, _, text = line[1:].partition("]")
            moment = datetime.fromisoformat(time).timestamp()
            # Its time is cut to milliseconds; what a program logs of a row stands behind it.
            moment += 0.0 if text.startswith(" session started: ") else 0.001
        while waiting and waiting[0].time < moment:
            yield waiting.popleft()
        yield line
    yield from waiting


def _await(root: str, run: str) -> bool:
    """Wait until there is a run; return whether that took any waiting."""
    waited = False
    while (found := locate(root, run)) is None or found.record is None:
        if not waited:
            typer.echo(f"keisei tail: waiting for run {quoted(run)} under {quoted(root)}", err=True)
            waited = True
        sleep(_INTERVAL)
    return waited


def _hint(problem: str | None) -> None:
    if problem is not None:
        typer.echo(f"keisei tail: {problem}", err=True)


def _follow(
    directory: str, printer: _Printer, rows: RowsTail | None, log: LogTail | None, *, wait: bool
) -> None:
    """Show what comes until the run has ended; with ``wait``, for ever."""
    shown, lived = None, False
    for state in _states(directory):
        live = state in ("running", "elsewhere")
        restarts = log.restarts if log is not None else 0
        # Read before the rows, shown behind them: no line comes before a row that it stands behind.
        lines = [] if log is None else list(log.new())
        if rows is not None:
            for row in rows.new():
                printer.new_row(row)
        for line in lines:
            printer.new_line(line)
        if log is not None and log.restarts > restarts:
            printer.note(f"{log.name} was cut or replaced: it is shown from its start")
        printer.flush()
        if lived and not live:  # once more, for the line that is logged after the end
            lived = False
            continue
        lived = live
        if not (live or wait or state in _ENDS):
            raise OSError(f"{quoted(directory, 300)} cannot be followed to its end: {state}")
        if not live and state != shown:
            printer.end(os.path.basename(directory), state, waits=wait)
        if not live and not wait:
            return
        shown = state


def _states(directory: str) -> Iterator[str]:
    """Yield the state of a run at each poll; it is older than what the caller reads next."""
    state, version, checked = "", None, 0.0
    while True:
        found = _version(os.path.join(directory, RECORD_FILE))
        if found != version or monotonic() - checked >= _OWNER_INTERVAL:
            run = find_at(directory)
            if run is None:
                raise FileNotFoundError(f"run {quoted(directory, 300)} has just been removed")
            state, version, checked = run.state, found, monotonic()
        yield state
        sleep(_INTERVAL)


def _version(path: str) -> tuple[int, int] | None:
    try:
        found = os.stat(path)
    except FileNotFoundError:
        return None
    return found.st_mtime_ns, found.st_ino


class _Printer:
    """Prints rows and lines; what one poll brings is held back until `flush`, or until it is due.

    Args:
        as_json: whether to print JSON, which leaves nothing out.
    """

    def __init__(self, as_json: bool) -> None:
        self._as_json = as_json
        self._console = Console(highlight=False, soft_wrap=True)
        self._rows: deque[ShownRow] = deque(maxlen=_MOST_ROWS)
        self._lines: deque[str] = deque(maxlen=_MOST_LINES)
        self._row_count = self._line_count = 0
        self._due = monotonic() + _INTERVAL
        self._attempt: int | None = None
        self._width = 0
        self._keys: dict[str, str] = {}

    def new_row(self, row: ShownRow) -> None:
        """Hold back a new row, or print it."""
        if self._as_json:
            self.row(row)
            return
        self._row_count += 1
        self._rows.append(row)
        if self._row_count % 1000 == 0 and monotonic() >= self._due:
            self.flush()

    def new_line(self, line: str) -> None:
        """Hold back a new line of the log, or print it."""
        if self._as_json:
            self.line(line)
            return
        self._line_count += 1
        self._lines.append(line)
        if self._line_count % 1000 == 0 and monotonic() >= self._due:
            self.flush()

    def flush(self) -> None:
        """Print what is held back: a few rows, or the last one of many."""
        many = self._row_count > _MOST_ROWS
        for row in list(self._rows)[-1:] if many else self._rows:
            self.row(row, self._row_count - 1 if many else 0)
        if left := self._line_count - len(self._lines):
            self.note(f"{left:,} lines left out")
        for line in self._lines:
            self.line(line)
        self._rows.clear()
        self._lines.clear()
        self._row_count = self._line_count = 0
        self._due = monotonic() + _INTERVAL
        sys.stdout.flush()

    def row(self, row: ShownRow, left_out: int = 0) -> None:
        """Print a row.

        Args:
            row: the row.
            left_out: how many before it are not printed.
        """
        if self._as_json:
            values = {key: _valid(value) for key, value in row.values.items()}
            self._json("row", **row._asdict() | {"step": _valid(row.step), "values": values})
            return
        if row.attempt != self._attempt:
            if self._attempt is not None:
                self.note(f"attempt {row.attempt}")
            self._attempt = row.attempt
        head = f"row {row.seq}" if row.step is None else f"step {_step(row.step)}"
        self._width = max(self._width, len(head))
        note = f"  ({left_out:,} {'row' if left_out == 1 else 'rows'} before left out)"
        note = note if left_out else ""
        parts = [f"{self._key(key)}={short_number(value)}" for key, value in row.values.items()]
        *texts, last = self._fitting(parts, len(note))
        for text in texts:
            self._print(Text.assemble((f"{head:<{self._width}}", "bold"), text))
            head = ""
        self._print(Text.assemble((f"{head:<{self._width}}", "bold"), last, (note, "dim")))

    def line(self, line: str) -> None:
        """Print a line of the log."""
        line = clean(line)
        if self._as_json:
            self._json("log", line=line)
            return
        text = plain(line, self._console)
        shown = for_terminal(text) if self._console.is_terminal else Text(text)
        self._print(Text.assemble(("log  ", "bold"), shown))

    def note(self, text: str) -> None:
        """Print a remark between rows and lines."""
        if not self._as_json:
            self._print(Text(f"-- {plain(text, self._console)}", "dim"))

    def end(self, run: str, state: str, *, waits: bool) -> None:
        """Print that the run has ended."""
        more = "; waiting for its next attempt" if waits else ""
        if self._as_json:
            self._json("end", state=state)
        else:
            typer.echo(f"keisei tail: run {quoted(run)}: {state}{more}", err=True)
        sys.stdout.flush()

    def _key(self, key: str) -> str:
        found = self._keys.get(key)
        if found is None:
            found = self._keys[key] = shorten(key, _KEY, self._console)
        return found

    def _fitting(self, parts: list[str], reserved: int) -> list[str]:
        """Join the parts to lines as wide as the output.

        In a terminal, where rows come and go, that is one line: what does not fit is counted.
        """
        width, one_line = self._console.width - self._width, self._console.is_terminal
        lines, used = [""], 0
        for i, part in enumerate(parts):
            used += 2 + cell_len(part)
            more = f"  +{len(parts) - i} more"
            rest = reserved + (0 if i == len(parts) - 1 else len(more))
            if one_line and used > width - rest:
                return [lines[0] + more]
            if used > width and lines[-1]:
                lines.append("")
                used = 2 + cell_len(part)
            lines[-1] += f"  {part}"
        return lines

    def _json(self, kind: str, **fields: Any) -> None:
        text = json.dumps({"kind": kind, **fields}, allow_nan=False, separators=(",", ":"))
        sys.stdout.write(f"{text}\n")

    def _print(self, text: Text) -> None:
        self._console.print(text)


def _step(step: int) -> str:
    return str(step) if abs(step) < 10**18 else short_number(step)


def _valid(value: float | None) -> float | str | None:
    """Return a number as JSON can hold it: one that is not finite as a float is a string."""
    if value is None or math.isfinite(found := as_float(value)):
        return value
    return {math.inf: "Infinity", -math.inf: "-Infinity"}.get(found, "NaN")
