"""What tells a preemption without a signal, and what SLURM is asked, with a stand-in for it."""

from __future__ import annotations

import os
import time
from collections.abc import Callable
from datetime import datetime
from pathlib import Path

import pytest

from keisei import AppConfig, SessionManager
from keisei.distributed import slurm
from keisei.distributed.launchers import Launch
from keisei.distributed.preemption import Preempting
from keisei.distributed.sources import EndOfTime, PreemptFile
from tests.conftest import MakeConfig

posix = pytest.mark.skipif(os.name == "nt", reason="the stand-in for scontrol is a shell script")

Scontrol = Callable[[str], Path]


@pytest.fixture
def scontrol(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Scontrol:
    """Put a stand-in for scontrol in the path; what it was called with is in the file returned."""

    def put(body: str) -> Path:
        calls = tmp_path / "calls"
        script = tmp_path / "bin" / "scontrol"
        script.parent.mkdir()
        script.write_text(f'#!/bin/sh\necho "$@" >> {calls}\n{body}\n')
        script.chmod(0o755)
        monkeypatch.setenv("PATH", f"{script.parent}{os.pathsep}{os.environ['PATH']}")
        return calls

    return put


def test_a_file_tells_it_once_it_appears_or_changes(tmp_path: Path) -> None:
    """With the deadline that it holds, or the grace time; one that stood there before is old."""
    path = tmp_path / "preempt"
    source = PreemptFile(str(path), 20.0)
    assert source.look(100.0) is None
    path.write_text(" 1234.5\n")
    assert source.look(100.0) == Preempting(1234.5, "file")
    assert source.look(101.0) is None
    path.write_text("soon, says the node")
    assert source.look(102.0) == Preempting(122.0, "file")
    path.write_text("nan")
    assert source.look(103.0) == Preempting(123.0, "file")
    path.unlink()
    assert source.look(104.0) is None
    path.touch()
    assert source.look(105.0) == Preempting(125.0, "file")

    old = PreemptFile(str(path), 20.0)
    assert old.look(106.0) is None


def test_the_end_of_a_jobs_time_is_told_before_it() -> None:
    """SLURM is asked once more, for the time may have been extended."""
    asked: list[str] = []
    answers = [2000.0, None]

    def ask(job: str) -> float | None:
        asked.append(job)
        return answers.pop(0)

    source = EndOfTime({"SLURM_JOB_ID": "7", "SLURM_JOB_END_TIME": "1000"}, 20.0, 500.0, ask)
    assert [source.look(now) for now in (500.0, 979.9)] == [None, None]
    assert asked == []
    assert source.look(980.0) is None  # extended
    assert source.look(1979.0) is None
    assert asked == ["7"]
    assert source.look(1980.0) == Preempting(2000.0, "slurm")


@pytest.mark.parametrize(
    "environ",
    [
        {},
        {"SLURM_JOB_END_TIME": "1000"},
        {"SLURM_JOB_ID": "7", "SLURM_JOB_END_TIME": "400"},  # leaked from a job that is over
    ],
)
def test_where_no_end_is_known_nothing_is_told(environ: dict[str, str]) -> None:
    """Outside of jobs, and in the environment of one that is over."""
    source = EndOfTime(environ, 20.0, 500.0, lambda job: pytest.fail("asked"))
    assert source.look(10_000.0) is None


def test_an_older_slurm_is_asked() -> None:
    """Where the environment does not say when the time ends."""
    source = EndOfTime({"SLURM_JOB_ID": "7"}, 20.0, 500.0, lambda job: 1000.0)
    assert source.look(500.0) is None
    assert source.look(990.0) == Preempting(1000.0, "slurm")


def test_a_job_is_named_as_scontrol_names_it() -> None:
    """A task of an array by the array and its index."""
    array = {"SLURM_JOB_ID": "9", "SLURM_ARRAY_JOB_ID": "7", "SLURM_ARRAY_TASK_ID": "0"}
    assert slurm.job_of({}) is None
    assert slurm.job_of({"SLURM_JOB_ID": "9"}) == "9"
    assert slurm.job_of(array) == "7_0"


@pytest.mark.requirement("RANK-6")
def test_the_starts_of_a_job_have_one_identity() -> None:
    """Other jobs, steps and command lines have others, and torchrun's own id counts for nothing."""
    environ = {"SLURM_CLUSTER_NAME": "c", "SLURM_JOB_ID": "7"}
    found = Launch("torchrun", 0, 1, 0, 0, "torchrun/7/abc", restart=2)
    first = slurm.start_of_job(environ, None, ["train.py", "--lr", "1"])
    again = slurm.start_of_job(
        environ | {"SLURM_RESTART_COUNT": "1"}, found, ["train.py", "--lr", "1"]
    )
    assert first is not None
    assert again is not None
    assert again.identity == first.identity
    assert (first.requeues, first.restart, first.world_size) == (0, 0, 1)
    assert (again.requeues, again.restart, again.world_size) == (1, 2, 1)
    others = [
        slurm.start_of_job(environ, None, ["train.py", "--lr", "2"]),
        slurm.start_of_job(environ | {"SLURM_JOB_ID": "8"}, None, ["train.py", "--lr", "1"]),
        slurm.start_of_job(environ | {"SLURM_STEP_ID": "0"}, None, ["train.py", "--lr", "1"]),
        slurm.start_of_job(environ, None, ["train.py", "--lr", "1"], "mine"),
    ]
    assert len({first.identity, *(each.identity for each in others if each)}) == 5
    assert slurm.start_of_job({}, None, ["train.py"]) is None


def test_what_scontrol_prints_is_parsed() -> None:
    """Its times are local; `Unknown` is none."""
    text = "JobId=7 StartTime=2026-01-02T03:04:05 EndTime=2026-01-02T04:04:05 Deadline=N/A"
    assert slurm.parsed_end(text) == datetime(2026, 1, 2, 4, 4, 5).timestamp()
    assert slurm.parsed_end(text.replace("2026-01-02T04:04:05", "Unknown")) is None
    assert slurm.parsed_end("") is None


@posix
def test_scontrol_is_asked_for_the_end(scontrol: Scontrol) -> None:
    """In a child, with a deadline; what it cannot say is nothing."""
    calls = scontrol('[ "$4" = 7 ] && echo "JobId=7 EndTime=2026-01-02T04:04:05 "')
    assert slurm.asked_end("7") == datetime(2026, 1, 2, 4, 4, 5).timestamp()
    assert slurm.asked_end("8") is None
    assert calls.read_text().splitlines()[0] == "show job --oneliner 7"


@posix
def test_scontrol_that_hangs_is_given_up(
    scontrol: Scontrol, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Nothing waits for it longer than its deadline."""
    scontrol("exec sleep 60")
    monkeypatch.setattr(slurm, "ASK_TIMEOUT", 0.2)
    begun = time.monotonic()
    assert slurm.asked_end("7") is None
    with pytest.raises(TimeoutError):
        slurm.requeue("7")
    assert time.monotonic() - begun < 30.0


@pytest.fixture
def job(make_config: MakeConfig, monkeypatch: pytest.MonkeyPatch) -> AppConfig:
    """A config that asks for a requeue, in a process that is a job of SLURM."""
    monkeypatch.setenv("SLURM_JOB_ID", "7")
    return make_config(distributed={"requeue": True, "detect": False})


@posix
@pytest.mark.requirement("RANK-6")
@pytest.mark.parametrize("how", ["preempted", "cancelled", "completed"])
def test_a_preempted_run_is_requeued(job: AppConfig, scontrol: Scontrol, how: str) -> None:
    """Once its end is recorded, and no other run."""
    calls = scontrol('grep -q "\\"preempted\\"" runs/r/session.json || exit 3')
    session = SessionManager(job, run_name="r")
    if how == "preempted":
        with pytest.raises(SystemExit), session:
            session.preempt()
            session.log_metrics({"x": 1.0})
    else:
        with session:
            if how == "cancelled":
                session.finalize_session("cancelled")
    assert session.status == how
    assert calls.exists() == (how == "preempted")
    if how == "preempted":
        assert calls.read_text() == "requeue 7\n"


@posix
def test_the_last_session_of_a_process_asks(job: AppConfig, scontrol: Scontrol) -> None:
    """What SLURM then ends is no session that still saves."""
    calls = scontrol("")
    outer, inner = SessionManager(job, run_name="a"), SessionManager(job, run_name="b")
    with pytest.raises(SystemExit), outer:
        with pytest.raises(SystemExit), inner:
            inner.preempt()
            inner.log_metrics({"x": 1.0})
        assert not calls.exists()
        outer.preempt()
        outer.log_metrics({"x": 1.0})
    assert calls.read_text() == "requeue 7\n"


@posix
def test_a_requeue_that_is_refused_is_a_warning(
    job: AppConfig,
    scontrol: Scontrol,
    caplog: pytest.LogCaptureFixture,
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    """The run has ended as preempted all the same; outside of a job there is nothing to ask."""
    calls = scontrol('echo "Requested operation is presently disabled" >&2; exit 1')
    for name in ("r", "s"):
        session = SessionManager(job, run_name=name)
        with pytest.raises(SystemExit), session:
            session.preempt()
            session.log_metrics({"x": 1.0})
        assert session.status == "preempted"
        monkeypatch.delenv("SLURM_JOB_ID", raising=False)
    assert calls.read_text() == "requeue 7\n"
    assert "presently disabled" in caplog.text
    assert "no SLURM job" in caplog.text
