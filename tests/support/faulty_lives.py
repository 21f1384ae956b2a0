"""Lives of a session on a disk that fails, and what may not be wrong after them."""

from __future__ import annotations

import json
import logging
import os
import shutil
from collections.abc import Iterator
from dataclasses import dataclass, field
from functools import partial
from pathlib import Path
from typing import Any

import anyio
import pytest

from keisei import AppConfig, AsyncSessionManager, ConfigSaveError, DirectorySetupError, load_config
from keisei._io import background_writer
from keisei.errors import KeiseiError
from keisei.run.session_file import SessionRecord
from keisei.session import ending
from tests.support.file_faults import ANY, Call, Fault, FileFaults

OLD = {"models/model.bin": b"weights", "evaluation.log": b"an evaluation\n"}


class Logged(logging.Handler):
    """Keeps keisei's warnings and errors, but for the one that a completed run goes on."""

    def __init__(self) -> None:
        super().__init__(logging.WARNING)
        self.lines: list[str] = []

    def emit(self, record: logging.LogRecord) -> None:
        """Keep one."""
        if "had completed, and goes on" not in (line := record.getMessage()):
            self.lines.append(line)


@dataclass
class Outcome:
    """How the steps of a life went."""

    raised: dict[str, Exception] = field(default_factory=dict)
    logged: list[str] = field(default_factory=list)
    session_id: str = ""
    attempt: int = 0


async def by_steps(config: AppConfig, outcome: Outcome) -> None:
    """Take the steps one by one, and end the session whatever they came to."""
    session = AsyncSessionManager(config, run_name="r")
    for step in ("setup_directories", "save_effective_config", "log_session_start"):
        try:
            await getattr(session, step)()
        except Exception as exc:
            outcome.raised[step] = exc
            break
    outcome.session_id = session.session_id
    outcome.attempt = session.get_session_summary()["attempt"]
    await session.finalize_session("failed" if outcome.raised else "completed")


async def as_context(config: AppConfig, outcome: Outcome) -> None:
    """Take the steps as `async with` does."""
    session = AsyncSessionManager(config, run_name="r")
    try:
        async with session:
            pass
    except ConfigSaveError as exc:
        outcome.raised["save_effective_config"] = exc
    except Exception as exc:
        outcome.raised["setup_directories"] = exc
    outcome.session_id = session.session_id
    outcome.attempt = session.get_session_summary()["attempt"]


WAYS = [
    (by_steps, "asyncio"),
    (as_context, "asyncio"),
    (by_steps, "trio"),
    (as_context, "asyncio"),
    (by_steps, "asyncio"),
]


def live(config: AppConfig, faults: FileFaults | None, way: Any = WAYS[0]) -> Outcome:
    """Live one session with those faults, in a loop of its own."""
    life, backend = way
    outcome, handler = Outcome(), Logged()
    logger = logging.getLogger("keisei")
    logger.addHandler(handler)
    logger.propagate = False  # thousands of lines would be kept for a report
    try:
        with pytest.MonkeyPatch.context() as patch:
            if faults is not None:
                faults.install(partial(patch.setattr, raising=False))
                for module in (ending, background_writer):  # a disk that fails for ever
                    patch.setattr(module, "may_pass", lambda exc: False)
            anyio.run(life, config, outcome, backend=backend)
    finally:
        logger.propagate = True
        logger.removeHandler(handler)
    outcome.logged = handler.lines
    return outcome


def descriptors() -> int:
    """Count this process's open descriptors."""
    return len(os.listdir("/dev/fd"))


def make_old_run(run: Path, config: AppConfig) -> None:
    """Make a run that has ended, with things in it that are not keisei's."""
    assert not live(config, None).raised
    for name, data in OLD.items():
        (run / name).write_bytes(data)


def torn_json(run: Path) -> Iterator[str]:
    """Name the JSON files that are not whole."""
    for path in run.glob("*.json"):
        try:
            data = path.read_bytes()
            json.loads(data)
            assert data.endswith(b"\n")
            assert path.name != "session.json" or SessionRecord.parsed(data) is not None
        except (ValueError, AssertionError):
            yield f"{path.name} is not whole"


def fsync_again(calls: list[Call]) -> bool:
    """Check whether an fsync that failed was tried again on its descriptor."""
    failed: set[int | None] = set()
    for call in calls:
        if call.kind == "fsync" and call.fd in failed:
            return True
        if call.kind == "fsync" and call.errno:
            failed.add(call.fd)
        elif call.kind == "close":
            failed.discard(call.fd)
    return False


def untyped(outcome: Outcome, root: Path, error: int) -> Iterator[str]:
    """Name what is wrong with the errors that a life has raised."""
    types = {
        "setup_directories": DirectorySetupError,
        "save_effective_config": ConfigSaveError,
    }
    for step, exc in outcome.raised.items():
        if not isinstance(exc, types.get(step, ())):
            yield f"{step} raised {exc!r}"
            continue
        cause = exc.__cause__
        if not (isinstance(exc, KeiseiError) and isinstance(exc, (RuntimeError, OSError))):
            yield f"{step}: {type(exc).__name__} is not of both kinds"
        if not isinstance(cause, OSError) or cause.errno != error:
            yield f"{step}: the cause is {cause!r}"
        if str(root) not in str(exc) or os.strerror(error) not in str(exc):
            yield f"{step}: {exc} names no path or no cause"


