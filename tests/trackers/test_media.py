"""What trackers get of a run's media, and what they make of it with their own tools."""

from __future__ import annotations

import json
from collections.abc import Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import pytest

from keisei import SessionManager
from keisei.journal.reader import read_run
from keisei.testing import MemoryRun, MemoryTracker
from keisei.trackers.base import Media, Record, Row, RunInfo, TrackerRun
from tests.conftest import MakeConfig
from tests.support.media_runs import KINDS, log_one_of_each
from tests.support.wandb_file import find_run_files, wait_for_exit_record


@dataclass
class ShowingRun(MemoryRun):
    """A run in memory that shows some kinds."""

    media: Sequence[str] = ()


@dataclass
class ShowingTracker(MemoryTracker):
    """Keeps in memory what it is sent, media of some kinds included."""

    kinds: Sequence[str] = field(default_factory=list)

    def start(self, run: RunInfo) -> MemoryRun:
        """Start a run."""
        started = ShowingRun(run, media=self.kinds)
        self.runs.append(started)
        return started


def records(tracker: MemoryTracker) -> list[Record]:
    """Return all that a tracker was sent."""
    return [record for run in tracker.runs for record in run.records]


@pytest.mark.requirement("MEDIA-1")
def test_a_tracker_gets_the_kinds_that_it_shows_among_the_rows(make_config: MakeConfig) -> None:
    """Each in its place, with its file; the others are counted."""
    tracker = ShowingTracker(kinds=["image", "text"])
    with SessionManager(make_config(), run_name="r") as session:
        session.setup_remote_logging(tracker)
        log_one_of_each(session)
        directory = session.run_artifact_dir
    got = records(tracker)
    assert [type(one) for one in got] == [Row, Media, Media, Row]
    media = [one for one in got if isinstance(one, Media)]
    assert media == read_run(directory).media("samples/cat") + read_run(directory).media("story")
    summary = session.get_session_summary()["trackers"]["memory"]
    assert (summary["media_left_out"], summary["behind"]) == (6, 0)


def test_a_tracker_without_media_gets_none_and_no_event_of_them(make_config: MakeConfig) -> None:
    """What was written for the protocol before goes on as it did."""
    tracker = MemoryTracker()
    with SessionManager(make_config(), run_name="r") as session:
        session.setup_remote_logging(tracker)
        log_one_of_each(session)
    assert [type(one) for one in records(tracker)] == [Row, Row]
    assert session.get_session_summary()["trackers"]["memory"]["media_left_out"] == len(KINDS)


def test_a_tracker_that_comes_later_gets_no_media_that_were_left_behind(
    make_config: MakeConfig,
) -> None:
    """As it gets no such rows."""
    for attempt in (1, 2):
        with SessionManager(make_config(), run_name="r") as session:
            if attempt == 2:
                session.resume_at(1)
            for step in range(2 * attempt - 2, 4):
                session.log_metrics({"loss": 1.0}, step)
                session.log_text("t", f"{attempt} {step}", step)
            session.flush()
    tracker = ShowingTracker(kinds=KINDS)
    with SessionManager(make_config(), run_name="r") as session:
        session.setup_remote_logging(tracker)
        session.log_metrics({"loss": 1.0}, 4)
    got = [(one.attempt, one.step) for one in records(tracker) if isinstance(one, Media)]
    assert got == [(1, 0), (1, 1), (2, 2), (2, 3)]


def test_a_run_that_names_no_kinds_is_a_broken_tracker(make_config: MakeConfig) -> None:
    """What it says is checked where it is taken."""
    tracker = ShowingTracker(kinds=["picture"])
    with SessionManager(make_config(), run_name="r") as session:
        session.setup_remote_logging(tracker)
        log_one_of_each(session)
    problem = session.get_session_summary()["trackers"]["memory"]["problem"]
    assert "picture" in problem


def test_tensorboard_shows_images_audio_histograms_and_texts(make_config: MakeConfig) -> None:
    """Its own reader finds each by its plugin; a file is left out and counted."""
    accumulator = pytest.importorskip("tensorboard.backend.event_processing.event_accumulator")
    with SessionManager(make_config(tracking={"trackers": ["tensorboard"]})) as session:
        log_one_of_each(session)
        directory = Path(session.run_artifact_dir, "tensorboard")
    found = accumulator.EventAccumulator(str(directory), {"tensors": 0, "images": 0, "audio": 0})
    found.Reload()
    tags = found.Tags()
    everything = {
        tag for kind in ("tensors", "images", "audio", "histograms") for tag in tags[kind]
    }
    assert everything >= {
        *("image/samples/cat", "figure/curve", "video/episode", "audio/sound"),
        *("histogram/weights", "keisei/table/completions", "keisei/text/story"),
    }
    assert session.get_session_summary()["trackers"]["tensorboard"]["media_left_out"] == 1
    assert session.get_session_summary()["trackers"]["tensorboard"]["behind"] == 0


