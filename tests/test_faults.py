"""What a failing disk does to a session: the order of its calls, and every error at every call."""

from __future__ import annotations

import contextlib
import errno
import itertools
import json
import logging
import os
import shutil
from collections import Counter
from collections.abc import Iterator
from dataclasses import dataclass, field
from functools import partial
from pathlib import Path
from typing import Any

import anyio
import pytest

from keisei import AppConfig, AsyncSessionManager, ConfigSaveError, DirectorySetupError, load_config
from keisei.errors import KeiseiError
from keisei.run.ownership import SessionRecord
from tests.support.file_faults import ANY, Call, Fault, FileFaults, fast_place

pytestmark = pytest.mark.skipif(os.name == "nt", reason="counts on directory descriptors")

ERRNOS = [errno.ENOSPC, errno.EIO, errno.EDQUOT, errno.EROFS, errno.EACCES]
OLD = {"models/model.bin": b"weights", "evaluation.log": b"an evaluation\n"}


class Logged(logging.Handler):
    """Keeps keisei's warnings and errors."""

    def __init__(self) -> None:
        super().__init__(logging.WARNING)
        self.lines: list[str] = []

    def emit(self, record: logging.LogRecord) -> None:
        """Keep one."""
        self.lines.append(record.getMessage())


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
    """Tell whether an fsync that failed was tried again on its descriptor."""
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
        if log.count("session ended") != outcome.attempt:
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
    """Give all files of a run."""
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
        self.config = load_config(overrides={"logging.log_dir": str(root), "env.seed": 1})
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

    def trace(self, *, resumed: bool) -> list[Call]:
        """Record the calls of a whole life in which nothing fails."""
        faults = FileFaults()
        outcome = live(self.put(resumed=resumed), faults)
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
        found += [f"afterwards: {line}" for line in after.logged]
        found += [f"afterwards: {what}" for what in torn_json(self.run)]
        if list(self.run.glob(".*.tmp")):
            found.append("a temporary file is left by the next start")
        self.injected += len(faults.injected)
        self.violations += [f"{where}: {what}" for what in found]


def faults_for(calls: list[Call]) -> Iterator[Fault]:
    """Give every fault for a life of those calls: kind, errno, number, once or for ever."""
    counts = Counter(call.kind for call in calls)
    for kind, count in counts.items():
        errnos = [*ERRNOS, errno.EMFILE] if kind == "open" else ERRNOS
        for error, number, forever in itertools.product(errnos, range(1, count + 1), (False, True)):
            yield Fault(kind, number, error, forever)
    for number, error in itertools.product(range(1, counts["write"] + 1), ERRNOS):
        yield Fault("write", number, error, forever=True, short=True)
    for number in range(1, len(calls) + 1):
        yield Fault(ANY, number, errno.EIO, forever=True)


@pytest.mark.requirement("DIR-4", "CFG-4", "LOG-2", "FIN-1")
def test_every_error_at_every_call(tmp_path: Path) -> None:
    """An error, at whatever call, is typed or logged, and leaves a run that goes on after it."""
    with fast_place(tmp_path) as place:
        sweep = Sweep(place)
        for resumed in (False, True):
            ways = itertools.cycle(WAYS)
            for fault in faults_for(sweep.trace(resumed=resumed)):
                sweep.suffer(fault, next(ways), resumed=resumed)
    print(f"injected errors: {sweep.injected}, violations: {len(sweep.violations)}")
    assert sweep.injected > 300
    assert not sweep.violations, "\n".join(sweep.violations[:20])


def calls_for(calls: list[Call], name: str) -> list[Call]:
    """Give the calls of the last atomic write of a file: from the first on its temporary one."""
    last = max(i for i, call in enumerate(calls) if call.target.endswith(f"/{name}"))
    opened = max(i for i in range(last) if calls[i].kind == "open")
    return calls[opened : last + 2]


