"""What stands in a run's directory is not trusted: links, and what is no file."""

from __future__ import annotations

import itertools
import logging
import os
import socket
import stat
import sys
import threading
from collections.abc import Callable
from contextlib import suppress
from pathlib import Path
from typing import Any

import pytest

from keisei import AppConfig, ConfigSaveError, DirectorySetupError
from keisei import SessionManager as Manager
from keisei.errors import KeiseiError
from tests.conftest import MakeConfig

pytestmark = pytest.mark.skipif(os.name == "nt", reason="Windows has no links of this kind")

FILES = ["session.json", "training.log", "evaluation.log", "effective_config.json"]
LATER = ["effective_config.attempt-1.json", ".effective_config.attempt-1.json.tmp"]
PLACES = [
    *FILES, *LATER, ".session.json.tmp", ".effective_config.json.tmp", "models", "", "weights",
]  # fmt: skip
STEPS = ["setup_directories", "save_effective_config", "setup_seeding", "log_session_start"]


def snapshot(top: Path) -> dict[str, tuple[int, int, int, bytes]]:
    """Give everything under a directory: mode, inode, time of change and content."""
    found = {}
    for path in [top, *top.rglob("*")]:
        facts = path.lstat()
        content = path.read_bytes() if stat.S_ISREG(facts.st_mode) else b""
        found[str(path)] = (facts.st_mode, facts.st_ino, facts.st_mtime_ns, content)
    return found


class Field:
    """A run `r` under attack, and the directory outside of it that nothing may touch.

    Args:
        top: an empty directory.
        make_config: makes the run's config.
    """

    def __init__(self, top: Path, make_config: MakeConfig) -> None:
        self.top = top
        self.run = top / "runs" / "r"
        self.config: AppConfig = make_config(
            logging={"log_dir": str(top / "runs"), "model_dir": str(top / "weights")}
        )
        self.outside = top / "outside"
        (self.outside / "r").mkdir(parents=True)
        for directory in (self.outside, self.outside / "r"):
            (directory / "evaluation.log").touch()
            (directory / "precious").write_text("precious")
        self.before = snapshot(self.outside)

    def place(self, name: str) -> Path:
        """Give a place of the run's; models live apart only where that is the place."""
        if name == "weights":
            return self.top / "weights" / "r"
        self.config.logging.model_dir = None
        return self.run / name if name else self.run

    def clear(self, place: Path) -> None:
        """Make room for what is planted."""
        place.parent.mkdir(parents=True, exist_ok=True)
        if place.exists():
            place.rename(self.top / "moved away")

    def life(self) -> KeiseiError | None:
        """Live a whole life; give the typed error that ends it, if one does."""
        try:
            with Manager(self.config, run_name="r"):
                pass
        except KeiseiError as exc:
            return exc
        return None

    def check(self) -> None:
        """Nothing outside was made, changed or removed."""
        assert snapshot(self.outside) == self.before


def link(field: Field, place: Path, to: str) -> None:
    """Plant a link."""
    field.clear(place)
    target = {
        "a file": field.outside / "precious",
        "an empty file": field.outside / "evaluation.log",
        "a directory": field.outside / "r",
        "nothing": field.outside / "nothing",
        "itself": place,
    }[to]
    place.symlink_to(target)


LINKS = ["a file", "an empty file", "a directory", "nothing", "itself"]


@pytest.mark.requirement("DIR-4")
@pytest.mark.parametrize("name", PLACES, ids=lambda name: name or "run")
@pytest.mark.parametrize("resumed", [False, True], ids=["first", "resumed"])
def test_a_planted_link_leads_nothing_outside(
    make_config: MakeConfig, tmp_path: Path, name: str, resumed: bool
) -> None:
    """A link at any place of the run's is refused or replaced, and never followed."""
    for to in LINKS:
        field = Field(tmp_path / to, make_config)
        place = field.place(name)
        if resumed:
            assert field.life() is None
        link(field, place, to)
        error = field.life()
        field.check()
        if error is None:
            assert resumed is False or name not in ("session.json", "models", "", "weights")
            assert all(stat.S_ISREG((field.run / file).lstat().st_mode) for file in FILES)
        else:
            assert isinstance(error, (DirectorySetupError, ConfigSaveError))
            assert ascii(place.name)[1:-1].lstrip(".").split(".")[0] in str(error)
            assert place.is_symlink()  # left for its owner to look at


@pytest.mark.requirement("DIR-4", "FIN-1")
@pytest.mark.parametrize("name", [n for n in PLACES if n not in LATER], ids=lambda n: n or "run")
def test_a_link_swapped_in_between_two_steps_leads_nothing_outside(
    make_config: MakeConfig, tmp_path: Path, name: str
) -> None:
    """The steps that are left fail with a typed error or go on, and the end is never raised."""
    for after, to in itertools.product(range(len(STEPS)), LINKS[1:4]):
        field = Field(tmp_path / f"{after} {to}", make_config)
        place = field.place(name)
        session = Manager(field.config, run_name="r")
        for step in STEPS[: after + 1]:
            getattr(session, step)()
        link(field, place, to)
        for step in STEPS[after + 1 :]:
            with suppress(ConfigSaveError):
                getattr(session, step)()
        assert session.finalize_session() == "completed"
        field.check()


