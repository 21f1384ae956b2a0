"""What starts a user's program as several processes, each where it is installed."""

from __future__ import annotations

import importlib.util
import os
import shutil
import signal
import socket
import subprocess
import sys
import time
from collections.abc import Callable, Iterator, Mapping
from contextlib import ExitStack, contextmanager, suppress
from pathlib import Path

from keisei.run.find import FoundRun, find_runs

# What a launcher that runs the tests themselves would tell the programs that they start.
_LEAKING = ("SLURM_", "SBATCH_", "OMPI_", "PMI", "PMIX_", "TORCHELASTIC_", "RAY_", "KEISEI_")
_LEAKING_NAMES = {"RANK", "WORLD_SIZE", "LOCAL_RANK", "MASTER_ADDR", "MASTER_PORT"}
LOOK_AGAIN_S = 0.05
DEADLINE_S = 90.0


def no_module(name: str) -> str | None:
    """Return why a package is not here, or None where it is."""
    return None if importlib.util.find_spec(name) else f"{name} is not installed here"


def no_torch() -> str | None:
    """Return why there is no torchrun here, or None where there is one."""
    return no_module("torch")


def no_ray() -> str | None:
    """Return why there is no Ray here, or None where there is one."""
    return no_module("ray")


def no_program(name: str, package: str) -> str | None:
    """Return why a program is not here, or None where it is."""
    return None if shutil.which(name) else f"{name} is not installed here ({package} of Debian)"


def free_ports(count: int) -> list[int]:
    """Return ports of loopback that nobody listens on."""
    with ExitStack() as stack:
        sockets = [stack.enter_context(socket.socket()) for _ in range(count)]
        for one in sockets:
            one.bind(("127.0.0.1", 0))
        return [one.getsockname()[1] for one in sockets]


def torchrun(*options: str) -> list[str]:
    """Return the command that starts a program under torchrun, on this machine."""
    return [sys.executable, "-m", "torch.distributed.run", "--monitor-interval=0.1", *options]


def environ_of(root: Path, more: Mapping[str, str] | None = None) -> dict[str, str]:
    """Return the environment of a program whose runs are to be under the root."""
    kept = {
        name: value
        for name, value in os.environ.items()
        if not name.startswith(_LEAKING) and name not in _LEAKING_NAMES
    }
    return {**kept, "KEISEI_LOG_DIR": str(root), **(more or {})}


class Launched:
    """A command that runs, with all that it has started, and what it prints."""

    def __init__(self, command: list[str], environ: Mapping[str, str], directory: Path) -> None:
        self.printed = directory / f"printed.{time.monotonic_ns()}"
        with self.printed.open("wb") as out:
            self.process = subprocess.Popen(
                command,
                env=environ,
                cwd=directory,
                stdin=subprocess.DEVNULL,
                stdout=out,
                stderr=subprocess.STDOUT,
                start_new_session=True,
            )

    def output(self) -> str:
        """Return what it has printed so far."""
        return self.printed.read_text(errors="replace")

    def wait(self, timeout: float = DEADLINE_S) -> int:
        """Return its exit status, or fail with what it printed."""
        try:
            return self.process.wait(timeout)
        except subprocess.TimeoutExpired:
            raise AssertionError(f"it has not ended after {timeout} s: {self.output()}") from None

    def succeed(self, timeout: float = DEADLINE_S) -> None:
        """Wait for its end, which has to be a success."""
        status = self.wait(timeout)
        assert status == 0, f"exit status {status}: {self.output()}"


@contextmanager
def launched(
    command: list[str], root: Path, directory: Path, more: Mapping[str, str] | None = None
) -> Iterator[Launched]:
    """Run a command, and kill what is left of it at the end.

    Parameters:
        command: The launcher, its options and the program.
        root: Where the program's runs are to be.
        directory: Where it runs.
        more: Variables of its environment.
    """
    running = Launched(command, environ_of(root, more), directory)
    try:
        yield running
    finally:
        with suppress(ProcessLookupError):
            os.killpg(running.process.pid, signal.SIGKILL)
        running.process.wait()


def until(happened: Callable[[], bool], what: Callable[[], str], timeout: float = 60.0) -> None:
    """Wait until something has happened, or fail with what there is to say."""
    deadline = time.monotonic() + timeout
    while not happened():
        if time.monotonic() > deadline:
            raise AssertionError(f"not within {timeout} s: {what()}")
        time.sleep(LOOK_AGAIN_S)


def the_run(root: Path) -> FoundRun:
    """Return the one run under a root: that there is another is a failure."""
    found = find_runs(str(root))
    assert len(found) == 1, [run.name for run in found]
    return found[0]