def unkept(run: Path, config: AppConfig, outcome: Outcome) -> Iterator[str]:
    """Name what a life said that it had done, and is not there."""
    if "setup_directories" in outcome.raised:
        return
    log = (run / "training.log").read_text() if (run / "training.log").exists() else ""
    said = " ".join(outcome.logged)
    if "save_effective_config" not in outcome.raised:
        text = (run / "effective_config.json").read_text()
        if AppConfig.model_validate_json(text) != config:
            yield "the saved config is another one"
        start = f"id {outcome.session_id}, attempt {outcome.attempt}\n"
        if start not in log and "start of run r cannot be logged" not in said:
            yield "the start line is missing, and nothing says so"
    if "end of run r cannot be recorded" not in said:
        record = SessionRecord.parsed((run / "session.json").read_bytes())
        end = "failed" if outcome.raised else "completed"
        if record is None or record.status != end:
            yield "session.json does not know the end, and nothing says so"
        logged = "end of run r is recorded, but not in its training log" not in said
        if logged and log.count("session ended") != outcome.attempt:
            yield "the end line is missing, and nothing says so"


def damaged(run: Path, before: dict[str, bytes], calls: list[Call]) -> Iterator[str]:
    """Name the files of an earlier attempt that are not as they were."""
    if not before:
        return
    for name in OLD:
        if (run / name).read_bytes() != before[name]:
            yield f"{name} has changed"
    if not (run / "training.log").read_bytes().startswith(before["training.log"]):
        yield "training.log has lost lines"
    texts = [path.read_bytes() for path in run.glob("effective_config*.json")]
    if before["effective_config.json"] not in texts:
        yield "the earlier config is lost"
    renamed = {os.path.basename(call.target) for call in calls if not call.errno}
    for name in ("session.json", "effective_config.json"):
        if name not in renamed and (run / name).read_bytes() != before[name]:
            yield f"{name} has changed without a rename"
    was, now = (
        SessionRecord.parsed(data)
        for data in (before["session.json"], (run / "session.json").read_bytes())
    )
    if was is None or now is None or was.session_id != now.session_id:
        yield "the run has lost its id"


def contents(run: Path) -> dict[str, bytes]:
    """Return all files of a run."""
    return {str(p.relative_to(run)): p.read_bytes() for p in run.rglob("*") if p.is_file()}


@dataclass
class Sweep:
    """A run's place, and what has been found wrong there."""

    place: Path
    config: AppConfig = field(init=False)
    injected: int = 0
    violations: list[str] = field(default_factory=list)

    def __post_init__(self) -> None:
        root = self.place / "deep" / "runs"
        # The watchdog of a loop closes its two descriptors on its own thread, a moment later.
        changed = {"logging.log_dir": str(root), "env.seed": 1, "monitoring.lag": False}
        self.config = load_config(overrides=changed)
        # Its thread's calls would come somewhere among those that are counted; tests/provenance
        # has the faults of its own.
        self.config.provenance.enabled = False
        self.old = self.place / "old"
        make_old_run(root / "r", self.config)
        shutil.copytree(root / "r", self.old)

    @property
    def run(self) -> Path:
        """The run's directory."""
        return self.place / "deep" / "runs" / "r"

    def put(self, *, resumed: bool) -> AppConfig:
        """Put the place as it was before, and give the config to start with."""
        shutil.rmtree(self.place / "deep", ignore_errors=True)
        config = self.config.model_copy(deep=True)
        if resumed:
            shutil.copytree(self.old, self.run)
            config.training.total_timesteps = 5
        return config

    def trace(self, *, resumed: bool, way: Any = WAYS[0]) -> list[Call]:
        """Record the calls of a whole life in which nothing fails."""
        faults = FileFaults()
        outcome = live(self.put(resumed=resumed), faults, way)
        assert not outcome.raised
        assert not outcome.logged
        return faults.calls

    def suffer(self, fault: Fault, way: Any, *, resumed: bool) -> None:
        """Live a life with a fault, and one after it without; note what is wrong."""
        config = self.put(resumed=resumed)
        before = contents(self.run)
        faults, open_before = FileFaults(fault), descriptors()
        where = f"{fault} {'resumed' if resumed else 'new'} {way[0].__name__} {way[1]}"
        try:
            outcome = live(config, faults, way)
        except BaseException as exc:
            self.violations.append(f"{where}: raised {exc!r}")
            return
        found = [*untyped(outcome, self.place, fault.errno), *torn_json(self.run)]
        found += [*unkept(self.run, config, outcome), *damaged(self.run, before, faults.calls)]
        if not faults.injected:
            found.append("nothing was injected")
        if fsync_again(faults.calls):
            found.append("a failed fsync was tried again")
        if descriptors() != open_before:
            found.append("a descriptor is left open")
        may_stay = fault.forever and fault.kind in ("unlink", ANY)
        if not may_stay and list(self.run.glob(".*.tmp")):
            found.append("a temporary file is left")
        after = live(config, None, way)
        found += [f"afterwards: {exc!r}" for exc in after.raised.values()]
        found += [f"afterwards: {line}" for line in after.logged if "a torn last" not in line]
        found += [f"afterwards: {what}" for what in torn_json(self.run)]
        if list(self.run.glob(".*.tmp")):
            found.append("a temporary file is left by the next start")
        self.injected += len(faults.injected)
        self.violations += [f"{where}: {what}" for what in found]
