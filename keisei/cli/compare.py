"""`keisei compare`: what differs between runs."""

from __future__ import annotations

import json
import math
import sys
from collections.abc import Mapping, Sequence
from typing import Annotated

import typer
from rich.console import Console
from rich.markup import escape
from rich.table import Table
from rich.text import Text

from keisei.analysis.comparable import differences
from keisei.cli.ls import non_finite, shown_value
from keisei.cli.program import app
from keisei.cli.shared import COLOURS, Json, RegistryUrl, Root, failures_of, plain, table_console
from keisei.cli.source import source_of
from keisei.errors import quoted
from keisei.store.rows import RunRow

_MOST_METRICS = 60  # on a screen


@app.command()
def compare(
    runs: Annotated[list[str], typer.Argument(metavar="RUN...", help="Two runs or more.")],
    root: Root = None,
    url: RegistryUrl = None,
    as_json: Json = False,
) -> None:
    """Show in what runs differ.

    That is how they stand, their config, and the last values of their metrics.

    Exit status: 0 where they are shown, 2 where a run cannot be found or read, 130 after Ctrl-C.
    """
    console = table_console()
    with failures_of("compare"):
        names = list(dict.fromkeys(runs))
        if len(names) < 2:
            raise ValueError("name two runs or more")
        source = source_of(root, url)
        rows = [source.one(name) for name in names]
        found = _parts(rows)
        if as_json:
            document = {"runs": [row.name for row in rows], **found}
            sys.stdout.write(json.dumps(document, indent=2, default=str) + "\n")
        else:
            _print(rows, found, console)
        sys.stdout.flush()


def _parts(rows: Sequence[RunRow]) -> dict[str, dict[str, list[object]]]:
    """Return what runs differ in, by the part of them and its key, with the value in each run."""
    metrics = dict.fromkeys(key for row in rows for key in row.metrics)
    return {
        "run": {
            "status": [row.status for row in rows],
            "attempt": [row.attempt for row in rows],
            "duration": [row.duration_s for row in rows],
            "host": [row.host for row in rows],
        },
        "config": differences([row.config for row in rows]),
        "metrics": {key: [_last(row, key) for row in rows] for key in sorted(metrics)},
    }


def _last(row: RunRow, key: str) -> object:
    summary = row.metrics.get(key)
    if summary is None:
        return None
    value = summary.last
    return non_finite(value) if value is not None and not math.isfinite(value) else value


def _print(
    rows: Sequence[RunRow], parts: Mapping[str, Mapping[str, list[object]]], console: Console
) -> None:
    table = Table(box=None, pad_edge=False, padding=(0, 2, 0, 0), header_style="bold")
    table.add_column("", overflow="fold")
    for row in rows:
        table.add_column(escape(plain(row.name, console)), justify="right", overflow="fold")
    for part, values in parts.items():
        if part != "run":
            table.add_section()
            table.add_row(Text(part if values else f"{part}: no difference", "bold"))
        for key, each in list(values.items())[: _MOST_METRICS if part == "metrics" else None]:
            cells = [Text(plain(_shown(value, key, part), console)) for value in each]
            if key == "status" and part == "run":
                cells = [Text(str(value), COLOURS.get(str(value), "")) for value in each]
            table.add_row(Text(plain(key, console)), *cells)
    console.print(table)
    if (left := len(parts["metrics"]) - _MOST_METRICS) > 0:
        console.print(Text(f"and {left:,} more metrics: --json has all", "dim"))


def _shown(value: object, key: str, part: str) -> str:
    if part == "config":
        return "-" if value is None else quoted(value, 60).strip("'\"")
    return shown_value(value, key if part == "run" else "")
