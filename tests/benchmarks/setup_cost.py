"""What a session without a tracker costs, against the same files made by plain blocking calls.

Both take turns in one process, on a loop that is warm. On a disk fsync is nearly all of it; on a
tmpfs, where fsync costs nothing, keisei's own overhead shows most. The plain calls hold the loop:
what they cost in two bare hops to a thread (set-up, end) is shown too.
"""

from __future__ import annotations

import json
import os
import statistics
import sys
from pathlib import Path
from time import perf_counter
from typing import Any

import anyio.to_thread

from keisei import AppConfig, AsyncSessionManager, LoggingConfig
from keisei.config.schema import ProvenanceConfig
from tests.benchmarks import plain
from tests.benchmarks.measure import Row, child_environment, progress, row, run_child, workplace
from tests.benchmarks.ticker import run_on

PEERS = {"plain": "plain calls", "hops": "the same in two thread hops"}
LOOPS = ("asyncio", "uvloop", "trio")
WARM_UP = 5
SHARED_MEMORY = "/dev/shm"
AT_MOST = {None: 1.3, SHARED_MEMORY: 4.0}  # times what the plain calls take


def run(*, quick: bool) -> list[Row]:
    """Measure the set-ups.

    Args:
        quick: take fewer repeats.
    """
    repeats = 3 if quick else 7
    places: list[tuple[str, str | None, int]] = [("temp dir", None, 20)]
    if os.path.isdir(SHARED_MEMORY):
        places.append((SHARED_MEMORY, SHARED_MEMORY, 200))
    rows = []
    with workplace() as home:
        environ = child_environment(home)
        for label, parent, sessions in places:
            samples: dict[str, list[dict[str, Any]]] = {loop: [] for loop in LOOPS}
            for repeat in range(repeats):
                progress(f"setup: {label}, {repeat + 1} of {repeats}")
                for loop in LOOPS:
                    with workplace(parent) as place:
                        measured = run_child("setup_cost", loop, place, sessions, environ=environ)
                        samples[loop].append(measured)
            for peer, shown in PEERS.items():
                for loop, measured in samples.items():
                    rows.append(
                        row(
                            f"a session without tracker, {label}, {loop}: against {shown}",
                            [sample["keisei"] for sample in measured],
                            [sample[peer] for sample in measured],
                            unit="us",
                            ratio_at_most=AT_MOST[parent] if peer == "plain" else None,
                        )
                    )
        with workplace() as place:
            counted = run_child("setup_cost", "asyncio", place, 0, environ=environ)
    rows += [_same(what, *counted[what]) for what in ("fsyncs", "files and directories")]
    return rows


def _same(what: str, ours: Any, theirs: Any) -> Row:
    """Show that both sides did the same."""
    keisei, peer = (str(side if isinstance(side, int) else len(side)) for side in (ours, theirs))
    met = "yes" if ours == theirs else "NO"
    return Row(f"{what} of a session without tracker", keisei, peer, target="the same", met=met)


def _config(root: Path) -> AppConfig:
    return AppConfig(
        logging=LoggingConfig(log_dir=root, log_level="error"),
        provenance=ProvenanceConfig(enabled=False),  # the plain calls ask no git
    )


async def _compare(place: Path, sessions: int) -> dict[str, float]:
    """Make sessions in turns, and give the median time of each side."""
    root, plain_root = place / "keisei", place / "plain"
    plain_root.mkdir()
    config = _config(root)
    times: dict[str, list[float]] = {"keisei": [], "plain": [], "hops": []}
    for number in range(WARM_UP + sessions):
        started = perf_counter()
        async with AsyncSessionManager(config):
            pass
        times["keisei"].append(perf_counter() - started)

        started = perf_counter()
        plain.Session(str(plain_root), f"session-{number}", config).end()
        times["plain"].append(perf_counter() - started)

        started = perf_counter()
        args = (str(plain_root), f"session-{number}-in-threads", config)
        session = await anyio.to_thread.run_sync(plain.Session, *args)
        await anyio.to_thread.run_sync(session.end)
        times["hops"].append(perf_counter() - started)
    return {side: statistics.median(series[WARM_UP:]) for side, series in times.items()}


async def _count(place: Path) -> dict[str, list[Any]]:
    """Make one session of each side; give its fsyncs, and the files that it leaves."""
    root, plain_root = place / "keisei", place / "plain"
    root.mkdir()
    plain_root.mkdir()
    config = _config(root)
    syncs = 0
    fsync = os.fsync

    def counted(fd: Any) -> None:
        nonlocal syncs
        syncs += 1
        fsync(fd)

    os.fsync = counted
    async with AsyncSessionManager(config):
        pass
    ours, syncs = syncs, 0
    plain.Session(str(plain_root), "session", config).end()
    os.fsync = fsync
    return {
        "fsyncs": [ours, syncs],
        "files and directories": [_left(root), _left(plain_root)],
    }


def _left(root: Path) -> list[str]:
    (run,) = root.iterdir()
    return sorted(f"{path.relative_to(run)}:{path.stat().st_mode:o}" for path in run.rglob("*"))


def _child(loop: str, place: str, sessions: str) -> None:
    measured: dict[str, Any] = {}

    async def main() -> None:
        count = int(sessions)
        measured.update(await (_compare(Path(place), count) if count else _count(Path(place))))

    run_on(loop, main)
    print(json.dumps(measured))


if __name__ == "__main__":
    _child(*sys.argv[2:])
