"""`keisei ls`: list runs, filtered, sorted, with the columns that are wanted."""

from __future__ import annotations

import json
import math
import sys
import time
from collections import Counter
from collections.abc import Mapping
from contextlib import suppress
from dataclasses import asdict
from typing import Annotated, Any

import typer
from rich.cells import cell_len
from rich.console import Console, Group
from rich.table import Table
from rich.text import Text

from keisei.cli.program import app
from keisei.cli.shared import (
    COLOURS,
    Json,
    RegistryUrl,
    Root,
    failures_of,
    is_bounded,
    plain,
    table_console,
)
from keisei.cli.source import Source, source_of
from keisei.errors import quoted
from keisei.reports.words import TIMES, non_finite, shown_value
from keisei.store import columns
from keisei.store.query import FIELDS, METRIC_PARTS
from keisei.store.rows import RunRow

_LABELS = ("tags", "note")  # columns that are left out where nobody has any
_LIMIT = 50
_WATCH_INTERVAL = 2.0  # seconds
_WIDEST = 60  # columns of a text in a terminal
_LEAST_TEXT = 16  # columns
_TEXTS = ("note", "failure", "tags", "directory", "name")  # the first is the first to be cut
_GAP = 2  # columns between two columns
_FIRST_TO_GO = ("note", "tags", "attempt", "duration", "started")  # in a narrow terminal

_QUERY_HELP = (
    "A query has conditions such as status:failed, tag:ppo, env.seed>=3, loss.last<0.2, since:7d; "
    "a bare word is part of the name. `and` (or nothing) between them, `or`, `not`, parentheses; "
    "`:` takes * and ? and several values (status:failed,died). Fields: "
    f"{', '.join(FIELDS)}; a part of a metric ({', '.join(METRIC_PARTS)}, as loss.last); a path in "
    "the config (env.seed, or config.env.seed)."
)

Query = Annotated[
    list[str] | None, typer.Argument(metavar="QUERY", help="Which runs; all if none. See below.")
]


@app.command(epilog=_QUERY_HELP)
def ls(
    query: Query = None,
    root: Root = None,
    shown: Annotated[
        str | None,
        typer.Option(
            "--columns",
            "-c",
            metavar="NAMES",
            help="Columns, with commas; with + before them, beside the usual ones.",
        ),
    ] = None,
    order_by: Annotated[
        str,
        typer.Option(
            "--sort", "-s", metavar="COLUMN", help="Sort by it; with - the largest first."
        ),
    ] = "-started",
    limit: Annotated[
        int, typer.Option("--limit", "-n", min=0, metavar="N", help="The most runs; 0 for all.")
    ] = _LIMIT,
    watch: Annotated[
        bool,
        typer.Option("--watch", "-w", help="In a terminal, show it again every 2 s until Ctrl-C."),
    ] = False,
    url: RegistryUrl = None,
    as_json: Json = False,
) -> None:
    """List runs, filtered and sorted.

    Where a registry is named, by --registry or KEISEI_REGISTRY_URL, and no --root, it is asked;
    else the directories are read.

    Exit status: 0 where the runs are listed, also where none fits, 2 where the query or a column
    is none, or the directory of runs cannot be read, 130 after Ctrl-C, with --watch 0.
    """
    console = table_console()
    with failures_of("ls"):
        names, text = _columns(shown), " ".join(query or [])
        source = source_of(root, url)
        if watch and console.is_terminal and not as_json:
            _watch(source, text, names if shown is not None else None, order_by, limit, console)
            return
        part, counts = source.find(text, order_by, limit)
        if as_json:
            document = {
                source.kind: source.shown,
                "runs": [as_data(row) for row in part],
                "more": counts.total() - len(part),
            }
            sys.stdout.write(json.dumps(document, indent=2) + "\n")
        else:
            if part:
                console.print(_table(part, names if shown is not None else None, console))
            line = _summary(counts, len(part), source.shown, text)
            console.print(Text(plain(line, console), "dim"))
        sys.stdout.flush()


def _watch(
    source: Source,
    text: str,
    names: list[str] | None,
    order_by: str,
    limit: int,
    console: Console,
) -> None:
    """Show the list again and again until Ctrl-C, and leave the last one behind."""
    from rich.live import Live

    shown: Group | None = None
    with (
        suppress(KeyboardInterrupt),
        Live(console=console, auto_refresh=False, screen=True) as live,
    ):
        while True:
            most = max(1, console.height - 3)
            part, counts = source.find(text, order_by, min(limit or most, most))
            line = plain(_summary(counts, len(part), source.shown, text), console)
            line = f"{time.strftime('%H:%M:%S')}  {line}"
            foot = Text(line, "dim", no_wrap=True, overflow="ellipsis")
            shown = Group(_table(part, names, console), foot) if part else Group(foot)
            live.update(shown, refresh=True)
            time.sleep(_WATCH_INTERVAL)
    if shown is not None:
        console.print(shown)


