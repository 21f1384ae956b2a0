"""Measure what keisei costs, and print a table for each subject.

    python -m tests.benchmarks
    python -m tests.benchmarks --quick --only imports

Every number is the median of several repeats, with the lowest and the highest in parentheses;
keisei and its peer take turns. No clock decides how this ends: a target that is missed is a NO in
the table. It fails only where a benchmark itself does. One alone is run by its name, `--only`.
"""

from __future__ import annotations

import argparse
import sys
import traceback
from collections.abc import Sequence
from dataclasses import astuple, fields
from time import perf_counter

from tests.benchmarks import (
    checkpoints,
    crowd,
    dark,
    due,
    hosts,
    imports,
    journal,
    kills,
    lag,
    large,
    late,
    many,
    media,
    outages,
    page,
    parts,
    peers,
    registry,
    setup_cost,
    stall,
    trackers,
)
from tests.benchmarks.measure import Row, machine

BENCHMARKS = {
    "stall": stall.run,
    "imports": imports.run,
    "setup": setup_cost.run,
    "many": many.run,
    "crowd": crowd.run,
    "journal": journal.run,
    "peers": peers.run,
    "calls": peers.run_calls,
    "hosts": hosts.run,
    "trackers": trackers.run,
    "large": large.run,
    "dark": dark.run,
    "due": due.run,
    "late": late.run,
    "kills": kills.run,
    "outages": outages.run,
    "checkpoints": checkpoints.run,
    "parts": parts.run,
    "registry": registry.run,
    "media": media.run,
    "page": page.run,
    "lag": lag.run,
}


def table(rows: Sequence[Row]) -> str:
    """Lay rows out in aligned columns, under the names of their fields."""
    cells = [tuple(field.name for field in fields(Row)), *map(astuple, rows)]
    cells[0] = (*cells[0][:-1], "met?")
    widths = [max(map(len, column)) for column in zip(*cells, strict=True)]
    cells.insert(1, tuple("-" * width for width in widths))
    lines = (
        "  ".join(cell.ljust(width) for cell, width in zip(line, widths, strict=True))
        for line in cells
    )
    return "\n".join(line.rstrip() for line in lines)


def main() -> None:
    """Run the benchmarks that the command line asks for; print the table of each when it ends."""
    description = (__doc__ or "").partition("\n\n")[0]
    parser = argparse.ArgumentParser(prog="python -m tests.benchmarks", description=description)
    parser.add_argument("--quick", action="store_true", help="take fewer repeats")
    parser.add_argument("--only", choices=BENCHMARKS, metavar="NAME", help=", ".join(BENCHMARKS))
    options = parser.parse_args()
    print(machine(), flush=True)
    failed = []
    for name in [options.only] if options.only else BENCHMARKS:
        began = perf_counter()
        try:
            rows = BENCHMARKS[name](quick=options.quick)
        except Exception:
            traceback.print_exc()
            failed.append(name)
            continue
        print(f"\n{name}, {perf_counter() - began:.0f} s\n{table(rows)}", flush=True)
    if failed:
        sys.exit(f"failed: {', '.join(failed)}")


if __name__ == "__main__":
    main()
