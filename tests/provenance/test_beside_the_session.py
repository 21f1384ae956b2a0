"""The snapshot changes nothing that a session promises: who enters and ends does not feel it."""

from __future__ import annotations

import errno
import json
import logging
import os
import shutil
import stat
import subprocess
import sys
import threading
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import anyio
import pytest

from keisei import AsyncSessionManager, SessionManager, TakenOverError
from keisei.config.schema import ProvenanceConfig
from keisei.provenance import code, shared, snapshot
from keisei.session import provenance
from tests.conftest import MakeConfig
from tests.support.dirty_trees import repository
from tests.support.forks import in_child
from tests.support.threads import still_there


@pytest.fixture
def only_when_one_ends(monkeypatch: pytest.MonkeyPatch) -> None:
    """No look before a session ends."""
    monkeypatch.setattr(shared, "PAUSE", 600.0)
    monkeypatch.setattr(shared, "LONGEST_PAUSE", 600.0)


@pytest.fixture
def hung_git(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[None]:
    """Put a git first on the path that hangs for ever, until the test is over."""
    monkeypatch.setattr(snapshot, "_said", set())
    program = tmp_path / "bin" / "git"
    program.parent.mkdir()
    program.write_text("#!/bin/sh\nexec sleep 1000\n")
    program.chmod(program.stat().st_mode | stat.S_IXUSR)
    monkeypatch.setenv("PATH", f"{program.parent}:{os.environ['PATH']}")
    monkeypatch.setattr(shared, "_current", thread := shared._Thread())
    monkeypatch.setattr(provenance, "PATIENCE", 0.01)
    yield
    thread._stop.set()
    assert still_there() == []


def recorded(session: SessionManager[Any] | AsyncSessionManager[Any]) -> dict[str, Any]:
    """Return what was recorded of a session's first attempt."""
    found = json.loads(Path(session.run_artifact_dir, "provenance.1.json").read_text())
    assert isinstance(found, dict)
    return found


@pytest.mark.usefixtures("hung_git")
def test_an_end_waits_for_no_hung_git(
    make_config: MakeConfig, monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    """The program's end kills it, and the rest is recorded; one warning says it."""
    with SessionManager(make_config(provenance={"timeout": 600.0})) as session:
        pass
    assert not Path(session.run_artifact_dir, "provenance.1.json").exists()
    monkeypatch.setattr(shared, "EXIT_PATIENCE", 0.0)
    monkeypatch.setattr(shared, "EXIT_TIMEOUT", 30.0)
    shared._current.finish()
    found = recorded(session)
    assert "before it had answered" in found["code"]["problem"]
    assert found["packages"]["anyio"]
    warnings = [one for one in caplog.records if one.levelno >= logging.WARNING]
    assert len(warnings) == 1


@pytest.mark.usefixtures("hung_git")
def test_a_crowd_of_ends_waits_for_git_together(
    make_config: MakeConfig, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Where more have ended than keep their directories open for it, it is killed for all."""
    monkeypatch.setattr(shared, "MOST_LEFT", 2)
    monkeypatch.setattr(shared, "FAILED_FOR", 60.0)
    config = make_config(provenance={"timeout": 600.0})
    sessions = []
    for number in range(3):
        with SessionManager(config, run_name=f"r{number}") as session:
            sessions.append(session)
    assert still_there() == []
    assert [bool(recorded(session)["packages"]) for session in sessions] == [True] * 3


PROGRAM = """
import sys, time
from keisei import SessionManager, load_config
config = load_config(overrides={"logging.log_dir": sys.argv[1], "provenance.timeout": 600.0})
with SessionManager(config, run_name="r"):
    pass
"""


def run_program(root: Path) -> dict[str, Any]:
    """Run a program whose session ends at once; return its record."""
    command = [sys.executable, "-c", PROGRAM, str(root)]
    subprocess.run(command, check=True, timeout=60)
    found = json.loads((root / "r" / "provenance.1.json").read_text())
    assert isinstance(found, dict)
    return found


def test_a_program_that_ends_at_once_has_its_record(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """What its session did not wait for is written before the interpreter has gone."""
    monkeypatch.chdir(repository(tmp_path / "repo", {"a.txt": "one\n"}))
    assert run_program(tmp_path / "runs")["code"]["commit"]


@pytest.mark.usefixtures("hung_git")
def test_a_program_ends_although_git_hangs(tmp_path: Path) -> None:
    """Long before git's timeout; all but the code is recorded."""
    found = run_program(tmp_path / "runs")
    assert "before it had answered" in found["code"]["problem"]
    assert found["packages"]["anyio"]


@pytest.mark.usefixtures("only_when_one_ends")
def test_a_crowd_shares_one_look_and_one_thread(
    make_config: MakeConfig, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Each has its record; no session has a thread or a descriptor of its own for it."""
    looks, sessions = [], list[AsyncSessionManager[Any]]()
    real = code.code_state

    def counted(*args: Any) -> Any:
        looks.append(threading.current_thread().name)
        return real(*args)

    monkeypatch.setattr(snapshot, "code_state", counted)

    async def crowd() -> None:
        entered, all_in = 0, anyio.Event()

        async def one(number: int) -> None:
            nonlocal entered
            async with AsyncSessionManager(make_config(), run_name=f"r{number}") as session:
                sessions.append(session)
                entered += 1
                if entered == 100:
                    all_in.set()
                await all_in.wait()
                names = [thread.name for thread in threading.enumerate()]
                assert names.count("keisei-provenance") <= 1

        async with anyio.create_task_group() as tasks:
            for number in range(100):
                tasks.start_soon(one, number)

    anyio.run(crowd)
    assert looks == ["keisei-provenance"]
    assert len([recorded(session) for session in sessions]) == 100
    assert still_there() == []


@pytest.mark.usefixtures("only_when_one_ends")
def test_a_directory_that_was_removed_gets_nothing_more(
    make_config: MakeConfig, caplog: pytest.LogCaptureFixture
) -> None:
    """Not where the session makes it again for its end, either; that is no news."""
    with SessionManager(make_config()) as session:
        shutil.rmtree(session.run_artifact_dir)
    assert session.status == "completed"
    assert not list(Path(session.run_artifact_dir).glob("*provenance*"))
    assert "is started from" not in caplog.text


@pytest.mark.usefixtures("hung_git")
def test_a_directory_that_was_removed_behind_the_end_is_not_made_again(
    make_config: MakeConfig, monkeypatch: pytest.MonkeyPatch
) -> None:
    """What is written late finds nothing to be written to."""
    with SessionManager(make_config(provenance={"timeout": 600.0})) as session:
        pass
    shutil.rmtree(session.run_artifact_dir)
    monkeypatch.setattr(shared, "EXIT_PATIENCE", 0.0)
    monkeypatch.setattr(shared, "EXIT_TIMEOUT", 30.0)
    shared._current.finish()
    assert still_there() == []
    assert not Path(session.run_artifact_dir).exists()


@pytest.mark.usefixtures("hung_git")
def test_a_run_that_is_resumed_at_once_has_both_records(
    make_config: MakeConfig, monkeypatch: pytest.MonkeyPatch
) -> None:
    """The earlier attempt's is written although the next one owns the run by then."""
    for _ in range(2):
        with SessionManager(make_config(provenance={"timeout": 600.0}), run_name="r") as session:
            pass
    monkeypatch.setattr(shared, "EXIT_PATIENCE", 0.0)
    monkeypatch.setattr(shared, "EXIT_TIMEOUT", 30.0)
    shared._current.finish()
    for attempt in (1, 2):
        path = Path(session.run_artifact_dir, f"provenance.{attempt}.json")
        assert json.loads(path.read_text())["attempt"] == attempt


@pytest.mark.usefixtures("only_when_one_ends")
def test_a_run_that_was_taken_over_gets_nothing_more(make_config: MakeConfig) -> None:
    """The session file is the next owner's: what it was started from is for that one to say."""
    with pytest.raises(TakenOverError), SessionManager(make_config()) as session:
        path = Path(session.run_artifact_dir, "session.json")
        path.write_text(json.dumps(json.loads(path.read_text()) | {"attempt": 2}))
    assert not list(path.parent.glob("*provenance*"))


@pytest.mark.usefixtures("hung_git")
def test_a_run_that_was_taken_over_gets_nothing_late_either(
    make_config: MakeConfig, monkeypatch: pytest.MonkeyPatch
) -> None:
    """A session that has lost its run leaves it alone behind its end, too."""
    config = make_config(provenance={"timeout": 600.0})
    with pytest.raises(TakenOverError), SessionManager(config) as session:
        path = Path(session.run_artifact_dir, "session.json")
        path.write_text(json.dumps(json.loads(path.read_text()) | {"attempt": 2}))
    monkeypatch.setattr(shared, "EXIT_PATIENCE", 0.0)
    monkeypatch.setattr(shared, "EXIT_TIMEOUT", 30.0)
    shared._current.finish()
    assert still_there() == []
    assert not list(path.parent.glob("*provenance*"))


def test_a_full_disk_is_one_warning(
    make_config: MakeConfig, monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    """The run is entered and ends as ever."""

    def full(record: snapshot.Task, *others: object) -> None:
        raise OSError(errno.ENOSPC, os.strerror(errno.ENOSPC))

    monkeypatch.setattr(shared, "write", full)
    with SessionManager(make_config()) as session:
        pass
    assert session.status == "completed"
    warnings = [one.getMessage() for one in caplog.records if one.levelno >= logging.WARNING]
    assert ["No space left" in text for text in warnings] == [True]


@pytest.mark.skipif(not hasattr(os, "fork"), reason="this system has no fork")
@pytest.mark.usefixtures("hung_git")
def test_a_forked_child_has_a_thread_of_its_own(make_config: MakeConfig) -> None:
    """What its parent waits for is not the child's: that asks git itself."""
    config = make_config(provenance={"timeout": 600.0})

    def child() -> bool:
        provenance.PATIENCE = 30.0
        quick = config.model_copy(update={"provenance": ProvenanceConfig(timeout=0.2)})
        with SessionManager(quick, run_name="child") as inner:
            pass
        return bool(recorded(inner)["packages"])

    with SessionManager(config, run_name="parent"):
        shared._current.hasten(next(iter(shared._current._waiting)))
        assert in_child(child)