@pytest.mark.filterwarnings("ignore:The ``noload`` loader strategy:DeprecationWarning")
def test_mlflow_has_artifacts_where_its_pages_look(make_config: MakeConfig, tmp_path: Path) -> None:
    """An image by the name that MLflow gives it, a table that MLflow loads, and files."""
    mlflow = pytest.importorskip("mlflow")
    uri = f"sqlite:///{tmp_path}/mlflow.db"
    config = make_config(tracking={"trackers": {"mlflow": {"tracking_uri": uri}}})
    with SessionManager(config) as session:
        log_one_of_each(session)
        record = session.get_session_summary()["trackers"]["mlflow"]
    record = session.get_session_summary()["trackers"]["mlflow"]
    assert (record["media_left_out"], record["behind"], record["problem"]) == (0, 0, None)
    client = mlflow.MlflowClient(uri)
    folders = sorted(one.path for one in client.list_artifacts(record["run_id"]))
    assert folders == ["images", "media", "tables"]
    images = [one.path for one in client.list_artifacts(record["run_id"], "images")]
    assert any(path.startswith("images/samples#cat%step%3%timestamp%") for path in images)
    tag = json.loads(client.get_run(record["run_id"]).data.tags["mlflow.loggedArtifacts"])
    assert tag[0]["type"] == "table"
    table = Path(client.download_artifacts(record["run_id"], tag[0]["path"]))
    assert json.loads(table.read_text())["columns"] == ["text", "r", "p"]


def test_trackio_has_copies_and_values_that_name_them(
    make_config: MakeConfig, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """In the very form in which its dashboard reads them."""
    pytest.importorskip("trackio")
    import sqlite3

    monkeypatch.setenv("TRACKIO_DIR", str(tmp_path / "trackio"))
    with SessionManager(make_config(tracking={"trackers": ["trackio"]})) as session:
        log_one_of_each(session)
    record = session.get_session_summary()["trackers"]["trackio"]
    assert (record["media_left_out"], record["behind"], record["problem"]) == (1, 0, None)
    values: dict[str, Any] = {}
    (database,) = (tmp_path / "trackio").glob("keisei*.db")
    with sqlite3.connect(database) as connection:
        for (text,) in connection.execute("SELECT metrics FROM metrics"):
            values |= json.loads(text)
    connection.close()
    kinds = {name: value["_type"] for name, value in values.items() if isinstance(value, dict)}
    assert kinds == {
        "image/samples/cat": "trackio.image",
        "figure/curve": "trackio.image",
        "video/episode": "trackio.video",
        "audio/sound": "trackio.audio",
        "histogram/weights": "trackio.histogram",
        "table/completions": "trackio.table",
        "text/story": "trackio.markdown",
    }
    file = tmp_path / "trackio" / "media" / values["image/samples/cat"]["file_path"]
    assert file.read_bytes().startswith(b"\x89PNG")
    cell = values["table/completions"]["_value"][0]["p"]
    assert (tmp_path / "trackio" / "media" / cell["file_path"]).is_file()


def test_wandb_has_its_own_objects_and_artifacts(make_config: MakeConfig) -> None:
    """In the run's file: each under its name, with the step, and the row behind them."""
    pytest.importorskip("wandb")
    config = make_config(logging={"wandb_enabled": True}, wandb={"mode": "offline"})
    with SessionManager(config) as session:
        log_one_of_each(session)
    record = session.get_session_summary()["trackers"]["wandb"]
    assert (record["media_left_out"], record["behind"], record["problem"]) == (0, 0, None)
    (path,) = find_run_files(Path(session.run_artifact_dir))
    rows = wait_for_exit_record(path).history
    kinds = {
        name: value["_type"]
        for row in rows
        for name, value in row.items()
        if isinstance(value, dict)
    }
    assert kinds == {
        "image/samples/cat": "image-file",
        "figure/curve": "image-file",
        "video/episode": "video-file",
        "audio/sound": "audio-file",
        "histogram/weights": "histogram",
        "table/completions": "html-file",
        "text/story": "html-file",
    }
    steps = [row.get("global_step") for row in rows if "image/samples/cat" in row]
    assert steps == [3]
    assert [row["loss"] for row in rows if "loss" in row] == [1.0, 2.0]


def test_the_protocol_has_no_media_by_default() -> None:
    """A tracker's run that derives from the protocol shows none."""
    assert TrackerRun.media == ()