def _widths(natural: Mapping[str, int], console: Console) -> dict[str, int]:
    """Return how wide columns are where they may be no wider than the console: texts are narrowed.

    Args:
        natural: how wide each column is by its values.
        console: where it is printed.
    """
    widths = dict(natural)
    for name in (name for name in _TEXTS if name in widths):
        widths[name] = min(widths[name], _WIDEST)
        excess = sum(widths.values()) + _GAP * (len(widths) - 1) - console.width
        if excess > 0:
            widths[name] = max(min(widths[name], _LEAST_TEXT), widths[name] - excess)
    return widths


def _fit(widths: Mapping[str, int], console: Console) -> bool:
    return sum(widths.values()) + _GAP * (len(widths) - 1) <= console.width


def _has(rows: list[RunRow], name: str) -> bool:
    return any(columns.value_of(row, name) is not None for row in rows)


def _columns(shown: str | None) -> list[str]:
    if shown is None:
        return list(columns.DEFAULT)
    more = shown.startswith("+")
    names = [name.strip() for name in shown.removeprefix("+").split(",") if name.strip()]
    checked = [columns.check_column(name) for name in names]
    return list(dict.fromkeys([*columns.DEFAULT, *checked] if more else checked))


def _table(rows: list[RunRow], names: list[str] | None, console: Console) -> Table:
    """Return the runs as a table; where it has to fit into a width, a note takes one line.

    Args:
        rows: the runs.
        names: the columns; ``None`` for the usual ones that fit.
        console: where it is printed.
    """
    usual = [name for name in columns.DEFAULT if name not in _LABELS or _has(rows, name)]
    cells = {name: [plain(_shown(row, name), console) for row in rows] for name in names or usual}
    widths = {name: max(map(cell_len, [name, *each])) for name, each in cells.items()}
    if is_bounded(console):
        natural = widths
        widths = _widths(natural, console)
        for name in _FIRST_TO_GO if names is None else ():
            if not _fit(widths, console):
                natural = {other: width for other, width in natural.items() if other != name}
                widths = _widths(natural, console)
    table = Table(box=None, pad_edge=False, padding=(0, _GAP, 0, 0), header_style="bold")
    for name, width in widths.items():
        values = [columns.value_of(row, name) for row in rows]
        is_number = any(isinstance(value, int | float) for value in values) and name not in TIMES
        is_cut = is_bounded(console) and name in ("note", "failure")
        table.add_column(
            name,
            justify="right" if is_number else "left",
            no_wrap=name not in _TEXTS or is_cut,
            overflow="ellipsis" if is_cut else "fold",
            width=width,
        )
    for number, row in enumerate(rows):
        styles = [COLOURS.get(row.status, "") if name == "status" else "" for name in widths]
        table.add_row(*map(Text, [cells[name][number] for name in widths], styles))
    return table


def _shown(row: RunRow, name: str) -> str:
    value = columns.value_of(row, name)
    if name == "duration" and value is None and row.status == "running" and row.started:
        value = max(0.0, time.time() - row.started)
    return shown_value(value, name)


def _summary(counts: Counter[str], shown: int, where: str, text: str) -> str:
    total = counts.total()
    if not total:
        return (
            f"No run in {where} fits {quoted(text)}." if text else f"There are no runs in {where}."
        )
    states = ", ".join(f"{number} {state}" for state, number in counts.most_common())
    line = f"{total:,} {'run' if total == 1 else 'runs'}: {states}"
    return f"{line}; {total - shown:,} more with --limit 0" if total > shown else line


def as_data(row: RunRow) -> dict[str, Any]:
    """Return a row as plain data that `json.dumps` takes, without what is not finite."""
    return {
        "name": row.name,
        "directory": row.directory,
        "session_id": row.session_id,
        "status": row.status,
        "attempt": row.attempt,
        "owner": {"host": row.host, "pid": row.pid},
        "started": row.started,
        "ended": row.ended,
        "duration_s": row.duration_s,
        "failure": row.failure,
        "tags": list(row.tags),
        "note": row.note,
        "config": dict(row.config),
        "metrics": {name: _finite(asdict(metric)) for name, metric in row.metrics.items()},
        "trackers": dict(row.trackers),
        "checkpoints": dict(row.checkpoints),
        "cost": dict(row.cost),
    }


def _finite(numbers: dict[str, float | None]) -> dict[str, object]:
    return {
        name: number if number is None or math.isfinite(number) else non_finite(number)
        for name, number in numbers.items()
    }
