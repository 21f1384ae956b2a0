"""A process that forks trainings with a policy, preempts each at a random instant, and looks.

Run as ``python -m tests.support.preemption_rounds ROOT ROUNDS SEED``; prints one JSON document.
"""

from __future__ import annotations

import json
import os
import random
import signal
import sys
import time
import traceback
from collections.abc import Callable
from pathlib import Path
from typing import Any

import anyio
import numpy as np

from keisei import AppConfig, AsyncSessionManager, SessionManager, load_config
from keisei._io.directories import OpenDirectory
from keisei.checkpoints.layout import Kind, kind_of
from keisei.checkpoints.verify import verify
from keisei.journal.reader import read_run

FACES: list[tuple[str, dict[str, Any]] | None] = [
    ("asyncio", {}),
    ("asyncio", {"use_uvloop": True}),
    ("trio", {}),
    None,
]
KINDS = ["quick", "slow", "quick", "rare", "quick", "stuck", "quick"]
LEAVES = 128 + signal.SIGUSR2
GRACE = {"quick": 20.0, "slow": 20.0, "rare": 2.0, "stuck": 3.0}
LATEST = {kind: grace + 10.0 for kind, grace in GRACE.items()}  # what a busy machine adds
FIRST = 5  # the step that is saved before any signal comes


class Training:
    """A training whose state is half done between two safe points.

    Args:
        kind: `quick`, `slow` in saving, `rare` safe points, or `stuck` in saving.
        say: tells the parent something.
    """

    def __init__(self, kind: str, say: Callable[[str], None]) -> None:
        self.kind, self.say, self.step = kind, say, 0
        self.state: dict[str, Any] = {"step": 0, "weights": np.zeros(2000), "half": False}

    def policy(self) -> dict[str, Any]:
        """Return what is saved, and when."""
        state: Any = self.state if self.kind in ("quick", "rare") else self.write
        return {"interval": FIRST, "state": state, "keep_last": 2}

    def write(self, directory: Path) -> None:
        """Write the state in pieces; at last stuck, where the training is of that kind."""
        if self.kind == "stuck" and self.step > FIRST:
            time.sleep(60)
        for part in range(5):
            time.sleep(0.01)
            (directory / f"{part}").write_text(str(self.state["step"]))

    def begin(self) -> None:
        """Do the first half of a step."""
        self.step += 1
        self.state["half"] = True
        self.state["weights"] += 1

    def end(self) -> None:
        """Do the second half, after which the state is whole."""
        self.state |= {"step": self.step, "half": False}
        self.say(f"at {self.step}")

    def pause(self) -> float:
        """Return how long a step takes, in seconds."""
        return 60.0 if self.kind == "rare" and self.step > FIRST else 0.001


async def train(config: AppConfig, training: Training) -> None:
    """Train for ever on a loop."""
    async with AsyncSessionManager(config, run_name="r") as session:
        session.setup_auto_checkpointing(**training.policy())
        while True:
            training.begin()
            session.log_metrics({"loss": 1.0}, training.step)
            await anyio.sleep(training.pause())
            training.end()
            await session.checkpoint_if_due(training.step)
            if training.step == FIRST:
                training.say("go")


def train_blocking(config: AppConfig, training: Training) -> None:
    """Train for ever without a loop."""
    with SessionManager(config, run_name="r") as session:
        session.setup_auto_checkpointing(**training.policy())
        while True:
            training.begin()
            session.log_metrics({"loss": 1.0}, training.step)
            time.sleep(training.pause())
            training.end()
            session.checkpoint_if_due(training.step)
            if training.step == FIRST:
                training.say("go")


def child(root: Path, kind: str, face: tuple[str, dict[str, Any]] | None, pipe: int) -> int:
    """Train until a signal comes; return the exit code."""
    config = load_config(
        overrides={
            "logging": {"log_dir": str(root)},
            "signals": {"handle": True, "grace": GRACE[kind]},
        }
    )
    training = Training(kind, lambda text: (os.write(pipe, f"{text}\n".encode()), None)[1])
    try:
        if face is None:
            train_blocking(config, training)
        else:
            anyio.run(train, config, training, backend=face[0], backend_options=face[1])
    except SystemExit as exc:
        return int(exc.code or 0)
    return 0


