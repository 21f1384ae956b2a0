"""What `keisei show` says of a run's machines: what it has used of them at most and on average."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from rich.console import Console
from rich.table import Table
from rich.text import Text

from keisei.cli.shared import plain
from keisei.monitoring.resources_used import read_resources_used
from keisei.reports.words import in_unit

_MOST = 40  # rows on a screen


def resources_of(directory: str) -> dict[str, Any] | None:
    """Return what a run has used of its machines; ``None`` where that is not to be had here.

    Args:
        directory: the run's directory, which may be another host's.
    """
    try:
        return read_resources_used(directory)
    except OSError:
        return None


def print_resources(known: Mapping[str, Any], console: Console) -> None:
    """Print peaks and means as a table, and energy, GPUs and what is not measured below it."""
    table = Table(box=None, padding=(0, 1, 0, 1), header_style="bold")
    table.add_column("resource", overflow="fold")
    table.add_column("peak", justify="right")
    table.add_column("mean", justify="right")
    names = sorted(known["peaks"])
    for name in names[:_MOST]:
        mean = known["means"].get(name)
        shown = "" if mean is None else in_unit(name, mean)
        table.add_row(Text(plain(name, console)), in_unit(name, known["peaks"][name]), shown)
    console.print(table)
    if len(names) > _MOST:
        console.print(Text(f"  and {len(names) - _MOST:,} more: --json has all", "dim"))
    words = [f"{known['nodes']:,} node{'s' if known['nodes'] != 1 else ''}"]
    if known["gpus"] is not None:
        words.append(f"{known['gpus']:,} GPU{'s' if known['gpus'] != 1 else ''}")
    if (cpus := known["limits"].get("cpus")) is not None:
        words.append(f"{cpus:g} of {known['limits'].get('cpus_host', cpus):g} CPUs")
    if (limit := known["limits"].get("memory_limit_bytes")) is not None:
        words.append(f"at most {in_unit('_bytes', limit)} of memory")
    energy = known["energy_j"]
    words.append("energy not measured" if energy is None else f"{energy / 3.6e6:,.4g} kWh measured")
    console.print(Text(f"  {', '.join(words)}"))
    for source, state in list(known["states"].items())[:_MOST]:
        console.print(Text(f"  {plain(source, console)}: {plain(state, console)}", "dim"))
