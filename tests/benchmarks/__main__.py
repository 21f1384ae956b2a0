"""Measure what keisei costs, and print one table.

    python -m tests.benchmarks
    python -m tests.benchmarks --quick --only imports

Every number is the median of several repeats, with the lowest and the highest in parentheses;
keisei and its peer take turns. No clock decides how this ends: a target that is missed is a NO in
the table. It fails only where a benchmark itself does.
"""

from __future__ import annotations

import argparse
from collections.abc import Sequence
from dataclasses import astuple, fields

from tests.benchmarks import (
    crowd,
    dark,
    hosts,
    imports,
    journal,
    kills,
    large,
    late,
    many,
    outages,
    peers,
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
    "late": late.run,
    "kills": kills.run,
    "outages": outages.run,
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
    """Run the benchmarks that the command line asks for."""
    description = (__doc__ or "").partition("\n\n")[0]
    parser = argparse.ArgumentParser(prog="python -m tests.benchmarks", description=description)
    parser.add_argument("--quick", action="store_true", help="take fewer repeats")
    parser.add_argument("--only", choices=BENCHMARKS, metavar="NAME", help=", ".join(BENCHMARKS))
    options = parser.parse_args()
    facts = machine()
    names = [options.only] if options.only else list(BENCHMARKS)
    rows = [row for name in names for row in BENCHMARKS[name](quick=options.quick)]
    print(f"{facts}\n")
    print(table(rows))


if __name__ == "__main__":
    main()
