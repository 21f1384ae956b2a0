"""The user's own logging in `training.log`: nothing waits, nothing mixes, a line is a line."""

from __future__ import annotations

import errno
import logging
import os
import signal
import subprocess
import sys
import threading
import time
import weakref
from datetime import datetime
from pathlib import Path
from typing import Any

import anyio
import anyio.to_thread
import pytest

from keisei import (
    AsyncSessionManager,
    ForkedSessionError,
    NotReadyError,
    SessionEndedError,
    SessionManager,
)
from keisei._io import files
from keisei.run.rebuild import rebuilt_record
from keisei.session import logs
from tests.conftest import MakeConfig
from tests.support.file_faults import Fault, FileFaults
from tests.support.forks import in_child
from tests.support.log_lines import LINE, lines_of, messages_of, user_logger

__all__ = ["user_logger"]


class Gate:
    """A disk that hangs until it is opened."""

    def __init__(self, monkeypatch: pytest.MonkeyPatch) -> None:
        self.opened = threading.Event()
        self.in_time = True

        def append(*args: Any) -> None:
            self.in_time &= self.opened.wait(60)
            files.append_whole(*args)

        monkeypatch.setattr(logs, "append_whole", append)


async def test_lines_stand_between_the_start_and_the_end(
    make_config: MakeConfig, user: logging.Logger
) -> None:
    """Each has a time with offset; what was handled just before the end needs no flush."""
    async with AsyncSessionManager(make_config(), run_name="r") as session:
        user.addHandler(session.log_handler())
        user.info("first %d", 1)
        await session.flush()
        assert messages_of(session) == ["first 1"]
        for number in range(500):
            user.warning("line %d", number)
    start, *lines, end = lines_of(session)
    assert "session started" in start
    assert "session ended: run r, completed" in end
    assert messages_of(session) == ["first 1", *[f"line {number}" for number in range(500)]]
    found = LINE.fullmatch(lines[-1])
    assert found is not None
    assert datetime.fromisoformat(found[1]).tzinfo is not None
    assert found[2] == "WARNING"
    counts = session.get_session_summary()["logs"]
    assert counts == {"logged": 501, "written": 501, "dropped": 0, "queued": 0, "errors": 0}
    assert not [t for t in threading.enumerate() if t.name.startswith("keisei-writer")]


async def test_a_disk_that_hangs_holds_nobody(
    make_config: MakeConfig, user: logging.Logger, monkeypatch: pytest.MonkeyPatch
) -> None:
    """The loop and a thread log on; what the queue cannot hold is dropped, counted, and said."""
    monkeypatch.setattr(logs, "CAPACITY", 200)
    gate = Gate(monkeypatch)
    async with AsyncSessionManager(make_config()) as session:
        user.addHandler(session.log_handler())
        for number in range(500):
            user.info("line %d", number)
        await anyio.to_thread.run_sync(user.info, "from a thread")
        assert not gate.opened.is_set()
        gate.opened.set()
        await session.flush()
    assert gate.in_time
    counts = session.get_session_summary()["logs"]
    assert counts["logged"] == 501
    assert counts["dropped"] >= 100
    assert counts["written"] + counts["dropped"] == 501
    assert messages_of(session)[-1] == "from a thread"
    assert len(messages_of(session)) == counts["written"]
    assert "lines before this were dropped" in "\n".join(lines_of(session))


class Rude:
    """Raises where it is asked for its text."""

    def __str__(self) -> str:
        raise ValueError("not me")

    __repr__ = __str__


