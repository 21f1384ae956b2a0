"""What the user sees: tables in a terminal, plain lines everywhere else."""

from __future__ import annotations

import json
from collections.abc import Mapping, Sequence
from typing import Any

import numpy as np
from rich.console import Console
from rich.panel import Panel
from rich.table import Table

console = Console(highlight=False)


def line(text: str) -> None:
    """Print one line, as it is."""
    console.print(text, markup=False, soft_wrap=True)


def table(title: str, rows: Mapping[str, Any]) -> None:
    """Print names and values: a table in a terminal, else one line of JSON."""
    if not console.is_terminal:
        line(json.dumps({title: rows}))
        return
    grid = Table.grid(padding=(0, 2))
    grid.add_column(style="bold")
    grid.add_column(overflow="fold")
    for name, value in rows.items():
        grid.add_row(name, "-" if value is None else str(value))
    console.print(Panel(grid, title=title, title_align="left"))


def learning_line(returns: Sequence[float]) -> str:
    """Return a line on how the mean return has changed, given each episode's return in order."""
    if not returns:
        return "mean return: no episode has ended"
    count = min(100, len(returns))
    first, last = np.mean(returns[:count]), np.mean(returns[-count:])
    return (
        f"mean return: {first:.1f} (first {count} episodes) -> {last:.1f} (last {count} episodes)"
    )
