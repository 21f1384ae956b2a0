"""What the user sees: bars and tables in a terminal, plain lines everywhere else."""

from __future__ import annotations

import json
from collections.abc import Mapping, Sequence
from types import TracebackType
from typing import Any

import numpy as np
from rich.console import Console
from rich.panel import Panel
from rich.progress import BarColumn, MofNCompleteColumn, Progress, TextColumn, TimeElapsedColumn
from rich.table import Table

from .learner import Epoch


class Display:
    """The screen. In a `with` block, a terminal shows a progress bar."""

    def __init__(self, total_timesteps: int) -> None:
        """Prepare a bar that is full at `total_timesteps` environment steps."""
        self._console = Console(highlight=False)
        self._progress = Progress(
            TextColumn("[bold]CartPole"),
            BarColumn(),
            MofNCompleteColumn(),
            TextColumn("mean return {task.fields[mean_return]:.1f}", style="green"),
            TextColumn("{task.fields[speed]:,.0f} steps/s", style="cyan"),
            TimeElapsedColumn(),
            console=self._console,
            disable=not self._console.is_terminal,
        )
        self._bar = self._progress.add_task("", total=total_timesteps, mean_return=0.0, speed=0.0)

    def __enter__(self) -> Display:
        self._progress.start()
        return self

    def __exit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        traceback: TracebackType | None,
    ) -> None:
        self._progress.stop()

    def line(self, text: str) -> None:
        """Print one line, as it is."""
        self._console.print(text, markup=False, soft_wrap=True)

    def show(self, epoch: Epoch) -> None:
        """Move the bar on, or print a line where there is none."""
        if self._console.is_terminal:
            self._progress.update(
                self._bar,
                completed=epoch.steps,
                mean_return=epoch.mean_return,
                speed=epoch.steps_per_second,
            )
        else:
            self.line(str(epoch))

    def table(self, title: str, rows: Mapping[str, Any]) -> None:
        """Print names and values: a table in a terminal, else one line of JSON."""
        if not self._console.is_terminal:
            self.line(json.dumps({title: rows}))
            return
        grid = Table.grid(padding=(0, 2))
        grid.add_column(style="bold")
        grid.add_column(overflow="fold")
        for name, value in rows.items():
            grid.add_row(name, "-" if value is None else str(value))
        self._console.print(Panel(grid, title=title, title_align="left"))


def learning_line(returns: Sequence[float]) -> str:
    """Say how the mean return has changed, given every episode's return in order."""
    if not returns:
        return "mean return: no episode has ended"
    count = min(100, len(returns))
    first, last = np.mean(returns[:count]), np.mean(returns[-count:])
    return (
        f"mean return: {first:.1f} (first {count} episodes) -> {last:.1f} (last {count} episodes)"
    )
