"""What `keisei show` says of the cost of a run: lines, totals, and what has no price."""

from __future__ import annotations

from rich.console import Console
from rich.table import Table
from rich.text import Text

from keisei.cli.shared import plain, print_fact
from keisei.monitoring.ledger import Ledger
from keisei.monitoring.money import rounded

_MOST = 20  # lines, on a screen


def print_cost(ledger: Ledger, console: Console) -> None:
    """Print what a run has cost, the largest amounts first; nothing where there is nothing."""
    if not ledger:
        return
    table = Table(box=None, padding=(0, 1, 0, 1), header_style="bold")
    table.add_column("cost", overflow="fold")
    table.add_column("of", overflow="fold")
    table.add_column("amount", justify="right")
    table.add_column("")
    lines = sorted(ledger.lines, key=lambda line: (line.currency, -line.amount))
    for line in lines[:_MOST]:
        cells = (line.what, line.quantity, rounded(line.amount), line.currency)
        table.add_row(*(Text(plain(cell, console)) for cell in cells))
    if (left := len(lines) - _MOST) > 0:
        table.add_row(Text(f"and {left:,} more: --json has all", "dim"))
    for currency, total in sorted(ledger.totals.items()):
        cells = ("total", "", rounded(total), currency)
        table.add_row(*(Text(plain(cell, console), "bold") for cell in cells))
    console.print(table)
    tables = dict.fromkeys(name for line in ledger.lines for name in line.prices)
    if tables:
        print_fact("prices", ", ".join(tables), console, "dim")
    for number, text in enumerate(ledger.unpriced):
        print_fact("" if number else "unpriced", text, console, "yellow")
