"""What `keisei show` says of a run's time: its phases, its goodput, and how fast it is."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from rich.console import Console
from rich.table import Table
from rich.text import Text

from keisei.cli.shared import plain, print_note
from keisei.monitoring.time_used import read_time_used
from keisei.reports.words import duration, rate

_MOST = 20  # phases on a screen


def time_of(directory: str, *, is_running: bool) -> dict[str, Any] | None:
    """Return what a run's time was used for; ``None`` where that is not to be had here.

    Args:
        directory: the run's directory, which may be another host's.
        is_running: whether there is anything left to wait for.
    """
    try:
        known = read_time_used(directory)
    except OSError:
        return None
    if known is not None and not is_running and known["throughput"] is not None:
        known["throughput"]["time_to_go_s"] = None
    return known


def print_time(known: Mapping[str, Any], console: Console) -> None:
    """Print the shares of a run's time as a table, and its goodput and throughput below it."""
    table = Table(box=None, padding=(0, 1, 0, 1), header_style="bold")
    table.add_column("phase", overflow="fold")
    table.add_column("time", justify="right")
    table.add_column("share", justify="right")
    for name, seconds in list(known["seconds"].items())[:_MOST]:
        share = f"{known['shares'][name]:.1%}"
        table.add_row(Text(plain(name, console)), duration(seconds), share)
    console.print(table)
    words = []
    if known["goodput"] is not None:
        words.append(f"goodput {known['goodput']:.1%}")
    if (speed := known["throughput"]) is not None:
        words.append(f"{rate(speed['steps_per_s'])} steps/s")
        words.append(f"lately {rate(speed['recent_steps_per_s'])}")
        if speed["time_to_go_s"] is not None:
            words.append(f"{duration(speed['time_to_go_s'])} to go to {speed['total_steps']:,}")
    if words:
        print_note(", ".join(words), console)
