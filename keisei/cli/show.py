"""`keisei show`: everything about one run on one screen."""

from __future__ import annotations

import json
import sys
import time
from collections.abc import Mapping
from typing import Annotated

import typer
from rich.console import Console
from rich.table import Table
from rich.text import Text

from keisei.cli.ls import as_data, duration, shown_value
from keisei.cli.parts import parts_in_words
from keisei.cli.program import app
from keisei.cli.shared import (
    COLOURS,
    Json,
    RegistryUrl,
    Root,
    Run,
    failures_of,
    plain,
    table_console,
)
from keisei.cli.source import source_of
from keisei.store.rows import MetricSummary, RunRow

_MOST_METRICS = 40  # of a run, on a screen


@app.command()
def show(
    run: Run,
    root: Root = None,
    config: Annotated[bool, typer.Option("--config", help="Show the whole config, too.")] = False,
    url: RegistryUrl = None,
    as_json: Json = False,
) -> None:
    """Show one run, with its labels and metrics.

    Exit status: 0 where the run is shown, 2 where it cannot be found or read, 130 after Ctrl-C.
    """
    console = table_console()
    with failures_of("show"):
        row = source_of(root, url).one(run)
        if as_json:
            sys.stdout.write(json.dumps(as_data(row), indent=2) + "\n")
        else:
            _print(row, console, config=config)
        sys.stdout.flush()


def _print(row: RunRow, console: Console, *, config: bool) -> None:
    console.print(
        Text.assemble(
            (plain(row.name, console), "bold"), "  ", (row.status, COLOURS.get(row.status, ""))
        )
    )
    now = time.time()
    whose = f"process {row.pid} on {row.host}" if row.host else None
    took = row.duration_s
    if took is None and row.started is not None and row.status == "running":
        took = max(0.0, now - row.started)
    known = {
        "failure": row.failure,
        "id": row.session_id,
        "attempt": row.attempt,
        "started": shown_value(row.started, "started") if row.started else None,
        "ended": shown_value(row.ended, "ended") if row.ended else None,
        "duration": duration(took) if took is not None else None,
        "owner": whose,
        "tags": ", ".join(row.tags) or None,
        "note": row.note,
        "trackers": ", ".join(f"{name} ({state})" for name, state in row.trackers.items()) or None,
        "parts": parts_in_words(row.directory, row.attempt),
        "directory": row.directory,
    }
    for name, value in known.items():
        if value is not None:
            console.print(Text(f"  {name:<10} {plain(str(value), console)}"))
    if row.metrics:
        console.print(_metrics(row.metrics, console))
        if (left := len(row.metrics) - _MOST_METRICS) > 0:
            console.print(Text(f"  and {left:,} more: --json has all", "dim"))
    if config:
        text = json.dumps(dict(row.config), indent=2, ensure_ascii=False)
        for line in text.splitlines():
            console.print(Text(plain(line, console)))


def _metrics(metrics: Mapping[str, MetricSummary], console: Console) -> Table:
    table = Table(box=None, padding=(0, 1, 0, 1), header_style="bold")
    table.add_column("metric", overflow="fold")
    for name in ("last", "min", "max", "mean", "step", "count"):
        table.add_column(name, justify="right")
    for name in sorted(metrics)[:_MOST_METRICS]:
        one = metrics[name]
        numbers = (one.last, one.min, one.max, one.mean, one.step, one.count)
        table.add_row(Text(plain(name, console)), *(shown_value(n) for n in numbers))
    return table