def one_round(root: Path, number: int, chance: random.Random) -> list[str]:
    """Fork, preempt and look; return what is wrong."""
    kind, face = KINDS[number % len(KINDS)], FACES[number % len(FACES)]
    reading, writing = os.pipe()
    pid = os.fork()
    if pid == 0:
        os.close(reading)
        code = 97
        try:
            code = child(root, kind, face, writing)
        except BaseException:
            os.write(writing, traceback.format_exc().encode())
        finally:
            os._exit(code)
    os.close(writing)
    words = []
    with open(reading, "rb") as said:
        while (line := said.readline()) not in (b"go\n", b""):
            words.append(line.decode().strip())
        time.sleep(chance.uniform(0, 0.05))
        begun = time.monotonic()
        os.kill(pid, signal.SIGUSR2)
        words += said.read().decode().split("\n")
    code = os.waitstatus_to_exitcode(os.waitpid(pid, 0)[1])
    took = time.monotonic() - begun
    wrong = [] if code == LEAVES else [f"exit code {code}, not {LEAVES}: {words}"]
    if took > LATEST[kind]:
        wrong.append(f"it took {took:.1f} s")
    safe = max(int(word[3:]) for word in words if word.startswith("at "))
    return wrong + amiss(root, kind, safe)


def amiss(root: Path, kind: str, safe: int) -> list[str]:
    """Return what is wrong with a preempted run.

    Args:
        root: where the run is.
        kind: the kind of its training.
        safe: the last safe point.
    """
    wrong = []
    status = json.loads((root / "r" / "session.json").read_bytes())["status"]
    if status != "preempted":
        wrong.append(f"it ended as {status}")
    with OpenDirectory(str(root / "r" / "models")) as models:
        names = models.names()
        wrong += [
            f"{n}: {p}" for n in names if kind_of(n) is Kind.CHECKPOINT for p in verify(models, n)
        ]
        if kind != "stuck":
            wrong += [f"{name} is left" for name in names if name.startswith(".")]
    wanted = FIRST if kind == "stuck" else safe
    config = load_config(overrides={"logging": {"log_dir": str(root)}})
    with SessionManager(config, run_name="r") as session:
        found = session.restore_checkpoint()
        if found is None:
            return [*wrong, "no checkpoint"]
        if found.step != wanted:
            wrong.append(f"the newest is of step {found.step}, the last safe point was {wanted}")
        if kind == "quick" and found.state is not None:
            state = found.state
            if (state["step"], state["half"]) != (wanted, False) or state["weights"][7] != wanted:
                wrong.append(f"the state of step {wanted} is {state}")
    rows = [row.step for row in read_run(root / "r").rows()]
    if rows != list(range(1, wanted + 1)):
        wrong.append(f"the run has the rows {rows}, and was saved at {wanted}")
    return wrong


def main() -> None:
    """Do the rounds."""
    root, rounds, seed = Path(sys.argv[1]), int(sys.argv[2]), int(sys.argv[3])
    chance = random.Random(seed)
    for face in FACES:  # imports what a round needs
        if face is not None:
            anyio.run(anyio.sleep, 0, backend=face[0], backend_options=face[1])
    wrong: list[str] = []
    ended = dict.fromkeys(KINDS, 0)
    for number in range(rounds):
        kind = KINDS[number % len(KINDS)]
        found = one_round(root / f"{number}", number, chance)
        wrong += [f"{number} ({kind}, {FACES[number % len(FACES)]}): {text}" for text in found]
        ended[kind] += 1
    print(json.dumps({"ended": ended, "wrong": wrong}))


if __name__ == "__main__":
    main()
