"""A program with one session that W&B tracks, what it told, and what it has left behind."""

from __future__ import annotations

import json
import os
import signal
import subprocess
import sys
import time
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from keisei.testing.wandb_server import WandbServer
from tests.support.wandb_file import find_run_files, read_run_file

FACES = ["asyncio", "uvloop", "trio", "blocking"]

PROGRAM = """
import json, sys, time
import anyio
from keisei import AsyncSessionManager, SessionManager, load_config

face, rows, overrides = sys.argv[1], int(sys.argv[2]), sys.argv[3:]
config = load_config(overrides=["logging.wandb_enabled=true", "wandb.mode=online", *overrides])
forgotten = []


def say(**facts):
    print(json.dumps(facts), flush=True)


def begun(session, active, start):
    for n in range(rows):
        session.log_metrics({"n": n}, step=n)
    say(active=active, init=time.monotonic() - start, id=session.session_id)
    command = sys.stdin.readline().strip()
    if command == "forget":
        forgotten.append(session)
    if command == "log":
        for n in range(rows, sys.maxsize):
            session.log_metrics({"n": n}, step=n)
            time.sleep(0.002)
    return command == "end"


async def main():
    session = AsyncSessionManager(config, run_name="r")
    await session.setup_directories()
    start = time.monotonic()
    active = await session.setup_wandb()
    took = time.monotonic() - start
    await session.flush()
    if begun(session, active, time.monotonic() - took):
        start = time.monotonic()
        await session.finalize_session()
        say(finish=time.monotonic() - start)
    else:
        await session.flush()


def blocking():
    session = SessionManager(config, run_name="r")
    session.setup_directories()
    start = time.monotonic()
    active = session.setup_wandb()
    took = time.monotonic() - start
    if begun(session, active, time.monotonic() - took):
        start = time.monotonic()
        session.finalize_session()
        say(finish=time.monotonic() - start)
    else:
        session.flush()


if face == "blocking":
    blocking()
else:
    options = {"use_uvloop": True} if face == "uvloop" else None
    anyio.run(main, backend="trio" if face == "trio" else "asyncio", backend_options=options)
say(ended=time.time())
sys.exit(7 if forgotten else 0)
"""
SYNC = "from keisei.cli import main; main()"


def left_over(home: Path) -> dict[int, str]:
    """Return the processes whose environment names this directory: their ids and programs.

    Host processes inherit it from the program, and the SDK's service processes from those.
    """
    mark = f"={home}".encode()
    found = {}
    for entry in Path("/proc").iterdir():
        if entry.name.isdigit():
            try:
                if mark in (entry / "environ").read_bytes():
                    found[int(entry.name)] = Path(os.readlink(entry / "exe")).name
            except OSError:
                continue  # it has ended
    return found


def wait_until_nothing_is_left(home: Path, timeout: float) -> float:
    """Wait until no such process lives; returns how long that took, in seconds.

    Raises:
        AssertionError: some are left; they are killed.
    """
    begun = time.monotonic()
    while left := left_over(home):
        if time.monotonic() - begun > timeout:
            for pid in left:
                os.kill(pid, signal.SIGKILL)
            raise AssertionError(f"left over after {timeout} s: {left}")
        time.sleep(0.02)
    return time.monotonic() - begun


@dataclass
class Told:
    """What a program told of its session, and how it left.

    Attributes:
        facts: what it printed.
        exit_s: how long its process lived after its last statement, in seconds.
        code: its exit status.
        errors: what it wrote to stderr.
        run: the run's directory.
    """

    facts: dict[str, Any]
    exit_s: float
    code: int
    errors: str
    run: Path

    @property
    def tracked(self) -> dict[str, Any]:
        """What the session file says of W&B."""
        record = json.loads((self.run / "session.json").read_text(encoding="utf-8"))
        found: dict[str, Any] = record["trackers"].get("wandb", {})
        return found

    def rows(self) -> list[int]:
        """Return the rows in the local run files, once nobody writes to them any more."""
        files = [path for path in find_run_files(self.run) if not path.parent.is_symlink()]
        return [row["n"] for path in files for row in read_run_file(path).history if "n" in row]

    def synced(self) -> bool:
        """Whether the SDK's own mark says that the server has the run file in full."""
        return bool(list(Path(self.tracked["directory"]).glob("run-*.wandb.synced")))


class Program:
    """A program with one session, in a process of its own.

    Args:
        server: its W&B.
        home: the test's directory.
        face: the event loop, or `blocking`.
        overrides: of its config.
        rows: how many rows it logs at once.
    """

    def __init__(
        self, server: WandbServer, home: Path, face: str, *overrides: str, rows: int = 10
    ) -> None:
        self.home = home
        self.environ = {
            **os.environ,
            **server.environ(),
            "HOME": str(home),
            "KEISEI_LOG_DIR": str(home / "runs"),
            "KEISEI_TEST": str(home),
            # What a slow start, or a busy machine, holds up would be events among its rows.
            "KEISEI__MONITORING__LAG": "false",
            "KEISEI__MONITORING__PHASES": "false",
        }
        self.environ.pop("WANDB_SERVICE", None)
        self.run = home / "runs" / "r"
        self.process = subprocess.Popen(
            [sys.executable, "-c", PROGRAM, face, str(rows), *overrides],
            env=self.environ,
            cwd=home,
            stdin=subprocess.PIPE,
            stdout=subprocess.PIPE,
            stderr=subprocess.PIPE,
            text=True,
        )
        self.facts: dict[str, Any] = {}

    def started(self) -> dict[str, Any]:
        """Wait until W&B's step is over, and return what it told."""
        assert self.process.stdout is not None
        line = self.process.stdout.readline()
        assert line, self.process.communicate()[1]
        self.facts |= json.loads(line)
        return self.facts

    def tell(self, command: str) -> None:
        """Send it a command: `end` the session, `forget` it, `log` for ever."""
        assert self.process.stdin is not None
        self.process.stdin.write(f"{command}\n")
        self.process.stdin.flush()

    def end(self, command: str = "end") -> Told:
        """Send it its last command, and wait for its process."""
        self.tell(command)
        self.process.wait(timeout=120)
        left = time.time()
        out, errors = self.process.communicate()
        for line in out.splitlines():
            self.facts |= json.loads(line)
        assert "ended" in self.facts, errors
        exit_s = left - self.facts["ended"]
        return Told(self.facts, exit_s, self.process.returncode, errors, self.run)

    def kill(self) -> None:
        """Kill it."""
        with self.process:
            self.process.kill()

    def sync(self, *options: str) -> tuple[int, list[dict[str, Any]], float]:
        """Run `keisei sync --json`; returns its status, what it says, and its time in seconds."""
        begun = time.monotonic()
        done = subprocess.run(
            [sys.executable, "-c", SYNC, "sync", "--json", *options],
            env=self.environ | {"WANDB__FILE_STREAM_TRANSMIT_INTERVAL": "0.1"},
            cwd=self.home,
            capture_output=True,
            text=True,
            timeout=120,
        )
        took = time.monotonic() - begun
        assert done.stdout, done.stderr
        return done.returncode, json.loads(done.stdout), took


def until(holds: Callable[[], object], timeout: float = 60.0) -> None:
    """Wait until something is true.

    Raises:
        AssertionError: it did not become true in time.
    """
    give_up = time.monotonic() + timeout
    while not holds():
        assert time.monotonic() < give_up, "it did not become true in time"
        time.sleep(0.01)
