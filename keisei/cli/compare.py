"""`keisei compare`: what differs between runs."""

from __future__ import annotations

import json
import math
import sys
from collections.abc import Sequence
from typing import Annotated

import typer
from rich.console import Console
from rich.markup import escape
from rich.table import Table
from rich.text import Text

from keisei.analysis.comparing import Compared
from keisei.analysis.comparing import compare as compared
from keisei.analysis.targets import target_of
from keisei.cli.completion import run_names
from keisei.cli.metric_names import name_in_table
from keisei.cli.program import app
from keisei.cli.shared import COLOURS, Json, RegistryUrl, Root, failures_of, plain, table_console
from keisei.cli.source import Source, source_of
from keisei.errors import quoted
from keisei.reports.differing import NOT_RECORDED, lines_of, without_lines
from keisei.reports.words import non_finite
from keisei.store.rows import RunRow

_MOST = {"metrics": 60, "packages": 30}  # on a screen
_MOST_FOUND = 20  # runs that a query finds


@app.command()
def compare(
    runs: Annotated[
        list[str] | None,
        typer.Argument(metavar="RUN...", help="Two runs or more.", autocompletion=run_names),
    ] = None,
    query: Annotated[
        str,
        typer.Option("--find", "-f", metavar="QUERY", help="Compare the runs that fit this, too."),
    ] = "",
    targets: Annotated[
        list[str] | None,
        typer.Option(
            "--time-to", "-t", metavar="KEY=VALUE", help="Show how long each took to this value."
        ),
    ] = None,
    root: Root = None,
    url: RegistryUrl = None,
    as_json: Json = False,
) -> None:
    """Show in what runs differ.

    That is how they went, their config, their code, packages and machine where these are recorded,
    and the last values of their metrics.

    Exit status: 0 where they are shown, 2 where a run cannot be found or read or there are not two,
    130 after Ctrl-C.
    """
    console = table_console()
    with failures_of("compare"):
        rows = _rows(source_of(root, url), runs or [], query)
        found = compared(rows, dict(map(target_of, targets or ())))
        if as_json:
            document = {
                "runs": [row.name for row in rows],
                **_finite(found),
                "not_recorded": found.not_recorded,
            }
            sys.stdout.write(json.dumps(document, indent=2, default=str) + "\n")
        else:
            _print(rows, found, console)
        sys.stdout.flush()


def _rows(source: Source, names: Sequence[str], query: str) -> list[RunRow]:
    """Return the runs that are named, and those that a query finds, each once."""
    rows = {row.directory: row for row in (source.one(name) for name in dict.fromkeys(names))}
    if query:
        found, counts = source.find(query, "started", 0)
        if counts.total() > _MOST_FOUND:
            raise ValueError(
                f"{counts.total()} runs fit {quoted(query)}, and {_MOST_FOUND} can be compared: "
                "ask for fewer"
            )
        rows = {**rows, **{row.directory: row for row in found if row.directory not in rows}}
    if len(rows) < 2:
        raise ValueError("name two runs or more")
    return list(rows.values())


def _finite(found: Compared) -> dict[str, dict[str, list[object]]]:
    """Return the parts as JSON takes them."""

    def plain_value(value: object) -> object:
        is_odd = isinstance(value, float) and not math.isfinite(value)
        return non_finite(value) if is_odd else value  # type: ignore[arg-type]

    return {
        part.replace(" ", "_"): {key: list(map(plain_value, each)) for key, each in values.items()}
        for part, values in found.parts.items()
    }


def _print(rows: Sequence[RunRow], found: Compared, console: Console) -> None:
    table = Table(box=None, pad_edge=False, padding=(0, 2, 0, 0), header_style="bold")
    table.add_column("", overflow="fold")
    for row in rows:
        table.add_column(escape(plain(row.name, console)), justify="right", overflow="fold")
    names = [row.name for row in rows]
    for part in found.parts:
        lines = lines_of(part, found, names, 60)
        if part != "run":
            head = part if lines else f"{part}: {without_lines(part, found, len(rows))}"
            table.add_section()
            table.add_row(Text(plain(head, console), "bold"))
        most = _MOST.get(part, len(lines))
        for key, cells in lines[:most]:
            is_status = part == "run" and key == "status"
            table.add_row(
                Text(name_in_table(key, console)),
                *(
                    Text(NOT_RECORDED, "dim")
                    if cell is None
                    else Text(plain(cell, console), COLOURS.get(cell, "") if is_status else "")
                    for cell in cells
                ),
            )
        if (left := len(lines) - most) > 0:
            table.add_row(Text(f"and {left:,} more: --json has all", "dim"))
    console.print(table)
