"""What `keisei show` says of what has held a run's event loop."""

from __future__ import annotations

import os
from collections.abc import Mapping
from contextlib import suppress
from typing import Any

from rich.console import Console
from rich.table import Table
from rich.text import Text

from keisei.cli.shared import plain, print_note
from keisei.monitoring.lag_used import read_lag_used

_NARROW = 64  # columns, in which a line has no room for the longest stall and the causes


def lag_of(directory: str) -> dict[str, Any] | None:
    """Return what has held the loops of a run, of all its attempts and parts.

    Args:
        directory: the run's directory, which may be another host's.

    Returns:
        The table; ``None`` where nothing is known.
    """
    try:
        return read_lag_used(directory)
    except OSError:
        return None


def lag_in_words(lag: Mapping[str, Any]) -> str:
    """Return in a line what has held a run's loops.

    Args:
        lag: what `lag_of` has returned.
    """
    stalls = lag["stalls"]
    text = f"{stalls:,} stall{'' if stalls == 1 else 's'} of the loop, {_seconds(lag['seconds'])}"
    text += f", the longest {_seconds(lag['longest_s'])}"
    if lag["functions"]:
        text += f"; most in {_who(lag['functions'][0])}"
    return f"{text} (--lag has all)"


def print_lag(lag: Mapping[str, Any] | None, console: Console) -> None:
    """Print the whole table.

    Args:
        lag: what `lag_of` has returned.
        console: where to.
    """
    if lag is None:
        console.print("No stall of an event loop is recorded.")
        return
    table = Table(box=None, padding=(0, 1, 0, 1), header_style="bold")
    is_wide = console.width >= _NARROW
    for name in ("function", "where") if is_wide else ("function",):
        table.add_column(name, overflow="fold")
    for name in ("stalls", "total", "longest") if is_wide else ("stalls", "total"):
        table.add_column(name, justify="right", no_wrap=True)
    if is_wide:
        table.add_column("causes", overflow="fold")
    for one in lag["functions"]:
        causes = sorted(one["causes"].items(), key=lambda item: -item[1])
        where = f"{_from_here(one['file'])}:{one['line']}" if one["file"] else ""
        name, where = plain(_name(one), console), plain(where, console)
        numbers = (f"{one['count']:,}", _seconds(one["seconds"]))
        if not is_wide:
            table.add_row(Text(f"{name}\n{where}" if where else name), *numbers)
            continue
        table.add_row(
            Text(name),
            Text(where),
            *numbers,
            _seconds(one["longest_s"]),
            Text(plain(", ".join(f"{cause} {count:,}" for cause, count in causes), console)),
        )
    console.print(table)
    stalls = f"{lag['stalls']:,} stall{'' if lag['stalls'] == 1 else 's'}"
    total = f"{stalls}, {_seconds(lag['seconds'])}"
    if lag["left_out"]:
        total += f"; counted here alone, and no events of their own: {lag['left_out']:,}"
    print_note(total, console, "dim")


def _who(row: Mapping[str, Any]) -> str:
    where = f" ({row['file'].rpartition('/')[2]}:{row['line']})" if row["file"] else ""
    return f"{_name(row)}{where}"


def _from_here(file: str) -> str:
    """Return a file as it is called from the working directory, where it is below that."""
    with suppress(OSError):
        here = os.getcwd().rstrip(os.sep) + os.sep
        return file.removeprefix(here)
    return file


def _name(row: Mapping[str, Any]) -> str:
    if row["function"] is not None:
        return str(row["function"])
    causes = row["causes"]
    return f"({max(causes, key=causes.__getitem__)})" if causes else "(not seen)"


def _seconds(seconds: float) -> str:
    return f"{seconds:.3f} s" if seconds < 10 else f"{seconds:,.1f} s"
