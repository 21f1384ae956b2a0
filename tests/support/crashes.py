"""Sessions that die: a process that forks a child for each death, much faster than a new python.

Started as `python -m tests.support.crashes` (or as another module that calls `serve`), it reads a
request a line (JSON), and answers each with a line: what the child had been told was done before
it died, and how it ended. The child writes that to a pipe as soon as a method has returned, so
that nothing it was told can get lost.
"""

from __future__ import annotations

import gc
import hashlib
import json
import os
import select
import signal
import subprocess
import sys
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from functools import partial
from pathlib import Path
from typing import IO, Any, Protocol, TypeVar

import anyio

from keisei import AppConfig, AsyncSessionManager, load_config
from keisei._io import files
from tests.support.file_faults import FileFaults

Told = list[Any]
LINES = 20


class Dying(Protocol):
    """What a request to die has at least."""

    @property
    def after(self) -> int | None:
        """After how many things that it was told it is killed; ``None`` where it dies itself."""

    @property
    def later(self) -> float:
        """How many seconds after that."""


D = TypeVar("D", bound=Dying)


@dataclass(frozen=True)
class Death:
    """A child to start, and when it dies.

    Attributes:
        root: where its run lives.
        timesteps: what tells its config from others.
        before: it dies just before this call that touches a file (from 1).
        after: or it is killed once it has told so many things, while it goes from one life to the
            next.
        later: so many seconds after that.
        backend: the loop that it runs on.
    """

    root: str
    timesteps: int
    before: int | None = None
    after: int | None = None
    later: float = 0.0
    backend: str = "asyncio"


def config_for(root: str, timesteps: int) -> AppConfig:
    """Return the config of a run there."""
    return load_config(
        overrides={"logging.log_dir": root, "training.total_timesteps": timesteps, "env.seed": 3}
    )


def tell(pipe: int, *what: object) -> None:
    """Note on the pipe that something is done."""
    os.write(pipe, json.dumps(what).encode() + b"\n")


async def life(config: AppConfig, pipe: int, lines: int = 0) -> None:
    """Live one session, and tell what is done as soon as its method has returned."""
    session = AsyncSessionManager(config, run_name="r")
    await session.setup_directories()
    attempt = session.get_session_summary()["attempt"]
    tell(pipe, "directories", attempt, session.session_id)
    run = Path(session.run_artifact_dir)
    await session.save_effective_config()
    text = (run / "effective_config.json").read_bytes()
    tell(pipe, "config", attempt, hashlib.sha256(text).hexdigest())
    await session.log_session_start()
    tell(pipe, "start", attempt, session.session_id)
    with files.OpenDirectory(str(run)) as directory:
        for number in range(lines):
            line = f"attempt {attempt} line {number}"
            files.append(directory, "training.log", f"{line}\n".encode())
            tell(pipe, "line", attempt, line)
    tell(pipe, "end", attempt, await session.finalize_session("completed"))


def child(death: Death, pipe: int) -> None:
    """Be the one that dies."""
    if death.after is None:
        faults = FileFaults(die_before=death.before)
        faults.install()
        anyio.run(life, config_for(death.root, death.timesteps), pipe, backend=death.backend)
        tell(pipe, "calls", len(faults.calls))
        return

    async def lives() -> None:
        timesteps = death.timesteps
        while True:
            timesteps += 1
            await life(config_for(death.root, timesteps), pipe, LINES)

    anyio.run(lives, backend=death.backend)


def listen(pipe: int, pid: int, after: int | None, later: float) -> list[Told]:
    """Hear what a child is told until it is dead; kill it when its time has come."""
    heard = b""
    kill_at: float | None = None
    while True:
        if after is not None and kill_at is None and heard.count(b"\n") >= after:
            kill_at = time.monotonic() + later
        left = None if kill_at is None else max(0.0, kill_at - time.monotonic())
        if select.select([pipe], [], [], left)[0]:
            part = os.read(pipe, 65536)
            if not part:
                break
            heard += part
        if kill_at is not None and time.monotonic() >= kill_at:
            os.kill(pid, signal.SIGKILL)
            after = kill_at = None
    return [json.loads(line) for line in heard.splitlines()]


def serve(kind: Callable[..., D], child: Callable[[D, int], None]) -> None:
    """Fork a child for each request, and answer with what became of it.

    Args:
        kind: makes a death of what a request says.
        child: what a child does: it gets the death, and the pipe to tell what is done.
    """
    gc.freeze()
    for request in sys.stdin:
        death = kind(**json.loads(request))
        out, into = os.pipe()
        pid = os.fork()
        if pid == 0:
            os.close(out)
            try:
                child(death, into)
            finally:
                os._exit(0)
        os.close(into)
        told = listen(out, pid, death.after, death.later)
        os.close(out)
        _, status = os.waitpid(pid, 0)
        answer = {"told": told, "killed": os.WIFSIGNALED(status)}
        print(json.dumps(answer), flush=True)


class Crashes:
    """The asking side."""

    def __init__(self, process: subprocess.Popen[str]) -> None:
        assert process.stdin is not None
        assert process.stdout is not None
        self._into: IO[str] = process.stdin
        self._from: IO[str] = process.stdout

    def die(self, death: Dying) -> tuple[list[Told], bool]:
        """Start a child that dies; return what it was told, and whether it was killed."""
        self._into.write(json.dumps(vars(death)) + "\n")
        self._into.flush()
        answer = json.loads(self._from.readline())
        return answer["told"], answer["killed"]


@contextmanager
def crashes(module: str = __name__) -> Iterator[Crashes]:
    """Start the process that forks.

    Args:
        module: the module to start, which calls `serve`.
    """
    here = str(Path(__file__).parents[2])
    paths = [here, *filter(None, [os.environ.get("PYTHONPATH")])]
    start = partial(subprocess.Popen, stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True)
    with start(
        [sys.executable, "-m", module],
        env={**os.environ, "PYTHONPATH": os.pathsep.join(paths)},
    ) as process:
        yield Crashes(process)


if __name__ == "__main__":
    for name in ("asyncio", "trio"):
        anyio.run(anyio.sleep, 0, backend=name)  # imports what each child would import anew
    serve(Death, child)
