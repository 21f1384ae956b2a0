"""How long a first session with W&B (offline) holds the loop, against the SDK called on the loop.

The programs are in `first_session`. A run of each side has a fresh process, in turns: keisei on
each loop, the SDK's own calls on asyncio's, and each loop alone with one busy process of low
priority beside it, which is what a host process is to the program.
"""

from __future__ import annotations

from contextlib import nullcontext

from tests.benchmarks.measure import (
    Row,
    busy,
    child_environment,
    progress,
    row,
    run_child,
    workplace,
)

LOOPS = ("asyncio", "uvloop", "trio")
SIDES = [
    ("sdk", "asyncio"),
    *((side, loop) for loop in LOOPS for side in ("keisei", "beside")),
]


def run(*, quick: bool) -> list[Row]:
    """Measure the stalls.

    Args:
        quick: take fewer repeats.
    """
    repeats = 3 if quick else 9
    samples: dict[tuple[str, str], list[dict[str, float]]] = {side: [] for side in SIDES}
    with workplace() as place:
        environ = child_environment(place)
        for repeat in range(-1, repeats):  # the first one only warms the caches
            progress(f"stall: {'warm-up' if repeat < 0 else f'{repeat + 1} of {repeats}'}")
            for side, loop in SIDES if repeat >= 0 else SIDES[:2]:
                directory = place / f"{side}-{loop}-{repeat}"
                directory.mkdir()
                with busy(1) if side == "beside" else nullcontext():
                    measured = run_child("first_session", side, loop, directory, environ=environ)
                if repeat >= 0:
                    samples[side, loop].append(measured)

    def series(side: str, loop: str, value: str) -> list[float]:
        return [measured[value] for measured in samples[side, loop]]

    rows = []
    for loop in LOOPS:
        what = f"first session with W&B offline, whole, {loop}"
        longest = series("keisei", loop, "longest")
        sdk = series("sdk", "asyncio", "longest")
        alone = f"{what}: longest stall, against the loop and one busy process"
        rows += [
            row(
                f"{what}: longest stall, against the SDK on the loop",
                longest,
                sdk,
                unit="ms",
                at_most=8.0,
                ratio_at_most=1 / 100,
            ),
            row(alone, longest, series("beside", loop, "longest"), unit="ms"),
            row(
                f"{what}: p99 lag, against the loop and one busy process",
                series("keisei", loop, "p99"),
                series("beside", loop, "p99"),
                unit="ms",
                ratio_at_most=1.3,
            ),
        ]
    return rows
