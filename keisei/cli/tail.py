"""`keisei tail`: what a run logs, as it comes."""

from __future__ import annotations

import json
import math
import os
import sys
from collections import deque
from collections.abc import Iterator
from contextlib import closing
from time import monotonic, sleep
from typing import Annotated, Any

import typer
from rich.cells import cell_len
from rich.console import Console
from rich.text import Text

from keisei.cli.following import LogTail, RowsTail, Shown
from keisei.cli.keys import number, shortened, unknown
from keisei.cli.program import app
from keisei.cli.shared import Keys, Root, Run, find_run, plain, root_of_runs, stop
from keisei.errors import quoted
from keisei.journal.records import as_float
from keisei.redaction import clean
from keisei.run.health import diagnose
from keisei.run.layout import RECORD_FILE, TRAINING_LOG
from keisei.run.status import FINAL

_LOOK = 0.2  # seconds between two looks
_ASK = 1.0  # seconds until the owner is asked for again
_MOST_ROWS, _MOST_LINES = 10, 100  # that are shown of one look
_ENDS = (*FINAL, "died")
_KEY = 40  # columns of a metric's name


@app.command()
def tail(
    run: Run,
    keys: Keys = None,
    root: Root = None,
    lines: Annotated[
        int, typer.Option("-n", "--lines", min=0, help="How many rows and lines to begin with.")
    ] = 10,
    follow: Annotated[
        bool, typer.Option("--follow/--no-follow", help="Show what comes until the run has ended.")
    ] = True,
    metrics: Annotated[
        bool | None, typer.Option("--metrics/--log", help="Only the metrics, or only the log.")
    ] = None,
    wait: Annotated[
        bool, typer.Option("--wait", help="Wait for the run, and for its next attempts.")
    ] = False,
    as_json: Annotated[
        bool, typer.Option("--json", help="Print every row and line as a JSON object.")
    ] = False,
) -> None:
    """Show the last metrics and log lines of a run, then what comes until it has ended.

    Where rows come too fast to be read, some are left out, which is said; never with --json. The
    exit status is 0 however the run ends, and 130 after Ctrl-C.
    """
    printer = _Printer(as_json)
    try:
        root = root_of_runs(root)[0]
        waited = wait and follow and _await(root, run)
        directory = find_run(root, run)
        with (
            closing(RowsTail(directory, keys or [])) as rows,
            closing(LogTail(directory, TRAINING_LOG)) as log,
        ):
            show_rows, show_log = metrics is not False, metrics is not True
            if show_log and not waited:
                for line in log.last(lines):
                    printer.line(line)
            if show_rows and not waited:
                for row in rows.last(lines):
                    printer.row(row)
                if rows.keys and unknown(keys or [], rows.keys):
                    _hint(unknown(keys or [], rows.all_keys()))
            if follow:
                shown = (rows if show_rows else None, log if show_log else None)
                _follow(directory, printer, *shown, wait=wait)
            for line in log.rest():
                printer.line(line)
            printer.flush()
    except OSError as exc:
        if isinstance(exc, BrokenPipeError):
            raise
        stop("tail", str(exc))
    except KeyboardInterrupt:
        raise typer.Exit(130) from None
    if keys and show_rows and unknown(keys, rows.keys):
        raise typer.Exit(1)


def _await(root: str, run: str) -> bool:
    """Wait until a run is there; tells whether that took any waiting."""
    waited = False
    while True:
        for place in (os.path.join(root, run), os.path.abspath(run)):
            found = diagnose(place)
            if found is not None and found.record is not None:
                return waited
        if not waited:
            typer.echo(f"keisei tail: waiting for run {quoted(run)} under {quoted(root)}", err=True)
            waited = True
        sleep(_LOOK)


def _hint(problem: str | None) -> None:
    if problem is not None:
        typer.echo(f"keisei tail: {problem}", err=True)


def _follow(
    directory: str, printer: _Printer, rows: RowsTail | None, log: LogTail | None, *, wait: bool
) -> None:
    """Show what comes until the run has ended; with ``wait``, until the end of time."""
    told, lived = None, False
    for state in _states(directory):
        live = state in ("running", "elsewhere")
        restarts = log.restarts if log is not None else 0
        if rows is not None:
            for row in rows.new():
                printer.new_row(row)
        if log is not None:
            for line in log.new():
                printer.new_line(line)
            if log.restarts > restarts:
                printer.note(f"{TRAINING_LOG} was cut or replaced: it is shown from its start")
        printer.flush()
        if lived and not live:  # one look more, for the line that is logged after the end
            lived = False
            continue
        lived = live
        if not (live or wait or state in _ENDS):
            raise OSError(f"the end of {quoted(directory, 300)} cannot be seen: {state}")
        if not live and state != told:
            printer.end(os.path.basename(directory), state, waits=wait)
        if not live and not wait:
            return
        told = state