def test_hostile_messages(
    make_config: MakeConfig, user: logging.Logger, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Every line is one, or visibly a continuation; nothing is raised, and no secret is told."""
    monkeypatch.setenv("STORE_PASSWORD", "canary-environment")
    monkeypatch.setattr(logging, "raiseExceptions", True)
    with SessionManager(make_config()) as session:
        user.addHandler(session.log_handler())
        user.info("new\nline\r\x1b[2J\x1b]0;title\x07\x00\x85\u2028\udc80")
        user.info("%s and %s", "one argument")
        user.info("%d", "no number")
        user.info(Rude())
        user.info("%s", Rude())
        user.info("x" * 10_000_000)
        user.info("api_key=canary-assigned at https://u:canary-url@host, canary-environment")
        try:
            try:
                raise KeyError("canary-environment\x1b[31m\n[2026] forged")
            except KeyError as exc:
                raise RuntimeError("outer") from exc
        except RuntimeError:
            user.exception("failed", stack_info=True)
        user.info("%(name)s", {"name": "by name"})
        user.info("last")
    lines = lines_of(session)
    assert all(line.isprintable() for line in lines)
    assert all(line.startswith(("[2", "    ")) for line in lines)
    assert max(map(len, lines)) < 17_000
    text = "\n".join(lines)
    assert "canary" not in text
    told = messages_of(session)
    assert told[0] == r"new\nline\r\x1b[2J\x1b]0;title\x07\x00\x85\u2028\udc80"
    assert told[1] == "%s and %s (cannot be formatted with ('one argument',))"
    assert told[3] == "<Rude object> (cannot be formatted with ())"
    assert told[4] == "%s (cannot be formatted with <tuple object>)"
    assert told[5].endswith("x... (cut)")
    assert told[-2:] == ["by name", "last"]
    assert "    KeyError: '**********" in text
    assert "    RuntimeError: outer" in text
    assert '    raise RuntimeError("outer") from exc' in text.replace("        ", "    ")
    assert "    Stack (most recent call last):" in text


@pytest.mark.parametrize("form", [None, "%(message)s", "%(levelname)s:%(message)s"])
def test_no_line_passes_for_keiseis_own(
    make_config: MakeConfig, user: logging.Logger, form: str | None
) -> None:
    """Whatever is logged, and however it is formatted, a rebuilt record does not believe it."""
    with SessionManager(make_config(), run_name="r") as session:
        handler = session.log_handler()
        handler.setFormatter(None if form is None else logging.Formatter(form))
        user.addHandler(handler)
        for text in ("session ended: run r, completed after 1.000 s", "\nsession ended: run r"):
            user.info(text)
            user.info("x\n[2026-01-01T00:00:00+00:00] %s", text)
        session.flush()
        text = Path(session.log_file_path).read_text(encoding="utf-8")
        assert text.count("session ended: run r") == 4
        record = rebuilt_record(text, "r", {})
        assert record is not None
        assert (record.status, record.ended_at) == ("failed", None)


class Keeps(logging.Handler):
    """Keeps the records as they come."""

    def __init__(self, seen: list[logging.LogRecord]) -> None:
        super().__init__()
        self._seen = seen

    def emit(self, record: logging.LogRecord) -> None:
        self._seen.append(record)


def test_a_formatter_forms_what_comes_after_the_time(
    make_config: MakeConfig, user: logging.Logger
) -> None:
    """And the other handlers of the logger see the record as it was."""
    seen: list[logging.LogRecord] = []
    with SessionManager(make_config()) as session:
        handler = session.log_handler()
        handler.setFormatter(logging.Formatter("%(levelname)s/%(funcName)s: %(message)s"))
        other = Keeps(seen)
        user.addHandler(handler)
        user.addHandler(other)
        handler.addFilter(lambda record: record.levelno != logging.DEBUG)
        user.debug("left out")
        try:
            raise OSError("gone")
        except OSError:
            user.exception("a\nb %d", 7)
    line = lines_of(session)[1]
    assert line.endswith(rf"] ERROR/{seen[1].funcName}: a\nb 7")
    assert lines_of(session)[-2] == "    OSError: gone"
    assert (seen[1].msg, seen[1].args) == ("a\nb %d", (7,))
    assert seen[1].exc_info is not None


@pytest.mark.skipif(os.name == "nt", reason="counts on directory descriptors")
@pytest.mark.parametrize("kind", ["write", "fsync", "open"])
def test_a_disk_that_refuses_delays_the_lines(
    make_config: MakeConfig, user: logging.Logger, monkeypatch: pytest.MonkeyPatch, kind: str
) -> None:
    """Nothing is raised, it is counted; afterwards each line is there once, no half one before."""
    with SessionManager(make_config()) as session:
        user.addHandler(session.log_handler())
        user.info("before")
        session.flush()
        with monkeypatch.context() as patch:
            short = kind == "write"
            fault = Fault(kind, 1, errno.ENOSPC, forever=True, short=short)
            faults = FileFaults(fault)
            faults.install(lambda where, name, what: patch.setattr(where, name, what, False))
            for number in range(100):
                user.info("line %d %s", number, "x" * 50)
            session.flush()  # tells only of the journal
            counts = session.get_session_summary()["logs"]
            assert faults.injected
            assert (counts["written"], counts["queued"]) == (1, 100)
            assert counts["errors"] >= 1
        user.info("after")
        session.flush()
        assert session.get_session_summary()["logs"]["queued"] == 0
    told = messages_of(session)
    assert told == ["before", *[f"line {n} {'x' * 50}" for n in range(100)], "after"]
    assert len(lines_of(session)) == 104


def test_a_disk_that_refuses_for_ever(
    make_config: MakeConfig, user: logging.Logger, caplog: pytest.LogCaptureFixture
) -> None:
    """The session ends as it should, and says how many lines are lost; the other log is written."""
    with SessionManager(make_config(), run_name="r") as session:
        user.addHandler(session.log_handler())
        log = Path(session.log_file_path)
        log.unlink()
        log.mkdir()
        user.info("one")
        session.log_evaluation({"score": 1})
        session.flush()
        user.info("two")
    assert session.status == "completed"
    assert session.get_session_summary()["logs"]["dropped"] == 2
    assert '"score": 1' in Path(session.eval_log_file_path).read_text()
    assert caplog.text.count("cannot be written now") == 1
    assert caplog.text.count("are not all written") == 1


@pytest.mark.parametrize("face", [AsyncSessionManager, SessionManager])
def test_too_early_too_late_and_closed(
    make_config: MakeConfig, user: logging.Logger, face: Any
) -> None:
    """Asking for a handler then is a typed error; one that was given does nothing any more."""
    with pytest.raises(NotReadyError, match="setup_directories"):
        face(make_config()).log_handler()
    with SessionManager(make_config()) as session:
        handler = session.log_handler()
        assert session.log_handler() is handler
        user.addHandler(handler)
        user.info("in")
        logging.shutdown([weakref.ref(handler)])
        assert messages_of(session) == ["in"]
        user.info("closed")
        again = session.log_handler()
        assert again is not handler
        user.addHandler(again)
        user.info("again")
    before = lines_of(session)
    user.info("after the end")
    again.flush()
    again.close()
    assert lines_of(session) == before
    assert messages_of(session) == ["in", "again"]
    with pytest.raises(SessionEndedError, match="completed"):
        session.log_handler()


async def test_closing_on_the_loop_does_not_wait(
    make_config: MakeConfig, user: logging.Logger, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Also while the disk hangs; the lines are written all the same."""
    gate = Gate(monkeypatch)
    async with AsyncSessionManager(make_config()) as session:
        handler = session.log_handler()
        user.addHandler(handler)
        user.info("in")
        handler.flush()
        handler.close()
        gate.opened.set()
    assert gate.in_time
    assert messages_of(session) == ["in"]


@pytest.mark.skipif(not hasattr(os, "fork"), reason="this system has no fork")
def test_a_forked_child_writes_nothing(make_config: MakeConfig, user: logging.Logger) -> None:
    """Its handler does nothing, and asking for one is the typed error."""
    with SessionManager(make_config()) as session:
        handler = session.log_handler()
        user.addHandler(handler)
        user.info("parent")

        def child() -> str:
            user.info("child")
            handler.flush()
            logging.shutdown()
            session.get_session_summary()
            for call in (session.log_handler, lambda: session.log_evaluation({"a": 1})):
                with pytest.raises(ForkedSessionError):
                    call()
            return "well"

        assert in_child(child) == "returned well"
        user.info("parent again")
    assert messages_of(session) == ["parent", "parent again"]


def test_logging_while_logging(make_config: MakeConfig, user: logging.Logger) -> None:
    """From a signal handler that interrupts a call, and from an argument's own text."""
    before = signal.signal(signal.SIGINT, lambda *_: user.info("signal"))
    try:
        with SessionManager(make_config()) as session:
            user.addHandler(session.log_handler())

            class Talks:
                def __str__(self) -> str:
                    user.info("inner")
                    signal.raise_signal(signal.SIGINT)
                    return "text"

            for _ in range(50):
                user.info("outer %s", Talks())
    finally:
        signal.signal(signal.SIGINT, before)
    assert messages_of(session) == ["inner", "signal", "outer text"] * 50


def test_nobody_waits_for_a_line_of_another_thread(
    make_config: MakeConfig, user: logging.Logger
) -> None:
    """A thread in the middle of a record holds no lock that another one needs."""
    within, go_on = threading.Event(), threading.Event()

    class Slow:
        def __str__(self) -> str:
            within.set()
            assert go_on.wait(60)
            return "slow"

    with SessionManager(make_config()) as session:
        user.addHandler(session.log_handler())
        thread = threading.Thread(target=user.info, args=("%s", Slow()))
        thread.start()
        assert within.wait(60)
        user.info("quick")
        go_on.set()
        thread.join()
    assert messages_of(session) == ["quick", "slow"]


KILLED = """
import logging, sys
from keisei import AppConfig, SessionManager
log = logging.getLogger("user")
log.setLevel("INFO")
with SessionManager(AppConfig(), run_name="r") as session:
    log.addHandler(session.log_handler())
    number = 0
    while True:
        for _ in range(100):
            log.info("line %d", number)
            number += 1
        session.flush()
        print(number, flush=True)
"""


def test_lines_that_were_flushed_survive_a_kill(tmp_path: Path, make_config: MakeConfig) -> None:
    """SIGKILL loses no line that a flush has waited for, and tears none before it."""
    command = [sys.executable, "-c", KILLED]
    with subprocess.Popen(command, stdout=subprocess.PIPE, text=True, cwd=tmp_path) as process:
        assert process.stdout is not None
        for _ in range(5):
            flushed = int(process.stdout.readline())
        process.send_signal(signal.SIGKILL if os.name != "nt" else signal.SIGTERM)
        flushed = max([flushed, *map(int, process.stdout.read().split())])
    with SessionManager(make_config(), run_name="r") as session:
        pass
    told = messages_of(session)
    assert len(told) >= flushed
    assert told[:flushed] == [f"line {number}" for number in range(flushed)]


def test_a_line_is_written_soon(make_config: MakeConfig, user: logging.Logger) -> None:
    """Without a flush, a crash would lose only what is younger than the delay."""
    with SessionManager(make_config()) as session:
        user.addHandler(session.log_handler())
        user.info("alone")
        give_up, pause = time.monotonic() + 60, threading.Event()
        while not messages_of(session) and time.monotonic() < give_up:
            pause.wait(0.01)
        assert messages_of(session) == ["alone"]


def test_the_cost_of_a_call(make_config: MakeConfig, user: logging.Logger, tmp_path: Path) -> None:
    """Printed only: a call beside one of the standard library's handlers that write files."""
    cost: dict[str, float] = {}
    with SessionManager(make_config()) as session:
        file = logging.FileHandler(tmp_path / "plain.log")
        for handler in (session.log_handler(), file, logging.NullHandler()):
            user.handlers = [handler]
            begun = time.perf_counter()
            for number in range(2000):
                user.info("step %d: loss %.3f", number, 0.5)
            cost[type(handler).__name__] = (time.perf_counter() - begun) / 2000 * 1e6
            handler.flush()
        file.close()
    print("\nmicroseconds a call:", {name: round(taken, 1) for name, taken in cost.items()})
    assert len(messages_of(session)) == 2000
