"""The curves of a run that was resumed."""

from __future__ import annotations

import itertools
from pathlib import Path

import pytest

from keisei import SessionManager
from keisei.analysis.reading import read_curves
from tests.conftest import MakeConfig


def test_the_clock_stands_still_between_attempts_and_superseded_rows_are_none(
    make_config: MakeConfig, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """As a run has it that was never interrupted."""
    monkeypatch.setenv("KEISEI_LOG_DIR", str(tmp_path))
    seconds = itertools.count(1e9)  # each row comes a second after the one before it
    monkeypatch.setattr("keisei.journal.writer.time", lambda: next(seconds))
    for attempt, steps in ((0, (0, 1, 2)), (1, (2, 3))):
        with SessionManager(make_config(), run_name="r") as session:
            if attempt:
                session.resume_at(1)
            for step in steps:
                session.log_metrics({"loss": 10.0 * attempt + step, "x": 1.0}, step=step)
        if not attempt:  # a day goes by
            seconds = itertools.count(1e9 + 86400)
    found = read_curves(str(tmp_path / "r"), {"loss"}.__contains__)
    assert list(found) == ["loss"]
    assert found["loss"].steps == [0, 1, 2, 3]
    assert found["loss"].values == [0.0, 1.0, 12.0, 13.0]
    assert found["loss"].times == [0.0, 1.0, 1.0, 2.0]
