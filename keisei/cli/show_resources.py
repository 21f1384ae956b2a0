"""What `keisei show` says of a run's machines: what it has used of them at most and on average."""

from __future__ import annotations

import re
from collections.abc import Mapping
from typing import Any

from rich.console import Console
from rich.table import Table
from rich.text import Text

from keisei.cli.shared import plain, print_note
from keisei.monitoring.resources_used import read_resources_used
from keisei.reports.words import allocation_in_words, in_unit

_MOST = 15  # rows on a screen
_ONE_GPU = re.compile(r"^gpu\.\d+\.(?:mig\.\d+\.)?")
# Of the whole host or container, of which the run may have only a part, or no use at all.
_NOT_ITS_OWN = ("_host", "_cgroup", "_cgroup_bytes", "disk.free_bytes", "disk.used")


def resources_of(directory: str) -> dict[str, Any] | None:
    """Return what a run has used of its machines; ``None`` where that is not to be had here.

    Args:
        directory: the run's directory, which may be another host's.
    """
    try:
        return read_resources_used(directory)
    except OSError:
        return None


def of_all_gpus(
    peaks: Mapping[str, float], means: Mapping[str, float | None]
) -> dict[str, tuple[float, float | None]]:
    """Return peaks and means by name, those of all GPUs as one: the highest, and the mean of means.

    What is zero, or is the whole host's, is left out.

    Args:
        peaks: by resource, without `system/`.
        means: by resource.
    """
    found: dict[str, list[str]] = {}
    for name in sorted(peaks):
        if peaks[name] and not name.endswith(_NOT_ITS_OWN):
            found.setdefault(_ONE_GPU.sub("gpu.*.", name), []).append(name)
    rows: dict[str, tuple[float, float | None]] = {}
    for shown, names in found.items():
        known = [mean for name in names if (mean := means.get(name)) is not None]
        mean = sum(known) / len(known) if known else None
        rows[shown if len(names) > 1 else names[0]] = max(map(peaks.__getitem__, names)), mean
    return rows


def print_resources(known: Mapping[str, Any], console: Console) -> None:
    """Print peaks and means as a table, and energy, GPUs and what is not measured below it."""
    table = Table(box=None, padding=(0, 1, 0, 1), header_style="bold")
    table.add_column("resource", overflow="fold")
    table.add_column("peak", justify="right")
    table.add_column("mean", justify="right")
    rows = of_all_gpus(known["peaks"], known["means"])
    for name, (peak, mean) in list(rows.items())[:_MOST]:
        shown = "" if mean is None else in_unit(name, mean)
        table.add_row(Text(plain(name, console)), in_unit(name, peak), shown)
    console.print(table)
    if len(rows) > _MOST or len(rows) < len(known["peaks"]):
        print_note("--json has all, of each GPU", console, "dim")
    print_note(allocation_in_words(known), console)
    for source, state in list(known["states"].items())[:_MOST]:
        print_note(f"{source}: {state}", console, "dim")
