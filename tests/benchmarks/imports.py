"""How long keisei's import takes, against pydantic's and wandb's.

Each import is a fresh process, timed from outside, in turns; what a process costs that does
nothing (`pass`) is subtracted. keisei and pydantic both import their public names when they are
first used, so the name that everybody uses is measured too.
"""

from __future__ import annotations

import statistics
import subprocess
import sys
from time import perf_counter

from tests.benchmarks.measure import ROOT, Row, child_environment, progress, row, workplace

NOTHING = "pass"
IMPORTS = [
    "import keisei",
    "import pydantic",
    "import wandb",
    "from keisei import AsyncSessionManager",
    "from pydantic import BaseModel",
    "import anyio, aiofiles.os; from pydantic import BaseModel",
]


def run(*, quick: bool) -> list[Row]:
    """Measure the imports.

    Args:
        quick: take fewer repeats.
    """
    repeats = 7 if quick else 21
    samples: dict[str, list[float]] = {code: [] for code in [NOTHING, *IMPORTS]}
    with workplace() as place:
        environ = child_environment(place)
        for repeat in range(-1, repeats):  # the first one only warms the caches
            if repeat % 5 == 0 or repeat < 0:
                progress(f"imports: {'warm-up' if repeat < 0 else f'{repeat} of {repeats}'}")
            for code, times in samples.items():
                started = perf_counter()
                subprocess.run([sys.executable, "-c", code], cwd=ROOT, env=environ, check=True)
                if repeat >= 0:
                    times.append(perf_counter() - started)
    nothing = statistics.median(samples.pop(NOTHING))
    net = {code: [time - nothing for time in times] for code, times in samples.items()}

    def against(code: str, peer: str, ratio_at_most: float | None = None) -> Row:
        what = f"`{code}` against `{peer}` (warm bytecode)"
        return row(what, net[code], net[peer], unit="ms", ratio_at_most=ratio_at_most)

    front, manager = "import keisei", "from keisei import AsyncSessionManager"
    return [
        against(front, "import pydantic", 1.5),
        against(front, "import wandb"),
        against(manager, "from pydantic import BaseModel"),
        against(manager, IMPORTS[-1]),
        against(manager, "import wandb"),
    ]
