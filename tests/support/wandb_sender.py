"""A process that tracks a run with W&B, one command a line, until it is killed or told to end.

python -m tests.support.wandb_sender '{"directory": "/tmp/r", "attempt": 1, "mode": "offline"}'
"""

from __future__ import annotations

import json
import os
import signal
import subprocess
import sys
from collections.abc import Mapping
from pathlib import Path
from typing import Any

from tests.support.wandb_client import client_environ
from tests.support.wandb_conformance import sync
from tests.support.wandb_file import wait_for_exit_record

SESSION_ID = "01JD0000000000000000000000"


class Sender:
    """Such a process, seen from the test.

    Args:
        home: where it works; the run's directory is `home/run`.
        attempt: the attempt that it tracks.
        mode: W&B's mode.
        environ: the variables that bring it to a server.
    """

    def __init__(
        self, home: Path, attempt: int, mode: str, environ: Mapping[str, str] | None = None
    ) -> None:
        directory = home / "run"
        directory.mkdir(exist_ok=True)
        about = {"directory": str(directory), "attempt": attempt, "mode": mode}
        self.process = subprocess.Popen(
            [sys.executable, "-m", "tests.support.wandb_sender", json.dumps(about)],
            env=client_environ(home, environ or {})
            | {"PYTHONPATH": os.pathsep.join(filter(None, sys.path))},
            cwd=home,
            stdin=subprocess.PIPE,
            stdout=subprocess.PIPE,
            text=True,
        )

    def held(self) -> tuple[int, int]:
        """Wait for the start; gives what it holds."""
        return tuple(self.answer() or (1, -1))

    def tell(self, *command: object) -> None:
        """Send it a command."""
        assert self.process.stdin is not None
        self.process.stdin.write(json.dumps(command) + "\n")
        self.process.stdin.flush()

    def answer(self) -> Any:
        """Read what it says."""
        assert self.process.stdout is not None
        return json.loads(self.process.stdout.readline())

    def ask(self, *command: object) -> Any:
        """Send it a command, and wait for the answer."""
        self.tell(*command)
        return self.answer()

    def kill(self) -> None:
        """Kill it, and wait until its service has gone, which sees it within 100 ms."""
        with self.process:
            self.process.kill()

    def end(self) -> None:
        """End it."""
        with self.process:
            assert self.process.stdin is not None
            self.process.stdin.close()
            assert self.process.wait(30) == 0


def records(attempt: int, first: int, last: int) -> list[Any]:
    """Make rows, and every tenth an event; each row's value tells which one it is."""
    from keisei.journal.reader import Event, Row

    return [
        Event(n, 1.7e9 + n, attempt, "checkpoint", {"n": n})
        if n % 10 == 9
        else Row(n, 1.7e9 + n, 1000 * attempt + n, attempt, {"n": n, "loss": 1 / (n + 1)})
        for n in range(first, last)
    ]


def main(about: Mapping[str, Any]) -> None:
    """Start the run, tell its position, and do what is said on the standard input."""
    from keisei.trackers.base import RunInfo
    from keisei.trackers.wandb.tracker import WandbTracker
    from keisei.trackers.wandb.upload import service

    tracker = WandbTracker(mode=about["mode"], offline_fallback=False, finish_timeout=2.0)
    info = RunInfo(SESSION_ID, "r", about["attempt"], about["directory"], "{}")
    run = tracker.start(info)
    print(json.dumps(run.position()), flush=True)
    for line in sys.stdin:
        said: Any = None
        match json.loads(line):
            case ["send", attempt, first, last]:
                run.send(records(attempt, first, last))
            case ["send for ever", attempt, first]:
                for start in range(first, 10**9, 50):
                    run.send(records(attempt, start, start + 50))
                    kept = run.kept()  # where the run's file lags: the SDK before 0.31
                    print(json.dumps(start + 49 if kept is None else kept.seq), flush=True)
            case ["fail to send", attempt, first, last]:
                try:
                    run.send(records(attempt, first, last))
                except Exception as exc:
                    said = type(exc).__name__
            case ["position"]:
                said = run.position()
            case ["log", values]:
                run.native.log(values)
            case ["kill the service"]:
                os.kill(service()[0], signal.SIGKILL)
            case ["finish"]:
                run.finish("completed")
                if run.directory is not None:
                    wait_for_exit_record(Path(run.directory, f"run-{run.run_id}.wandb"), 20.0)
            case ["sync"]:
                sync(about["directory"], SESSION_ID)
        print(json.dumps(said), flush=True)


if __name__ == "__main__":
    main(json.loads(sys.argv[1]))