@pytest.mark.requirement("DIR-4", "FIN-1")
@pytest.mark.parametrize("fails", [False, True], ids=["going well", "failing"])
def test_a_link_swapped_in_before_any_file_system_call_leads_nothing_outside(
    make_config: MakeConfig, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, fails: bool
) -> None:
    """The run's directory is replaced before the k-th call, for every k: nothing gets out."""
    left = 0
    swapped_before = ""
    field: Field

    def watched(name: str, real: Callable[..., Any]) -> Callable[..., Any]:
        def call(path: Any, *args: Any, **kwargs: Any) -> Any:
            nonlocal left, swapped_before
            left -= 1
            if left == 0 and field.run.is_dir():
                swapped_before = f"{name} {path}"
                real_rename(field.run, field.top / "moved away")
                field.run.symlink_to(field.outside / "r")
            return real(path, *args, **kwargs)

        return call

    real_rename = os.rename
    harm = []
    for number in itertools.count(1):
        field = Field(tmp_path / str(number), make_config)
        field.config.logging.model_dir = field.outside / "precious" / "models" if fails else None
        left = number
        with monkeypatch.context() as patch:
            for name in ("open", "mkdir", "unlink", "remove", "rename", "replace", "rmdir"):
                patch.setattr(os, name, watched(name, getattr(os, name)))
            error = field.life()
        assert error is None or isinstance(error, (DirectorySetupError, ConfigSaveError))
        if snapshot(field.outside) != field.before:
            harm.append(swapped_before)
        if left > 0:
            break
    print(f"links swapped in before each of {number - 1} calls, harm outside: {len(harm)}")
    assert harm == []
    assert number > 7


def fifo(place: Path) -> None:
    """Plant a FIFO that nobody reads or writes."""
    os.mkfifo(place)


def unix_socket(place: Path) -> None:
    """Plant a socket; its path may be longer than a socket's address."""
    here = os.getcwd()
    os.chdir(place.parent)
    with socket.socket(socket.AF_UNIX) as bound:
        bound.bind(place.name)
    os.chdir(here)


def device(place: Path) -> None:
    """Plant a node of the null device, which swallows whatever is written."""
    try:
        os.mknod(place, stat.S_IFCHR | 0o600, os.makedev(1, 3))
    except PermissionError:
        pytest.skip("this user may not make device nodes")


KINDS: dict[str, Callable[[Path], None]] = {
    "fifo": fifo, "socket": unix_socket, "directory": Path.mkdir, "device": device,
}  # fmt: skip


def within(seconds: float, work: Callable[[], object], stuck_at: Path) -> None:
    """Do work that may hang on a FIFO; then free it, and fail."""
    errors: list[BaseException] = []

    def run() -> None:
        try:
            work()
        except BaseException as exc:
            errors.append(exc)

    thread = threading.Thread(target=run, daemon=True)
    thread.start()
    thread.join(seconds)
    hung = thread.is_alive()
    while thread.is_alive():
        with suppress(OSError):
            os.close(os.open(stuck_at, os.O_WRONLY | os.O_NONBLOCK))
        thread.join(0.05)
    assert not hung, f"hung at {stuck_at.name}"
    if errors:
        raise errors[0]


@pytest.mark.requirement("DIR-4")
@pytest.mark.skipif(sys.platform != "linux", reason="makes nodes that only Linux has")
@pytest.mark.parametrize("kind", KINDS)
@pytest.mark.parametrize("time", ["first", "resumed", "live"])
@pytest.mark.parametrize("name", [n for n in PLACES if n not in ("models", "", "weights")])
def test_what_is_no_file_neither_hangs_nor_passes_for_one(
    make_config: MakeConfig,
    tmp_path: Path,
    caplog: pytest.LogCaptureFixture,
    name: str,
    time: str,
    kind: str,
) -> None:
    """A FIFO, a socket, a directory or a device is replaced, or said in an error or a warning."""
    field = Field(tmp_path / "field", make_config)
    place = field.place(name)
    outcome: list[KeiseiError | None] = []

    def work() -> None:
        if time == "live":
            session = Manager(field.config, run_name="r")
            session.setup_directories()
            field.clear(place)
            KINDS[kind](place)
            try:
                session.save_effective_config()
            except ConfigSaveError as exc:
                outcome.append(exc)
            session.log_session_start()
            assert session.finalize_session() == "completed"
        else:
            if time == "resumed":
                assert field.life() is None
            field.clear(place)
            KINDS[kind](place)
            outcome.append(field.life())

    within(5, work, place)
    warned = any(record.levelno >= logging.WARNING for record in caplog.records)
    error = outcome[0] if outcome else None
    untouched = (name in LATER and time != "resumed") or (name, time) == ("evaluation.log", "live")
    if not untouched and error is None and not warned:
        assert not place.exists() or place.is_file(), f"a {kind} was taken for a file"
