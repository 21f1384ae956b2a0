"""A run's record is rebuilt from what the training log says, and from nothing else."""

from __future__ import annotations

from pathlib import Path

import pytest

from keisei import SessionManager
from keisei._io import process
from keisei.run.failure import Failure
from keisei.run.log_lines import end_line, gone_line, start_line
from keisei.run.rebuild import UNKNOWN, rebuilt_record, salvaged_owner
from keisei.run.session_file import Owner, SessionRecord
from tests.conftest import MakeConfig

ID = "01JD0000000000000000000000"
OTHER = "01JD0000000000000000000001"
PATHS = {"run_artifact_dir": "/runs/r"}
T1, T2, T3 = (f"2026-01-31T09:30:0{n}.250+01:00" for n in range(3))


def rebuilt(*lines: str) -> SessionRecord | None:
    """Rebuild the record of run `r` from log lines."""
    return rebuilt_record("".join(f"{line}\n" for line in lines), "r", PATHS)


def test_an_attempt_without_an_end_has_failed() -> None:
    """The start line gives id, attempt and time; the owner is nobody, who does not live."""
    record = rebuilt("epoch 1", start_line(T1, "r", ID, 3), "epoch 2")
    assert record == SessionRecord(
        session_id=ID,
        run_name="r",
        attempt=3,
        status="failed",
        owner=UNKNOWN,
        started_at=T1,
        paths=PATHS,
    )
    assert SessionRecord.parsed(record.text()) == record
    assert process.process_start(UNKNOWN.pid) is None


@pytest.mark.parametrize("status", ["completed", "failed", "cancelled", "preempted"])
def test_an_end_line_tells_how_the_attempt_ended(status: str) -> None:
    """The end after the last start counts, with its time and its duration."""
    record = rebuilt(start_line(T1, "r", ID, 1), end_line(T2, "r", status, 1.25))  # type: ignore[arg-type]
    assert record is not None
    assert (record.status, record.ended_at, record.duration_s) == (status, T2, 1.25)


def test_an_end_line_tells_why_the_attempt_failed() -> None:
    """The error's type and message come back; where it was is part of the message."""
    failure = Failure(type="RuntimeError", message="CUDA: no memory", place="/t.py:3 in main")
    record = rebuilt(start_line(T1, "r", ID, 1), end_line(T2, "r", "failed", 1.25, failure))
    assert record is not None
    assert record.duration_s == 1.25
    assert str(record.failure) == str(failure)


def test_an_owner_that_was_found_gone_ended_at_its_last_sign_of_life() -> None:
    """The time in the line counts, and not when the line was written."""
    for owner in (UNKNOWN, None):
        record = rebuilt(start_line(T1, "r", ID, 1), gone_line(T3, "r", T2, owner))
        assert record is not None
        assert (record.status, record.ended_at, record.duration_s) == ("failed", T2, None)


def test_the_last_start_counts() -> None:
    """An earlier attempt's end says nothing of the last one, and another id is another run."""
    first = [start_line(T1, "r", ID, 1), end_line(T2, "r", "completed", 1.0)]
    again = rebuilt(*first, start_line(T3, "r", ID, 2))
    assert again is not None
    assert (again.attempt, again.status, again.ended_at) == (2, "failed", None)
    other = rebuilt(*first, start_line(T3, "r", OTHER, 1))
    assert other is not None
    assert (other.session_id, other.attempt) == (OTHER, 1)


def test_a_start_line_torn_at_any_byte_never_lowers_the_attempt() -> None:
    """Where the last start is cut, the record is the earlier attempt's or its own."""
    first, last = start_line(T1, "r", ID, 11), start_line(T3, "r", ID, 12)
    for cut in range(len(last) + 1):
        record = rebuilt_record(f"{first}\n{last[:cut]}", "r", PATHS)
        assert record is not None
        assert (record.session_id, record.attempt) == (ID, 12 if cut == len(last) else 11)


@pytest.mark.parametrize(
    "line",
    [
        "",
        "session started: run r, id 01JD0000000000000000000000, attempt 1",
        f"[{T1}] session started: run r, id {ID[:-1]}, attempt 1",
        f"[{T1}] session started: run r, id {ID[:-1]}U, attempt 1",
        f"[{T1}] session started: run r, id {ID}, attempt 0",
        f"[{T1}] session started: run r, id {ID}, attempt {'9' * 5000}",
        f"[{T1}] session started: run r, id {ID}, attempt \N{SUPERSCRIPT TWO}",
        f"[{T1}] session started: run ../r, id {ID}, attempt 1",
        f"[yesterday] session started: run r, id {ID}, attempt 1",
        f"said: [{T1}] session started: run r, id {ID}, attempt 1",
        f"[{T1}] session started: run r, id {ID}, attempt 1, or so",
        end_line(T1, "r", "completed", 1.0),
    ],
    ids=lambda line: line[:12] + line[-20:],
)
def test_what_is_no_start_line_rebuilds_nothing(line: str) -> None:
    """Only a whole start line as keisei writes it is believed."""
    assert rebuilt(line) is None
    kept = rebuilt(start_line(T1, "r", ID, 1), line)
    assert kept is not None
    assert kept.session_id == ID


def test_what_a_session_wrote_is_rebuilt(make_config: MakeConfig) -> None:
    """The log of two real attempts gives back their own record, but for owner and start.

    What has begun the attempt is not in the log, either.
    """
    for _ in range(2):
        with SessionManager(make_config(), run_name="r") as session:
            pass
    run = Path(session.run_artifact_dir)
    truth = SessionRecord.parsed((run / "session.json").read_bytes())
    assert truth is not None
    record = rebuilt_record((run / "training.log").read_text("utf-8"), "r", truth.paths)
    assert record is not None
    assert record.attempt == 2
    assert record.started_at >= truth.started_at
    assert abs((truth.duration_s or 0.0) - (record.duration_s or 9.0)) < 0.001
    same = {"owner": UNKNOWN, "started_at": record.started_at, "duration_s": record.duration_s}
    same["started_by"] = None
    assert record == truth.model_copy(update=same)


def test_the_owner_is_salvaged_from_a_damaged_record_while_it_is_whole_there() -> None:
    """However the record is cut, its owner is found whole or not at all; an ended run has none."""
    owner = Owner(host="h", pid=12, process_start="boot/34")
    record = SessionRecord(
        session_id=ID,
        run_name="r",
        attempt=1,
        status="running",
        owner=owner,
        started_at=T1,
        paths=PATHS,
    )
    text = record.text()
    found = [salvaged_owner(text[:cut]) for cut in range(len(text))]
    first = next(cut for cut, owner in enumerate(found) if owner is not None)
    assert text[:first].endswith(b"}")
    assert found == [None] * first + [owner] * (len(text) - first)
    for status in ("completed", "failed", "cancelled", "preempted"):
        ended = record.model_copy(update={"status": status}).text()
        assert salvaged_owner(ended[:-3]) is None