@pytest.mark.requirement("DIR-7", "CFG-3")
@pytest.mark.parametrize("resumed", [False, True])
def test_a_whole_file_is_written_in_the_order_that_survives_a_power_loss(
    tmp_path: Path, resumed: bool
) -> None:
    """Temporary file, all bytes, fsync, close, rename, fsync of the directory: nothing between."""
    sweep = Sweep(tmp_path)
    calls = sweep.trace(resumed=resumed)
    run = str(sweep.run)
    names = ["session.json", "effective_config.json"]
    names += ["effective_config.attempt-1.json"] if resumed else []
    for name in names:
        steps = calls_for(calls, name)
        opened, *writes, synced, closed, renamed, directory = steps
        temporary = opened.path
        assert temporary.startswith(f"{run}/.")
        assert temporary.endswith(".tmp")
        assert [(s.kind, s.path) for s in steps if s not in writes] == [
            ("open", temporary),
            ("fsync", temporary),
            ("close", temporary),
            ("rename", temporary),
            ("fsync", run),
        ]
        assert {(w.kind, w.path, w.fd) for w in writes} == {("write", temporary, opened.fd)}
        assert sum(w.size for w in writes) == (sweep.run / name).stat().st_size
        assert opened.flags & os.O_EXCL
        assert opened.flags & os.O_NOFOLLOW
        assert opened.mode == 0o600
        assert opened.dir_fd is not None
        assert opened.dir_fd == renamed.dir_fd == directory.fd
        assert opened.fd == synced.fd == closed.fd
        assert renamed.target == os.path.join(run, name)
    # session.json is written twice, at the start and at the end, and each file but once more.
    renames = Counter(os.path.basename(call.target) for call in calls if call.kind == "rename")
    assert renames == Counter(names) + Counter(["session.json"])
    written = {call.path for call in calls if call.kind == "write"}
    whole = {call.path for call in calls if call.kind == "rename"}
    assert written == whole | {os.path.join(run, "training.log")}


@pytest.mark.requirement("DIR-1")
def test_a_new_directory_is_synced_into_its_parent(tmp_path: Path) -> None:
    """After each mkdir, before anything else is made or written, comes an fsync of the parent."""
    sweep = Sweep(tmp_path)
    calls = [c for c in sweep.trace(resumed=False) if c.kind in ("mkdir", "fsync", "write")]
    made = [i for i, call in enumerate(calls) if call.kind == "mkdir" and not call.errno]
    assert [calls[i].path for i in made] == [
        str(path) for path in (*sweep.run.parents[1::-1], sweep.run, sweep.run / "models")
    ]
    for i in made:
        following = calls[i + 1]
        assert (following.kind, following.path) == ("fsync", os.path.dirname(calls[i].path))


@pytest.mark.parametrize("resumed", [False, True])
def test_a_failed_fsync_is_reported_and_never_tried_again(tmp_path: Path, resumed: bool) -> None:
    """Its descriptor is closed, its temporary file is gone, and nothing is renamed from it."""
    with fast_place(tmp_path) as place:
        sweep = Sweep(place)
        calls = [c for c in sweep.trace(resumed=resumed) if c.kind == "fsync"]
        temporary = [n for n, c in enumerate(calls, 1) if c.path.endswith(".tmp")]
        assert len(temporary) == 4 if resumed else 3
        for number in temporary:
            config = sweep.put(resumed=resumed)
            faults = FileFaults(Fault("fsync", number, errno.EIO))
            outcome = live(config, faults)
            (failed,) = faults.injected
            after = faults.calls[faults.calls.index(failed) + 1 :]
            assert [c.kind for c in after[:2]] == ["close", "unlink"]
            assert (after[0].fd, after[1].path) == (failed.fd, failed.path)
            assert not after[1].errno
            assert not [c for c in after if c.kind == "rename" and c.path == failed.path]
            assert not fsync_again(faults.calls)
            assert outcome.raised or outcome.logged


@pytest.mark.requirement("DIR-4", "CFG-4", "FIN-1")
def test_a_disk_that_fills_up_in_the_middle(tiny_disk: Path) -> None:
    """At each amount of free space a resumed run keeps what it had, and goes on once there is
    room."""
    sweep = Sweep(tiny_disk)
    failed = 0
    for pages in range(6):
        config = sweep.put(resumed=True)
        before = contents(sweep.run)
        with contextlib.suppress(OSError), open(tiny_disk / "filler", "wb", 0) as filler:
            while filler.write(b"x" * 4096):
                pass
        filled = (tiny_disk / "filler").stat().st_size
        os.truncate(tiny_disk / "filler", filled - pages * 4096)
        faults, open_before = FileFaults(), descriptors()
        outcome = live(config, faults)
        failed += bool(outcome.raised or outcome.logged)
        assert [*untyped(outcome, tiny_disk, errno.ENOSPC)] == []
        assert [*torn_json(sweep.run), *damaged(sweep.run, before, faults.calls)] == []
        assert [*unkept(sweep.run, config, outcome)] == []
        assert not list(sweep.run.glob(".*.tmp"))
        assert descriptors() == open_before
        (tiny_disk / "filler").unlink()
        after = live(config, None)
        assert not after.raised, (pages, after.raised)
        assert not after.logged
    assert failed > 1
    assert failed < pages