def _states(directory: str) -> Iterator[str]:
    """Give the state of a run, again and again; it is of before the look that follows."""
    state, record, asked = "", None, 0.0
    while True:
        found = _changed(os.path.join(directory, RECORD_FILE))
        if found != record or monotonic() - asked >= _ASK:
            run = diagnose(directory)
            if run is None:
                raise FileNotFoundError(f"the run has gone: {quoted(directory, 300)}")
            state, record, asked = run.state, found, monotonic()
        yield state
        sleep(_LOOK)


def _changed(path: str) -> tuple[int, int] | None:
    try:
        found = os.stat(path)
    except FileNotFoundError:
        return None
    return found.st_mtime_ns, found.st_ino


class _Printer:
    """Prints rows and lines: what one look brings is held back until `flush`, or until it is due.

    Args:
        as_json: whether to print JSON, which leaves nothing out.
    """

    def __init__(self, as_json: bool) -> None:
        self._as_json = as_json
        self._console = Console(highlight=False, soft_wrap=True)
        self._rows: deque[Shown] = deque(maxlen=_MOST_ROWS)
        self._lines: deque[str] = deque(maxlen=_MOST_LINES)
        self._row_count = self._line_count = 0
        self._due = monotonic() + _LOOK
        self._attempt: int | None = None
        self._width = 0
        self._keys: dict[str, str] = {}

    def new_row(self, row: Shown) -> None:
        """Take a row that has come."""
        if self._as_json:
            self.row(row)
            return
        self._row_count += 1
        self._rows.append(row)
        if self._row_count % 1000 == 0 and monotonic() >= self._due:
            self.flush()

    def new_line(self, line: str) -> None:
        """Take a line that has come."""
        if self._as_json:
            self.line(line)
            return
        self._line_count += 1
        self._lines.append(line)
        if self._line_count % 1000 == 0 and monotonic() >= self._due:
            self.flush()

    def flush(self) -> None:
        """Print what is held back: all of few rows, and the last one of many."""
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
        self._due = monotonic() + _LOOK
        sys.stdout.flush()

    def row(self, row: Shown, left_out: int = 0) -> None:
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
        parts = [f"{self._key(key)}={number(value)}" for key, value in row.values.items()]
        text = self._fitting(parts, len(note) if left_out else 0)
        self._print(
            Text.assemble(
                (f"{head:<{self._width}}", "bold"), text, (note if left_out else "", "dim")
            )
        )

    def line(self, line: str) -> None:
        """Print a line of the log."""
        line = clean(line)
        if self._as_json:
            self._json("log", line=line)
        else:
            self._print(Text.assemble(("log  ", "bold"), plain(line, self._console), style="cyan"))

    def note(self, text: str) -> None:
        """Print something about what is printed."""
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
            found = self._keys[key] = shortened(key, _KEY, self._console)
        return found

    def _fitting(self, parts: list[str], reserved: int) -> str:
        """Join the parts that fit into the terminal's width, and say how many do not."""
        room = self._console.width - self._width - reserved if self._console.is_terminal else None
        text, used = "", 0
        for i, part in enumerate(parts):
            used += 2 + cell_len(part)
            last = i == len(parts) - 1
            if room is not None and used > room - (0 if last else len(f"  +{len(parts)} more")):
                return f"{text}  +{len(parts) - i} more"
            text += f"  {part}"
        return text

    def _json(self, kind: str, **fields: Any) -> None:
        text = json.dumps({"kind": kind, **fields}, allow_nan=False, separators=(",", ":"))
        sys.stdout.write(f"{text}\n")

    def _print(self, text: Text) -> None:
        self._console.print(text)


def _step(step: int) -> str:
    return str(step) if abs(step) < 10**18 else number(step)


def _valid(value: float | None) -> float | str | None:
    """Give a number as JSON can hold it: what is not finite, or too large to be, is a string."""
    if value is None or math.isfinite(found := as_float(value)):
        return value
    return {math.inf: "Infinity", -math.inf: "-Infinity"}.get(found, "NaN")
