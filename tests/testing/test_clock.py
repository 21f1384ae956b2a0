"""The clock for tests: all that keisei writes of the wall clock comes from it."""

from __future__ import annotations

import os
import re
import threading
import time
from datetime import UTC, datetime
from pathlib import Path

import pytest

from keisei import SessionManager, generate_run_name
from keisei.journal.reader import read_run
from keisei.testing import Clock
from tests.conftest import MakeConfig

STAMP = re.compile(r"20\d\d-\d\d-\d\d[T ]\d\d:\d\d:\d\d[.\d]*(?:[+-]\d\d:?\d\d|Z)?")


@pytest.fixture
def clock(monkeypatch: pytest.MonkeyPatch) -> Clock:
    made = Clock(datetime(2031, 5, 6, 7, 8, 9, tzinfo=UTC))
    made.install(monkeypatch.setattr)
    return made


@pytest.mark.requirement("TEST-1")
def test_whatever_a_session_writes_has_the_clocks_time(
    make_config: MakeConfig, clock: Clock
) -> None:
    """Rows, events, evaluations, media, checkpoints, logs and the session file have no other."""
    begun, began = clock.now, time.time()
    with SessionManager(make_config()) as session:
        session.log_metrics({"loss": 1.0}, step=1)
        session.log_event("phase", {"name": "warm-up"})
        session.log_evaluation({"score": 1.0}, step=1)
        session.log_text("note", "a line", step=1)
        session.save_checkpoint({"weights": [1.0]}, step=1)
        session.flush()
        clock.advance(90)
        session.log_metrics({"loss": 0.5}, step=2)
    ended = begun.timestamp() + 90
    journal = read_run(session.run_artifact_dir)
    times = [one.time for one in journal.rows()] + [one.time for one in journal.events()]
    times += [one.time for one in journal.media()]
    assert {begun.timestamp(), ended} == set(times)
    stamps: set[datetime] = set()
    for folder, _, files in os.walk(session.run_artifact_dir):
        for name in files:
            text = (Path(folder) / name).read_bytes().decode(errors="replace")
            stamps |= {datetime.fromisoformat(found) for found in STAMP.findall(text)}
            assert str(int(began))[:8] not in text, name
    assert {begun, clock.now} == stamps


@pytest.mark.requirement("TEST-1")
def test_names_and_ids_are_the_same_in_each_test(
    make_config: MakeConfig, clock: Clock, monkeypatch: pytest.MonkeyPatch
) -> None:
    """They come of the clock alone, are in order, and no two of a test are the same."""

    def made() -> list[str]:
        sessions = [SessionManager(make_config(env={"seed": 3})) for _ in range(3)]
        return [session.run_name + session.session_id for session in sessions]

    assert generate_run_name() == "20310506-070809-0000-000000"
    Clock(clock.now).install(monkeypatch.setattr)
    first = made()
    assert first == sorted(set(first))
    Clock(clock.now).install(monkeypatch.setattr)
    assert made() == first


def test_the_rest_of_the_program_keeps_its_own_clock(clock: Clock) -> None:
    """The clock is keisei's alone, and deadlines are kept by the machine's."""
    assert abs(datetime.now(UTC).timestamp() - time.time()) < 60
    assert abs(time.time() - clock.time()) > 1000
    assert not threading.Event().wait(0.001)


def test_a_clock_goes_on_and_never_back(clock: Clock) -> None:
    """It moves as far as it is told; what is no time is refused."""
    clock.advance(0.5)
    assert clock.now == datetime(2031, 5, 6, 7, 8, 9, 500_000, tzinfo=UTC)
    with pytest.raises(ValueError, match="not go back"):
        clock.advance(-1)
    with pytest.raises(ValueError, match="no time zone"):
        Clock(datetime(2031, 1, 1))
