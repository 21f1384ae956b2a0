"""A tracker that answers nonsense is its own failure, and never the training's."""

from __future__ import annotations

import logging
import math
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import pytest

from keisei import AsyncSessionManager, TrackerError
from keisei.errors import describe
from keisei.testing import MemoryRun, MemoryTracker
from keisei.trackers.answers import position_of, record_of
from keisei.trackers.base import Record, RunInfo
from tests.conftest import MakeConfig
from tests.support.session_files import record_of as session_file_of


class Word(str):
    """A text of a tracker's own kind, which other processes do not know."""


class Unspeakable(Exception):
    """An error that cannot say what it is."""

    def __str__(self) -> str:
        raise RuntimeError("no words")


class Answering(MemoryTracker):
    """Its runs have one attribute, or one answer, that is not as it should be."""

    def __init__(self, **wrong: Any) -> None:
        super().__init__()
        self.wrong = wrong
        if "start_timeout" in wrong:
            self.start_timeout = wrong["start_timeout"]

    def start(self, run: RunInfo) -> MemoryRun:
        """Start a run, or return something else."""
        if "start" in self.wrong:
            answer: MemoryRun = self.wrong["start"]
            return answer
        wrong = self.wrong

        class Run(MemoryRun):
            def send(self, records: Sequence[Record]) -> None:
                """Keep the records, and do with the list what a tracker may do."""
                if "refuse" in wrong:
                    wrong["refuse"](records)
                super().send(records)
                if "send" in wrong:
                    wrong["send"](records)

            def position(self) -> Any:
                """Answer what it was told to."""
                return wrong["position"] if "position" in wrong else super().position()

            if "url" in wrong:
                url = property(wrong["url"])

        if "url" in wrong:
            started = Run.__new__(Run)
            started.info, started.records, started.ends = run, [], []
            started.run_id, started.mode = run.session_id, "offline"
        else:
            started = Run(run)
        for name in ("run_id", "directory", "mode", "upload_as", "options"):
            if name in wrong:
                setattr(started, name, wrong[name])
        self.runs.append(started)
        return started


def raises(run: object) -> str:
    """Raise, as a property may."""
    raise LookupError("no address yet")


def says_nothing(records: object) -> None:
    """Raise an error without words."""
    raise Unspeakable


@pytest.mark.parametrize(
    ("wrong", "problem"),
    [
        ({"start": None}, "start() returned None"),
        ({"start": object()}, "its run has no run_id"),
        ({"run_id": object()}, "its run's run_id is of the kind object"),
        ({"run_id": None}, "its run has no run_id"),
        ({"mode": "sideways"}, "its run's mode is 'sideways'"),
        ({"upload_as": ["x"]}, "its run's upload_as is of the kind list"),
        ({"url": raises}, "its run's url cannot be read (LookupError)"),
        ({"options": {"a": object()}}, "its run's options are no JSON object (TypeError)"),
        ({"options": 7}, "its run's options are no JSON object (TypeError)"),
        ({"options": {"a": "\ud800"}}, "its run's options are no JSON object (UnicodeEncodeError)"),
        ({"options": {"a": math.nan}}, "its run's options are no JSON object (ValueError)"),
        ({"run_id": "x" * 1_000_000}, "its run's run_id has more than 8,192 characters"),
        ({"start_timeout": None}, "its start_timeout is 'None', and not a number of seconds"),
        ({"start_timeout": "30"}, "its start_timeout is '30', and not a number of seconds"),
        ({"start_timeout": math.nan}, "its start_timeout is 'nan', and not a number of seconds"),
        ({"position": (1, None)}, "its position() returned '(1, None)'"),
        ({"position": 7}, "its position() returned '7'"),
        ({"position": ("1", "2")}, "its position() returned "),
        ({"position": (1, -2)}, "its position() returned '(1, -2)'"),
        ({"refuse": says_nothing}, "Unspeakable (its message cannot be read)"),
    ],
)
async def test_nonsense_is_the_trackers_failure(
    make_config: MakeConfig, caplog: pytest.LogCaptureFixture, wrong: dict[str, Any], problem: str
) -> None:
    """The run completes, the session file names what was wrong, and a warning says it."""
    config = make_config(tracking={"finish_timeout": 0.4}, journal={"max_delay": 0.0})
    async with AsyncSessionManager(config) as session:
        await session.setup_remote_logging(Answering(**wrong))
        session.log_metrics({"loss": 1.0})
        await session.flush()
    assert session.status == "completed"
    assert problem in str(session_file_of(session)["trackers"]["memory"]["problem"])
    warnings = [r.getMessage() for r in caplog.records if r.levelno >= logging.WARNING]
    assert any(problem in text for text in warnings)


@pytest.mark.parametrize("name", [None, 7, "", "x" * 65, "\ud800", "a\nb"])
async def test_a_tracker_without_a_name_is_one_warning(
    make_config: MakeConfig, caplog: pytest.LogCaptureFixture, name: Any
) -> None:
    """The run completes."""
    tracker = Answering()
    tracker.name = name
    async with AsyncSessionManager(make_config()) as session:
        assert await session.setup_remote_logging(tracker) is False
    assert session.status == "completed"
    (said,) = [r.getMessage() for r in caplog.records if r.levelno >= logging.WARNING]
    assert "a tracker's name is" in said


async def test_what_can_be_understood_is_taken(make_config: MakeConfig) -> None:
    """A number as id, a path as directory, a text of an own kind: each is plain text then."""
    tracker = Answering(
        run_id=7,
        directory=Path("/boards/\udcff"),
        upload_as=Word("other"),
        send=lambda r: r.clear(),
    )
    async with AsyncSessionManager(make_config()) as session:
        assert await session.setup_remote_logging(tracker) is True
        for step in range(3):
            session.log_metrics({"loss": 1.0}, step=step)
    known = session_file_of(session)["trackers"]["memory"]
    texts = [known[name] for name in ("run_id", "directory", "upload_as")]
    assert texts == ["7", "/boards/\\udcff", "other"]  # a path that is no UTF-8 is escaped
    assert type(record_of(tracker.runs[0]).upload_as) is str
    assert (known["state"], known["behind"]) == ("finished", 0)
    assert len(tracker.runs[0].records) == 3


def test_an_error_without_words_is_described() -> None:
    """Whatever an error does, its description is a line."""
    assert describe(Unspeakable()) == "Unspeakable (its message cannot be read)"
    with pytest.raises(TrackerError, match="no position"):
        position_of(Answering(position="x").start(RunInfo("s", "r", 1, "/", "{}")))
