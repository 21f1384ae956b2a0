"""The evaluation log of a resumed run: the lines that an uninterrupted run would have."""

from __future__ import annotations

import errno
import json
import os
from collections.abc import Callable
from contextlib import suppress
from pathlib import Path
from typing import Any

import pytest

from keisei import AsyncSessionManager, SessionManager
from keisei._io.files import OpenDirectory
from keisei.journal.records import Position
from keisei.journal.superseding import RESUME, Cuts
from keisei.journal.writer import Journal
from keisei.session import evaluation_log
from keisei.session.evaluation_log import divided
from tests.conftest import MakeConfig

Lines = Callable[[str], list[tuple[int | None, Any]]]


@pytest.fixture
def lines(tmp_path: Path) -> Lines:
    """Read the lines of a file of the run: their steps and what they say."""

    def read(name: str) -> list[tuple[int | None, Any]]:
        path = tmp_path / "runs" / "r" / name
        found = path.read_text(encoding="utf-8").splitlines() if path.exists() else []
        said = [json.loads(line) for line in found]
        return [(line["step"], next(iter(line["values"].values()))) for line in said]

    return read


@pytest.mark.requirement("CKPT-7")
async def test_it_goes_on_from_the_checkpoint(make_config: MakeConfig, lines: Lines) -> None:
    """What was evaluated after it was taken is moved away, with texts, and without any step."""
    async with AsyncSessionManager(make_config(), run_name="r") as session:
        session.log_evaluation({"score": 1}, step=1)
        session.log_evaluation({"note": "before"})
        position = session._recorder.position()
        session.log_evaluation({"note": "after"})
        session.log_evaluation({"score": 2}, step=1)
        await session.finalize_session("preempted")
    async with AsyncSessionManager(make_config(), run_name="r") as session:
        session._recorder.resume(position, 1)
        session.log_evaluation({"score": 3}, step=2)
        await session.flush()
        assert lines("evaluation.log") == [(1, 1), (None, "before"), (2, 3)]
        session.log_evaluation({"score": 4}, step=3)
    assert lines("evaluation.log") == [(1, 1), (None, "before"), (2, 3), (3, 4)]
    assert lines("evaluation.superseded.log") == [(None, "after"), (1, 2)]


@pytest.mark.requirement("CKPT-7")
def test_a_program_with_checkpoints_of_its_own_says_the_step(
    make_config: MakeConfig, lines: Lines
) -> None:
    """The lines are cut where the rows are, whatever their own steps, attempt by attempt."""
    for first, last in ((0, 6), (3, 8), (5, 9)):
        with SessionManager(make_config(), run_name="r") as session:
            if first:
                session.resume_at(first - 1)
            for step in range(first, last):
                session.log_metrics({"loss": 1.0}, step=step)
                session.log_evaluation({"score": step}, step=0)
    assert lines("evaluation.log") == [(0, step) for step in range(9)]
    assert lines("evaluation.superseded.log") == [(0, step) for step in (3, 4, 5, 5, 6, 7)]


def test_without_a_resume_nothing_moves(make_config: MakeConfig, lines: Lines) -> None:
    """An attempt that says nothing adds its lines."""
    for score in (1, 2):
        with SessionManager(make_config(), run_name="r") as session:
            session.log_evaluation({"score": score}, step=7)
    assert lines("evaluation.log") == [(7, 1), (7, 2)]
    assert lines("evaluation.superseded.log") == []


def test_torn_lines_do_not_hold_and_old_ones_do() -> None:
    """A kill may tear the last line; lines of an earlier version have no position."""
    cuts = Cuts()
    cuts.add(Position(1, 3), Position(2, 0))
    old = b'{"time": "t", "step": 9, "values": {}}\n'
    at = b'{"attempt": 1, "seq": %d}\n'
    whole = old + at % 3
    torn = at % 4 + b'{"attempt": 1, "s\n' + b"[]\n" + b"[" * 10_000 + b"\n"
    assert divided(whole + torn, cuts) == (whole, torn)


@pytest.fixture
def run(tmp_path: Path) -> Path:
    """A run whose second attempt has resumed from before its third line."""
    with Journal(str(tmp_path), 1) as journal:
        for seq in range(4):
            journal.log_metrics({"evaluation/score": seq}, seq)
    with Journal(str(tmp_path), 2) as journal:
        journal.log_event(RESUME, {"attempt": 1, "seq": 1})
    said = [{"values": {"score": seq}, "attempt": 1, "seq": seq} for seq in range(4)]
    (tmp_path / "evaluation.log").write_text("".join(f"{json.dumps(line)}\n" for line in said))
    return tmp_path


def scores(path: Path) -> list[int]:
    """Return the scores of a log's lines."""
    text = path.read_text() if path.exists() else ""
    return [json.loads(line)["values"]["score"] for line in text.splitlines()]


OPERATIONS = ["open", "write", "fsync", "replace", "unlink"]


@pytest.mark.requirement("CKPT-7")
@pytest.mark.parametrize("operation", OPERATIONS)
@pytest.mark.parametrize("number", range(6))
def test_no_line_is_lost_where_it_fails(
    run: Path, monkeypatch: pytest.MonkeyPatch, operation: str, number: int
) -> None:
    """Whichever operation fails, all lines are there; once more, and each is where it belongs."""
    real, calls = getattr(os, operation), 0

    def faulty(*args: Any, **kwargs: Any) -> Any:
        nonlocal calls
        calls += 1
        if calls > number:
            raise OSError(errno.EIO, "faulty")
        return real(*args, **kwargs)

    with OpenDirectory(str(run)) as directory:
        with monkeypatch.context() as patched:
            patched.setattr(os, operation, faulty)
            with suppress(OSError):
                evaluation_log.cut(directory)
        log, moved = run / "evaluation.log", run / "evaluation.superseded.log"
        assert {*scores(log), *scores(moved)} == {0, 1, 2, 3}
        evaluation_log.cut(directory)
        evaluation_log.cut(directory)
    assert (scores(log), scores(moved)) == ([0, 1], [2, 3])
    assert sorted(path.name for path in run.glob("*eval*")) == [log.name, moved.name]
