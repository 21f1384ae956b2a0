"""`keisei ls`: list runs, filtered, sorted, with the columns that are wanted."""

from __future__ import annotations

import json
import math
import sys
import time
from collections import Counter
from dataclasses import asdict
from typing import Annotated, Any, NoReturn

import typer
from rich.console import Console, Group
from rich.table import Table
from rich.text import Text

from keisei.cli.program import app
from keisei.cli.shared import COLOURS, Json, RegistryUrl, Root, failures_of, plain, table_console
from keisei.cli.source import Source, source_of
from keisei.errors import quoted
from keisei.reports.words import TIMES, non_finite, shown_value
from keisei.store import columns
from keisei.store.query import FIELDS, METRIC_PARTS
from keisei.store.rows import RunRow

_LABELS = ("tags", "note")  # columns that are left out where nobody has any
_LIMIT = 50
_WATCH_INTERVAL = 2.0  # seconds
_WIDEST = 60  # characters of a text where no terminal folds it

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
        bool, typer.Option("--watch", "-w", help="Show it again every 2 s, until Ctrl-C.")
    ] = False,
    url: RegistryUrl = None,
    as_json: Json = False,
) -> None:
    """List runs, filtered and sorted.

    Where a registry is named, by --registry or KEISEI_REGISTRY_URL, and no --root, it is asked;
    else the directories are read.

    Exit status: 0 where the runs are listed, also where none fits, 2 where the query or a column
    is none, or the directory of runs cannot be read, 130 after Ctrl-C.
    """
    console = table_console()
    with failures_of("ls"):
        names, text = _columns(shown), " ".join(query or [])
        source = source_of(root, url)
        if watch and not as_json:
            _watch(source, text, names, order_by, limit, console)
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
                if shown is None:
                    names = [name for name in names if name not in _LABELS or _has(part, name)]
                console.print(_table(part, names, console))
            line = _summary(counts, len(part), source.shown, text)
            console.print(Text(plain(line, console), "dim"))
        sys.stdout.flush()


def _watch(
    source: Source, text: str, names: list[str], order_by: str, limit: int, console: Console
) -> NoReturn:
    from rich.live import Live

    with Live(console=console, auto_refresh=False, screen=console.is_terminal) as live:
        while True:
            most = max(1, console.height - 4)
            part, counts = source.find(text, order_by, min(limit or most, most))
            line = _summary(counts, len(part), source.shown, text)
            live.update(Group(_table(part, names, console), plain(line, console)), refresh=True)
            time.sleep(_WATCH_INTERVAL)


def _has(rows: list[RunRow], name: str) -> bool:
    return any(columns.value_of(row, name) is not None for row in rows)


def _columns(shown: str | None) -> list[str]:
    if shown is None:
        return list(columns.DEFAULT)
    more = shown.startswith("+")
    names = [name.strip() for name in shown.removeprefix("+").split(",") if name.strip()]
    checked = [columns.check_column(name) for name in names]
    return list(dict.fromkeys([*columns.DEFAULT, *checked] if more else checked))


def _table(rows: list[RunRow], names: list[str], console: Console) -> Table:
    table = Table(box=None, pad_edge=False, padding=(0, 2, 0, 0), header_style="bold")
    for name in names:
        values = [columns.value_of(row, name) for row in rows]
        is_text = name in ("name", "note", "failure", "tags", "directory")
        is_number = any(isinstance(value, int | float) for value in values) and name not in TIMES
        table.add_column(
            name,
            justify="right" if is_number else "left",
            no_wrap=not is_text,
            overflow="fold",
            max_width=_WIDEST if is_text and console.is_terminal else None,
        )
    for row in rows:
        cells = [plain(shown_value(columns.value_of(row, name), name), console) for name in names]
        styles = [COLOURS.get(row.status, "") if name == "status" else "" for name in names]
        table.add_row(*map(Text, cells, styles))
    return table


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
