"""The position of a live journal: what a checkpoint has to know of it."""

from __future__ import annotations

import threading
from itertools import pairwise
from pathlib import Path
from typing import Any

import pytest

from keisei import AsyncSessionManager
from keisei._io.background_writer import Policy
from keisei.errors import JournalError
from keisei.journal.reader import read_run
from keisei.journal.records import Position
from keisei.journal.writer import Journal
from keisei.session.recorder import Recorder
from tests.conftest import MakeConfig
from tests.support.journal import Disk, hold, series


def test_it_counts_what_is_queued_rows_and_events(tmp_path: Path) -> None:
    """It is behind the last record that was logged, on the disk or not yet."""
    with Journal(str(tmp_path), 2, max_delay=3600) as journal:
        assert journal.position() == Position(2, -1)
        journal.log_metrics({"x": 1})
        journal.log_event("here")
        assert journal.position() == Position(2, 1)
        journal.flush(10)
        journal.log_metrics({"x": 2})
        assert journal.position() == Position(2, 2)
    assert journal.position() == Position(2, 2)
    assert [row.seq for row in read_run(tmp_path).rows()] == [0, 2]


@pytest.mark.parametrize("policy", ["drop_oldest", "latest"])
def test_dropped_rows_have_had_their_numbers(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, policy: Policy
) -> None:
    """What a full queue gives up leaves a gap, so that a position stays what it was."""
    disk = Disk(monkeypatch)
    journal = Journal(str(tmp_path), 1, capacity=4, policy=policy)
    hold(journal, disk)
    for x in range(20):
        journal.log_metrics({"x": x})
    position = journal.position()
    journal.log_metrics({"x": 20})
    disk.free.set()
    journal.close()
    numbers = {row.values.get("x"): row.seq for row in read_run(tmp_path).rows()}
    assert numbers[20] == position.seq + 1
    assert series(str(tmp_path))[-1] == 20


def test_it_is_exact_while_the_writer_drains_the_queue(tmp_path: Path) -> None:
    """Each position that was asked for between two rows of a thread is between their numbers."""
    asked: list[tuple[int, Position]] = []
    with Journal(str(tmp_path), 1, max_delay=0.0) as journal:
        over = threading.Event()

        def beside() -> None:
            while not over.is_set():
                journal.position()

        thread = threading.Thread(target=beside)
        thread.start()
        for x in range(20_000):
            journal.log_metrics({"x": x})
            if x % 7 == 0:
                asked.append((x, journal.position()))
        over.set()
        thread.join()
    numbers = {row.values["x"]: row.seq for row in read_run(tmp_path).rows()}
    assert all(position == Position(1, numbers[x]) for x, position in asked)
    assert all(one[1] < two[1] for one, two in pairwise(asked))


async def test_a_session_knows_it_before_and_after_its_first_row(make_config: MakeConfig) -> None:
    """Before the directories there is none; before the first row it is behind what was earlier."""
    config: Any = make_config()
    session = AsyncSessionManager(config, run_name="asked")
    assert session._recorder.position() is None
    async with session:
        assert session._recorder.position() == Position(1, -1)
        session.log_metrics({"x": 1})
        assert session._recorder.position() == Position(1, 0)
        session._recorder.resume(Position(1, -1), 3)
        assert session._recorder.position() == Position(1, 1)
    with pytest.raises(JournalError):
        session._recorder.resume(None, 3)
    async with AsyncSessionManager(config, run_name="asked") as session:
        assert session._recorder.position() == Position(2, -1)
    assert Recorder().position() is None
