"""`keisei show`: everything about one run on one screen."""

from __future__ import annotations

import json
import sys
import time
from collections.abc import Mapping
from typing import Annotated, Any

import typer
from rich.console import Console
from rich.table import Table
from rich.text import Text

from keisei.cli.ls import as_data
from keisei.cli.metric_names import name_in_table
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
    print_fact,
    table_console,
)
from keisei.cli.show_cost import print_cost
from keisei.cli.show_lag import lag_in_words, lag_of, print_lag
from keisei.cli.show_phases import print_time, time_of
from keisei.cli.show_provenance import (
    print_origins,
    print_restored,
    print_snapshot,
    snapshot_of,
)
from keisei.cli.show_resources import print_resources, resources_of
from keisei.cli.source import source_of
from keisei.monitoring.run_events import ledger_of
from keisei.reports.words import duration, shown_value
from keisei.store.rows import MetricSummary, RunRow

_MOST_METRICS = 15  # of a run, on a screen
_NARROW = 64  # columns, in which a metric has its last value alone


@app.command()
def show(
    run: Run,
    root: Root = None,
    config: Annotated[bool, typer.Option("--config", help="Show the whole config, too.")] = False,
    origins: Annotated[
        bool, typer.Option("--origins", help="Show where each value of the config came from.")
    ] = False,
    lag: Annotated[
        bool, typer.Option("--lag", help="Show what has held the event loop, by function.")
    ] = False,
    attempt: Annotated[
        int | None,
        typer.Option("--attempt", min=1, help="Of which attempt the code is; else the last."),
    ] = None,
    restore_to: Annotated[
        str | None,
        typer.Option(
            "--restore-code",
            metavar="DIR",
            help="Write the code that the run was started from into a new directory.",
        ),
    ] = None,
    repository: Annotated[
        str,
        typer.Option("--repository", metavar="DIR", help="A clone that has the run's commit."),
    ] = ".",
    url: RegistryUrl = None,
    as_json: Json = False,
) -> None:
    """Show one run, its labels, metrics and origin.

    Exit status: 0 where the run is shown, 2 where it cannot be found or read, 130 after Ctrl-C.
    """
    console = table_console()
    with failures_of("show"):
        row = source_of(root, url).one(run)
        snapshot = snapshot_of(row.directory, attempt)
        if restore_to is not None:
            print_restored(row.directory, restore_to, repository, attempt, console)
        elif as_json:
            used = time_of(row.directory, is_running=row.status == "running")
            costs = ledger_of(row.directory)
            shown = {**as_data(row), "provenance": snapshot, "phases": used}
            shown["resources"] = resources_of(row.directory)
            shown["lag"] = lag_of(row.directory)
            shown["cost"] = costs.as_data() if costs else None
            sys.stdout.write(json.dumps(shown, indent=2) + "\n")
        elif lag:
            print_lag(lag_of(row.directory), console)
        elif origins:
            print_origins(row.directory, console)
        else:
            _print(row, snapshot, console, config=config)
        sys.stdout.flush()


def _print(
    row: RunRow, snapshot: Mapping[str, Any] | None, console: Console, *, config: bool
) -> None:
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
        "checkpoints": _checkpoints(row.checkpoints),
        "parts": parts_in_words(row.directory, row.attempt),
        "directory": row.directory,
    }
    for name, value in known.items():
        if value is not None:
            print_fact(name, str(value), console)
    if (lag := lag_of(row.directory)) is not None:
        print_fact("lag", lag_in_words(lag), console)
    if (used := time_of(row.directory, is_running=row.status == "running")) is not None:
        print_time(used, console)
    print_cost(ledger_of(row.directory), console)
    if (resources := resources_of(row.directory)) is not None:
        print_resources(resources, console)
    if row.metrics:
        console.print(_metrics(row.metrics, console))
        if (left := len(row.metrics) - _MOST_METRICS) > 0:
            console.print(Text(f"  and {left:,} more: --json has all", "dim"))
    if snapshot is not None:
        console.print(Text(" origin", "bold"))
        print_snapshot(snapshot, console)
    if config:
        text = json.dumps(dict(row.config), indent=2, ensure_ascii=False)
        for line in text.splitlines():
            console.print(Text(plain(line, console)))


def _checkpoints(known: Mapping[str, object]) -> str | None:
    if not known.get("count"):
        return None
    steps = {which: known.get(which) for which in ("latest", "best")}
    named = [f"{which} {step}" for which, step in steps.items() if step is not None]
    return ", ".join([str(known["count"]), *named])


def _metrics(metrics: Mapping[str, MetricSummary], console: Console) -> Table:
    table = Table(box=None, padding=(0, 1, 0, 1), header_style="bold")
    table.add_column("metric", overflow="fold")
    all_parts = ("last", "min", "max", "mean", "step", "count")
    parts = all_parts if console.width >= _NARROW else ("last", "step")
    for part in parts:
        table.add_column(part, justify="right", no_wrap=True)
    for name in sorted(metrics)[:_MOST_METRICS]:
        numbers = (getattr(metrics[name], part) for part in parts)
        table.add_row(Text(name_in_table(name, console)), *(shown_value(n) for n in numbers))
    return table
