"""What the user sees: tables in a terminal, plain lines everywhere else."""

from __future__ import annotations

from collections.abc import Mapping, Sequence

import numpy as np
from rich.console import Console
from rich.panel import Panel
from rich.table import Table

console = Console(highlight=False)


def line(text: str) -> None:
    """Print one line, as it is."""
    console.print(text, markup=False, soft_wrap=True)


def table(title: str, rows: Mapping[str, str]) -> None:
    """Print names and texts: in a box in a terminal, else on a line each."""
    if not console.is_terminal:
        width = max(map(len, rows), default=0)
        line(
            "\n".join([f"{title}:", *(f"  {name:<{width}}  {text}" for name, text in rows.items())])
        )
        return
    grid = Table.grid(padding=(0, 2))
    grid.add_column(style="bold")
    grid.add_column(overflow="fold")
    for name, text in rows.items():
        grid.add_row(name, text)
    console.print(Panel(grid, title=title, title_align="left"))


def learning_line(returns: Sequence[float]) -> str:
    """Return a line on how the mean return has changed, given each episode's return in order."""
    if not returns:
        return "no episode has ended"
    count = min(100, len(returns))
    first, last = np.mean(returns[:count]), np.mean(returns[-count:])
    episodes = f"first and last {count} of {len(returns):,} episodes"
    return f"mean return {first:.1f} -> {last:.1f} ({episodes})"
