"""How long `import keisei` takes, with a first config, against what every program of its kind pays.

That is `import anyio, aiofiles, pydantic` and one model of ten fields. Each import is a fresh
process with warm bytecode, timed from outside, in turns; what a process costs that does nothing
(`pass`) is subtracted. pydantic imports its names when they are first used, so each side also uses
what it has imported.
"""

from __future__ import annotations

import statistics
import subprocess
import sys
from time import perf_counter

from tests.benchmarks.measure import ROOT, Row, child_environment, progress, row, workplace

FRONT_DOOR = "import keisei; keisei.AppConfig()"
WITH_FILE = f"{FRONT_DOOR}; keisei.load_config(overrides='env.seed=3')"
MODEL = """
import anyio, aiofiles, pydantic

class Model(pydantic.BaseModel):
    name: str = "run"
    note: str | None = None
    seed: int = 1
    rate: float = 0.1
    steps: int = 2048
    fast: bool = True
    tags: list[str] = []
    sizes: dict[str, int] = {}
    size: tuple[int, int] = (64, 64)
    device: str = "cpu"

Model()
"""
# What a session of its own would need of anyio, too; `import anyio` alone imports little of it.
USED = f"{MODEL}anyio.Event, anyio.fail_after, anyio.from_thread, anyio.to_thread"
NAMES = {
    FRONT_DOOR: "`import keisei` and a config",
    WITH_FILE: "`import keisei` and `load_config`, which reads YAML",
    MODEL: "`import anyio, aiofiles, pydantic` and a model",
    USED: "that, and the parts of anyio that keisei uses",
    "import wandb": "`import wandb`",
}


def run(*, quick: bool) -> list[Row]:
    """Measure the imports.

    Args:
        quick: take fewer repeats.
    """
    repeats = 7 if quick else 21
    samples: dict[str, list[float]] = {code: [] for code in ["pass", *NAMES]}
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
    nothing = statistics.median(samples.pop("pass"))
    net = {code: [time - nothing for time in times] for code, times in samples.items()}

    def against(code: str, peer: str, ratio_at_most: float | None = None) -> Row:
        what = f"{NAMES[code]}, against {NAMES[peer]} (warm bytecode)"
        return row(what, net[code], net[peer], unit="ms", ratio_at_most=ratio_at_most)

    return [
        against(FRONT_DOOR, MODEL, 1.25),
        against(FRONT_DOOR, USED),
        against(FRONT_DOOR, "import wandb"),
        against(WITH_FILE, FRONT_DOOR),
    ]
