"""A process that forks lives of sessions, hits each with a signal at a random instant, and looks.

Run as ``python -m tests.support.signal_rounds ROOT ROUNDS SEED``; prints one JSON document.
"""

from __future__ import annotations

import asyncio
import json
import os
import random
import signal
import sys
import time
import traceback
from pathlib import Path
from typing import Any

import anyio

from keisei import AppConfig, AsyncSessionManager, SessionManager, load_config
from keisei._io import signals
from keisei.testing import MemoryTracker

SIGNALS = {"SIGTERM": "cancelled", "SIGINT": "cancelled", "SIGUSR2": "preempted"}
FACES: list[tuple[str, dict[str, Any]] | None] = [
    ("asyncio", {}),
    ("asyncio", {"use_uvloop": True}),
    ("trio", {}),
    None,
]
BETWEEN = 99


async def lives(config: AppConfig, say: Any) -> None:
    """Live one session after the other, for ever."""
    say("go")
    for number in range(10**6):
        async with AsyncSessionManager(config, run_name=f"r{number}") as session:
            say(f"in {number}")
            await session.setup_remote_logging(MemoryTracker())
            for _ in range(5):
                await anyio.sleep(0.0005)
            say(f"out {number}")


def blocking_lives(config: AppConfig, say: Any) -> None:
    """Live one session after the other, for ever, without a loop of one's own."""
    say("go")
    for number in range(10**6):
        with SessionManager(config, run_name=f"r{number}"):
            say(f"in {number}")
            for _ in range(5):
                time.sleep(0.0005)
            say(f"out {number}")


def child(root: Path, face: tuple[str, dict[str, Any]] | None, pipe: int) -> int:
    """Live until a signal comes; give the exit code."""

    def between(number: int, _: object) -> None:
        # Else keisei's own came first, and has called this one.
        if not signals._watches or signal.getsignal(number) is not signals._handle:
            os._exit(BETWEEN)

    for name in SIGNALS:
        signal.signal(getattr(signal, name), between)
    config = load_config(
        overrides={"logging": {"log_dir": str(root)}, "signals": {"handle": True, "grace": 20}}
    )

    def say(text: str) -> None:
        os.write(pipe, f"{text}\n".encode())

    try:
        if face is None:
            blocking_lives(config, say)
        else:
            anyio.run(lives, config, say, backend=face[0], backend_options=face[1])
    except SystemExit as exc:
        return int(exc.code or 0)
    except (KeyboardInterrupt, asyncio.CancelledError):
        return 130
    return 0


def one_round(root: Path, name: str, number: int, chance: random.Random) -> list[str] | None:
    """Fork, hit and look; give what is wrong, or ``None`` where the signal came between two."""
    face = FACES[number % len(FACES)]
    reading, writing = os.pipe()
    pid = os.fork()
    if pid == 0:
        os.close(reading)
        code = 97
        try:
            code = child(root, face, writing)
        except BaseException:
            os.write(writing, traceback.format_exc().encode())
        finally:
            os._exit(code)
    os.close(writing)
    with open(reading, "rb") as said:
        said.readline()
        time.sleep(chance.uniform(0, 0.04))
        os.kill(pid, getattr(signal, name))
        words = said.read().decode().split("\n")
    code = os.waitstatus_to_exitcode(os.waitpid(pid, 0)[1])
    if code == BETWEEN:
        return None
    wanted = 128 + getattr(signal, name)
    wrong = [] if code == wanted else [f"exit code {code}, not {wanted}: {words}"]
    runs = sorted(root.glob("r*"), key=lambda run: int(run.name[1:]))
    for run in runs:
        record = run / "session.json"
        if not record.exists():
            if run is not runs[-1] or any(run.iterdir()):
                wrong.append(f"{run.name} has no record")
            continue
        status = json.loads(record.read_bytes())["status"]
        left = f"out {run.name[1:]}" in words
        right = {"completed"} if run is not runs[-1] else {SIGNALS[name]}
        if left:
            right.add("completed")
        if status not in right:
            wrong.append(f"{run.name} ended as {status}, not {right}")
        log = (run / "training.log").read_text(encoding="utf-8")
        if log.count(f", {status} after ") != 1 or log.count("session ended") != 1:
            wrong.append(f"{run.name} has not one end line")
    return wrong


def main() -> None:
    """Do the rounds of every signal."""
    root, rounds, seed = Path(sys.argv[1]), int(sys.argv[2]), int(sys.argv[3])
    chance = random.Random(seed)
    done = dict.fromkeys(SIGNALS, 0)
    for face in FACES:  # imports what a round needs
        if face is not None:
            anyio.run(anyio.sleep, 0, backend=face[0], backend_options=face[1])
    wrong: list[str] = []
    between = 0
    for name in SIGNALS:
        while done[name] < rounds and between < rounds * 3:
            place = root / f"{name}-{done[name]}-{between}"
            found = one_round(place, name, done[name], chance)
            if found is None:
                between += 1
                continue
            wrong += [f"{name} {place.name}: {text}" for text in found]
            done[name] += 1
    print(json.dumps({"done": done, "between": between, "wrong": wrong}))


if __name__ == "__main__":
    main()
