"""A program that logs until it is killed, and what its tracker has of it afterwards."""

from __future__ import annotations

import json
import os
import signal
import sqlite3
import subprocess
import sys
import time
from collections.abc import Callable, Mapping
from contextlib import closing, suppress
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any
from uuid import uuid4

from keisei.journal.reader import read_run
from keisei.testing.wandb_server import WandbServer

# It logs a thousand rows a second, and an event now and then, until a line comes in.
PROGRAM = """
import itertools, json, sys, threading, time
import keisei

config = keisei.load_config(overrides=json.loads(sys.argv[1]))
ended = threading.Event()
threading.Thread(target=lambda: (sys.stdin.readline(), ended.set()), daemon=True).start()
with keisei.SessionManager(config) as session:
    print(json.dumps([session.run_artifact_dir, session.session_id]), flush=True)
    for step in itertools.count():
        session.log_metrics({"loss": step * 0.5}, step=step)
        if step % 100 == 50:
            session.log_event("checkpoint", {"step": step})
        if ended.wait(0.001):
            break
"""
_MARK = "PROGRAM_UNDER_TEST"

Rows = list[tuple[int, float]]


@dataclass
class Surroundings:
    """What the programs of a test share.

    Attributes:
        root: where their runs and stores are.
        server: their W&B.
    """

    root: Path
    server: WandbServer | None = None

    def environ(self) -> dict[str, str]:
        """Return the variables that bring a program to them."""
        environ = {**os.environ, "TRACKIO_DIR": str(self.root / "trackio")}
        return environ if self.server is None else {**environ, **self.server.environ()}


@dataclass
class Program:
    """A program that logs with one tracker.

    Args:
        tracker: the tracker's name.
        around: what it shares with others.
        tracking: fields of its section `tracking`.
    """

    tracker: str
    around: Surroundings
    tracking: Mapping[str, object] = field(default_factory=dict)
    directory: str = ""
    session_id: str = ""

    def __post_init__(self) -> None:
        options = {"mlflow": {"tracking_uri": f"sqlite:///{self.around.root}/mlflow.db"}}
        overrides = {
            "logging": {"log_dir": str(self.around.root / "runs")},
            "monitoring": {"lag": False, "phases": False},
            "tracking": {"trackers": {self.tracker: options.get(self.tracker, {})}}
            | dict(self.tracking),
        }
        self._mark = f"{_MARK}={uuid4()}"
        name, _, value = self._mark.partition("=")
        self.process = subprocess.Popen(
            [sys.executable, "-W", "ignore", "-c", PROGRAM, json.dumps(overrides)],
            stdin=subprocess.PIPE,
            stdout=subprocess.PIPE,
            text=True,
            env={**self.around.environ(), name: value},
        )

    def wait_until_logging(self) -> None:
        """Wait until the program is in its session."""
        assert self.process.stdout is not None
        line = self.process.stdout.readline()
        assert line, "the program has ended before it has begun"
        self.directory, self.session_id = json.loads(line)

    def end(self) -> None:
        """Have the program end its session, and wait for it."""
        self.process.communicate("\n", timeout=60)
        assert self.process.returncode == 0

    def kill(self) -> None:
        """Kill the program, and nothing else."""
        self.process.kill()
        self.process.communicate()

    def others(self) -> list[int]:
        """Return the ids of the processes that the program has left or has beside it."""
        found = []
        for entry in os.listdir("/proc"):
            if entry.isdigit() and int(entry) != self.process.pid:
                with suppress(OSError):
                    if self._mark.encode() in Path("/proc", entry, "environ").read_bytes():
                        found.append(int(entry))
        return found

    def kill_host(self) -> None:
        """Kill the tracker's host process, if there is one at this instant."""
        for pid in self.others():
            with suppress(OSError, ValueError):
                stat = Path("/proc", str(pid), "stat").read_text()
                if int(stat.rpartition(")")[2].split()[1]) == self.process.pid:
                    os.kill(pid, signal.SIGKILL)

    def wait_for_host(self, timeout: float) -> None:
        """Wait until the program has a host process."""
        began = time.monotonic()
        while not self.others():
            assert time.monotonic() - began < timeout, f"{self.tracker}: no host process has come"
            time.sleep(0.005)

    def wait_until_gone(self, timeout: float) -> float:
        """Wait until the program has left no process; return how long that took, in seconds."""
        began = time.monotonic()
        while self.others():
            assert time.monotonic() - began < timeout, f"{self.tracker}: a process is left over"
            time.sleep(0.02)
        return time.monotonic() - began

    def sync(self) -> None:
        """Run `keisei sync` on the program's run."""
        main = "from keisei.cli import main; main()"
        command = [sys.executable, "-c", main, "sync", self.directory]
        done = subprocess.run(command, env=self.around.environ(), capture_output=True, text=True)
        assert done.returncode == 0, done.stdout + done.stderr

    def logged(self) -> Rows:
        """Return steps and values of the rows that the journal has."""
        rows = read_run(self.directory).rows()
        return [(row.step or 0, float(row.values["loss"])) for row in rows]

    def tracked(self) -> tuple[Rows, str]:
        """Return steps and values of the rows that the tracker has, and the end that it shows."""
        return _READERS[self.tracker](self)


