"""What the benchmarks share: fresh child processes, spreads of samples, and rows of the table."""

from __future__ import annotations

import json
import os
import platform
import statistics
import subprocess
import sys
import tempfile
from collections.abc import Iterator, Sequence
from contextlib import contextmanager, suppress
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from keisei._io.spawn import MARK

ROOT = Path(__file__).resolve().parents[2]
CHILD_TIMEOUT = 300.0

UNITS = {"us": 1e6, "ms": 1e3, "s": 1.0, "KiB": 1 / 1024, "MB": 1e-6, "k rows": 1e-3, "": 1.0}


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
    """Return a row of two series that were measured in turns.

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
    targets = []
    if at_most is not None:
        targets.append((f"<= {at_most:g} {unit}".rstrip(), ours * UNITS[unit] <= at_most))
    if ratio_at_most is not None and ratio is not None:
        targets.append((f"<= {ratio_at_most:g} x", ratio <= ratio_at_most))
    if ratio_at_least is not None and ratio is not None:
        targets.append((f">= {ratio_at_least:g} x", ratio >= ratio_at_least))
    return Row(
        what,
        spread(keisei, unit),
        spread(peer, unit) if peer else "",
        f"{ratio:.3g} x" if ratio is not None else "",
        ", ".join(text for text, _ in targets),
        met(all(reached for _, reached in targets)) if targets else "",
    )


def spread(samples: Sequence[float], unit: str) -> str:
    """Return the median of samples, and in parentheses the lowest and the highest."""
    low, mid, high = (
        f"{value * UNITS[unit]:.4g}"
        for value in (min(samples), statistics.median(samples), max(samples))
    )
    return f"{mid} {unit}".rstrip() + (f" ({low} - {high})" if low != high else "")


def met(reached: bool) -> str:
    """Return what the table says of a target."""
    return "yes" if reached else "NO"


def progress(text: str) -> None:
    """Print to stderr what is being measured."""
    print(text, file=sys.stderr, flush=True)


@contextmanager
def workplace(parent: str | None = None) -> Iterator[Path]:
    """Make a fresh directory that is gone afterwards.

    Args:
        parent: where to make it; ``None`` takes the system's place for temporary files.
    """
    with tempfile.TemporaryDirectory(
        prefix="keisei-bench-", dir=parent, ignore_cleanup_errors=True
    ) as directory:
        yield Path(directory)


def child_environment(home: Path) -> dict[str, str]:
    """Return the environment of the children: the same for keisei and its peers.

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
    """Run a benchmark's child in a fresh process, and return the JSON that it prints.

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


@contextmanager
def busy(count: int) -> Iterator[None]:
    """Have processes of low priority that always compute, as many as busy trackers would be.

    Args:
        count: how many.
    """
    code = "import os\nos.nice(10)\nprint(flush=True)\nwhile True: pass"
    processes = [
        subprocess.Popen([sys.executable, "-I", "-S", "-c", code], stdout=subprocess.PIPE)
        for _ in range(count)
    ]
    try:
        for process in processes:
            assert process.stdout is not None
            process.stdout.readline()
        yield
    finally:
        for process in processes:
            process.kill()
            process.communicate()


def host_processes(program: int) -> list[int]:
    """Return the ids of a program's host processes, where the system has `/proc`.

    Args:
        program: the id of the program's process.
    """
    found = []
    for directory in Path("/proc").iterdir():
        with suppress(OSError, IndexError):
            if not directory.name.isdigit():
                continue
            parent = (directory / "stat").read_text().rpartition(")")[2].split()[1]
            if int(parent) == program and MARK.encode() in (directory / "environ").read_bytes():
                found.append(int(directory.name))
    return found


def own_memory() -> dict[str, int] | None:
    """Return this process's bytes in memory, and those that no other process shares.

    Returns:
        ``rss`` and ``uss``; ``None`` where the system does not tell.
    """
    try:
        lines = Path("/proc/self/smaps_rollup").read_text().splitlines()[1:]
    except OSError:
        return None
    sizes = {line.split(":")[0]: int(line.split()[1]) * 1024 for line in lines}
    return {"rss": sizes["Rss"], "uss": sizes["Private_Clean"] + sizes["Private_Dirty"]}


def machine() -> str:
    """Return what of this machine decides the figures."""
    load = f", load {os.getloadavg()[0]:.1f} at the start" if hasattr(os, "getloadavg") else ""
    cores = len(os.sched_getaffinity(0)) if hasattr(os, "sched_getaffinity") else os.cpu_count()
    return f"Python {platform.python_version()}, {platform.platform()}, {cores} cores{load}"
