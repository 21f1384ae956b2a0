"""Numbers that are still being computed: no call waits for them, and rows keep their order."""

from __future__ import annotations

import logging
import math
import threading
from pathlib import Path
from typing import Any

import pytest

from keisei import AsyncSessionManager, SessionManager
from keisei.journal.reader import read_run
from keisei.journal.writer import Journal
from tests.conftest import MakeConfig
from tests.support.journal import series


class Dispatched:
    """What jax returns for a number: it is there when the gate opens, or never will be."""

    ndim = 0

    def __init__(self, gate: threading.Event, value: float, error: str = "") -> None:
        self._gate, self._value, self._error = gate, value, error
        self.readers: list[str] = []

    def block_until_ready(self) -> Dispatched:
        """Wait for it."""
        assert self._gate.wait(60)
        return self

    def item(self) -> float:
        """Wait for it, and return it."""
        self.readers.append(threading.current_thread().name)
        self.block_until_ready()
        if self._error:
            raise RuntimeError(self._error)
        return self._value


class OnDevice:
    """What torch returns for a number on a GPU, which operations in place change."""

    ndim = 0
    device = "cuda:0"

    def __init__(self, value: float) -> None:
        self.value = value
        self.readers: list[str] = []

    def detach(self) -> OnDevice:
        """Return the same number."""
        return self

    def clone(self) -> OnDevice:
        """Return a copy."""
        copy = OnDevice(self.value)
        copy.readers = self.readers
        return copy

    def item(self) -> float:
        """Return the number."""
        self.readers.append(threading.current_thread().name)
        return self.value


def test_no_call_waits_and_the_order_is_kept(tmp_path: Path) -> None:
    """Rows before, with and behind such a number are in the file in the order of their calls."""
    gate = threading.Event()
    late = Dispatched(gate, 0.25)
    with Journal(str(tmp_path), 1) as journal:
        for step in range(3):
            journal.log_metrics({"x": 1.0}, step)
        journal.log_metrics({"x": late}, 3)
        journal.log_metrics({"x": 2.0, "deep": {"y": late}}, Dispatched(gate, 4))  # type: ignore[arg-type]
        journal.log_event("after", 5)
        for step in range(6, 9):
            journal.log_metrics({"x": 3.0}, step)
        assert late.readers == [] or set(late.readers) == {"keisei-writer"}
        with pytest.raises(TimeoutError):
            journal.flush(0.01)
        gate.set()
        journal.flush(30)
    assert set(late.readers) == {"keisei-writer"}
    run = read_run(tmp_path)
    assert [row.step for row in run.rows()] == [0, 1, 2, 3, 4, 6, 7, 8]
    assert series(str(tmp_path)) == [1.0] * 3 + [0.25, 2.0] + [3.0] * 3
    assert series(str(tmp_path), "deep/y") == [0.25]
    assert [(event.seq, event.data) for event in run.events()] == [(5, 5)]


def test_what_could_not_be_read_is_said_once(
    tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    """It is NaN, its row keeps its other numbers, and the warning names metric and step."""
    gate = threading.Event()
    gate.set()
    with Journal(str(tmp_path), 1) as journal, caplog.at_level(logging.WARNING):
        for step in range(7, 10):
            journal.log_metrics({"loss": Dispatched(gate, 0, "deleted"), "x": float(step)}, step)
        journal.log_metrics({"x": 1.0}, Dispatched(gate, 1.5))  # type: ignore[arg-type]
    assert all(math.isnan(value) for value in series(str(tmp_path), "loss"))
    assert read_run(tmp_path).columns("x") == ([7, 8, 9, None], [7.0, 8.0, 9.0, 1.0])
    said = [record.getMessage() for record in caplog.records]
    assert len(said) == 2
    assert "'loss' at step 7 " in said[0]
    assert "RuntimeError: deleted" in said[0]
    assert "the step of a row" in said[1]


def test_what_is_changed_in_place_is_logged_as_it_was(tmp_path: Path) -> None:
    """A sum on a GPU that is set to zero after the call was logged before it."""
    total = OnDevice(0.5)
    with Journal(str(tmp_path), 1, max_delay=3600) as journal:
        journal.log_metrics({"x": total})
        total.value = 0.0
    assert series(str(tmp_path)) == [0.5]
    assert total.readers == ["keisei-writer"]


def test_what_is_on_the_cpu_is_read_at_the_call(tmp_path: Path) -> None:
    """Where nothing can block, the number is that of the call, and a wrong one is its error."""

    class Local(OnDevice):
        device = "cpu"

    value = Local(0.5)
    with Journal(str(tmp_path), 1) as journal:
        journal.log_metrics({"x": value})
        assert value.readers == [threading.current_thread().name]


async def test_a_session_hands_them_on(make_config: MakeConfig) -> None:
    """No method of a session waits for one: neither metrics nor an evaluation, nor its step."""
    gate = threading.Event()
    late: Any = Dispatched(gate, 0.25)
    async with AsyncSessionManager(make_config()) as session:
        session.log_metrics({"x": late}, step=late)
        session.log_evaluation({"score": late, "list": [late, 1]}, step=Dispatched(gate, 3))  # type: ignore[arg-type]
        gate.set()
    assert set(late.readers) == {"keisei-writer"}


def test_an_evaluation_is_written_when_it_is_there(make_config: MakeConfig) -> None:
    """Its line and its metrics have the number, in lists too; what cannot be read is NaN."""
    gate = threading.Event()
    with SessionManager(make_config()) as session:
        for value in (Dispatched(gate, 0.25), Dispatched(gate, 0, "donated")):
            session.log_evaluation({"score": value, "list": [value, {"deep": value}]}, 3)
        gate.set()
    lines = Path(session.eval_log_file_path).read_text().splitlines()
    assert '"values": {"score": 0.25, "list": [0.25, {"deep": 0.25}]}' in lines[0]
    assert '"values": {"score": "NaN", "list": ["NaN", {"deep": "NaN"}]}' in lines[1]
    first, second = series(session.run_artifact_dir, "evaluation/score")
    assert first == 0.25
    assert math.isnan(second)