def _tensorboard(program: Program) -> tuple[Rows, str]:
    from tensorboard.backend.event_processing.event_file_loader import RawEventFileLoader
    from tensorboard.compat.proto.event_pb2 import Event

    rows: Rows = []
    end = ""
    for path in sorted(Path(program.directory, "tensorboard").iterdir()):
        for data in RawEventFileLoader(str(path)).Load():
            event = Event.FromString(data)
            for value in event.summary.value:
                if value.tag == "loss":
                    rows.append((event.step, value.simple_value))
                elif value.tag == "keisei/status":
                    end = value.tensor.string_val[0].decode()
    return rows, end


def _mlflow(program: Program) -> tuple[Rows, str]:
    found = "JOIN tags t USING (run_uuid) WHERE t.key = 'keisei.session_id' AND t.value = ?"
    with closing(sqlite3.connect(program.around.root / "mlflow.db", timeout=60)) as database:
        rows = database.execute(
            f"SELECT step, metrics.value FROM metrics {found} AND metrics.key = 'loss' "
            "ORDER BY timestamp, step",
            (program.session_id,),
        ).fetchall()
        ((shown, run),) = database.execute(
            f"SELECT status, run_uuid FROM runs {found}", (program.session_id,)
        )
        ((end,),) = database.execute(
            "SELECT value FROM tags WHERE key = 'keisei.status' AND run_uuid = ?", (run,)
        )
    assert {"failed": "FAILED", "completed": "FINISHED"}[end] == shown
    return rows, end


def _trackio(program: Program) -> tuple[Rows, str]:
    with closing(sqlite3.connect(program.around.root / "trackio" / "keisei.db")) as database:
        found = database.execute(
            "SELECT step, metrics FROM metrics WHERE run_id = ? ORDER BY id", (program.session_id,)
        )
        rows = [(step, json.loads(values)["loss"]) for step, values in found]
        ends = database.execute(
            "SELECT title FROM alerts WHERE run_id = ? AND title LIKE 'run %'",
            (program.session_id,),
        ).fetchall()
    return rows, ", ".join(title.removeprefix("run ") for (title,) in ends)


def _wandb(program: Program) -> tuple[Rows, str]:
    assert program.around.server is not None
    run = program.around.server.runs[program.session_id]
    history: list[dict[str, Any]] = [row for row in run.history if "loss" in row]
    state = {"finished": "completed"}.get(run.state, run.state)
    # What is uploaded later stands behind what is there.
    return sorted((row["global_step"], row["loss"]) for row in history), state


_READERS: dict[str, Callable[[Program], tuple[Rows, str]]] = {
    "tensorboard": _tensorboard,
    "mlflow": _mlflow,
    "trackio": _trackio,
    "wandb": _wandb,
}
