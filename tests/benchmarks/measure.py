"""What the benchmarks share: fresh child processes, spreads of samples, and rows of the table."""

from __future__ import annotations

import json
import os
import statistics
import subprocess
import sys
import tempfile
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any

ROOT = Path(__file__).resolve().parents[2]
CHILD_TIMEOUT = 300.0

UNITS = {"us": 1e6, "ms": 1e3, "s": 1.0, "KiB": 1 / 1024, "k rows": 1e-3, "": 1.0}


@dataclass(frozen=True)
class Row:
    """A line of the table, ready to print."""

    what: str
    keisei: str
    peer: str = ""
    ratio: str = ""
    target: str = ""
    met: str = ""


def row(
    what: str,
    keisei: Sequence[float],
    peer: Sequence[float] = (),
    *,
    unit: str,
    at_most: float | None = None,
    ratio_at_most: float | None = None,
    ratio_at_least: float | None = None,
) -> Row:
    """Make a row of two series that were measured in turns.

    Args:
        what: what was measured.
        keisei: its samples, in seconds, bytes, rows or plain numbers.
        peer: the peer's.
        unit: the unit to show them in.
        at_most: the target for keisei's median, in that unit.
        ratio_at_most: the target for the ratio of the medians.
        ratio_at_least: the same, where more is better.
    """
    ours = statistics.median(keisei)
    theirs = statistics.median(peer) if peer else None
    ratio = ours / theirs if theirs else None
    target, met = "", ""
    if at_most is not None:
        target, met = f"<= {at_most:g} {unit}".rstrip(), _met(ours * UNITS[unit] <= at_most)
    if ratio_at_most is not None and ratio is not None:
        target, met = f"<= {ratio_at_most:g} x", _met(ratio <= ratio_at_most)
    if ratio_at_least is not None and ratio is not None:
        target, met = f">= {ratio_at_least:g} x", _met(ratio >= ratio_at_least)
    return Row(
        what,
        spread(keisei, unit),
        spread(peer, unit) if peer else "",
        f"{ratio:.3g} x" if ratio is not None else "",
        target,
        met,
    )


def spread(samples: Sequence[float], unit: str) -> str:
    """Give the median of samples, and in parentheses the lowest and the highest."""
    low, mid, high = (
        f"{value * UNITS[unit]:.4g}"
        for value in (min(samples), statistics.median(samples), max(samples))
    )
    return f"{mid} {unit}".rstrip() + (f" ({low} - {high})" if low != high else "")


def _met(met: bool) -> str:
    return "yes" if met else "NO"


def progress(text: str) -> None:
    """Say on stderr what is being measured."""
    print(text, file=sys.stderr, flush=True)


@contextmanager
def workplace(parent: str | None = None) -> Iterator[Path]:
    """Give a fresh directory that is gone afterwards.

    Args:
        parent: where to make it; ``None`` takes the system's place for temporary files.
    """
    with tempfile.TemporaryDirectory(
        prefix="keisei-bench-", dir=parent, ignore_cleanup_errors=True
    ) as directory:
        yield Path(directory)


def child_environment(home: Path) -> dict[str, str]:
    """Give the environment of the children: the same for keisei and its peers.

    Bytecode is cached in a directory of their own, whatever the parent was told, so that after
    one warm-up every import is a warm one. No setting, key or login of the user's gets in.
    """
    ours = ("KEISEI_", "WANDB_", "PYTHON", "NETRC")
    environ = {key: value for key, value in os.environ.items() if not key.startswith(ours)}
    return environ | {
        "HOME": str(home),
        "PYTHONPYCACHEPREFIX": str(home / "bytecode"),
        "WANDB_ERROR_REPORTING": "false",
        "WANDB__SERVICE_WAIT": "5",
    }


def run_child(module: str, *args: object, environ: dict[str, str]) -> Any:
    """Run a benchmark's child in a fresh process, and give the JSON that it prints.

    Args:
        module: the module of `tests.benchmarks` whose child it is.
        args: its arguments.
        environ: its environment, from `child_environment`.

    Raises:
        RuntimeError: it failed; the message holds what it said.
    """
    command = [sys.executable, "-m", f"tests.benchmarks.{module}", "child", *map(str, args)]
    ended = subprocess.run(
        command, cwd=ROOT, env=environ, capture_output=True, text=True, timeout=CHILD_TIMEOUT
    )
    if ended.returncode:
        raise RuntimeError(f"{' '.join(command[2:])} failed:\n{ended.stderr}")
    return json.loads(ended.stdout.splitlines()[-1])
