"""What launchers set for MLflow (`mlflow run`, Databricks jobs): the run and the experiment."""

from __future__ import annotations

import logging
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

from keisei.errors import TrackerError
from keisei.journal.records import Row
from keisei.run.names import new_session_id
from keisei.trackers.base import Position, RunInfo
from keisei.trackers.mlflow.tracker import MlflowTracker

pytestmark = [
    pytest.mark.filterwarnings("ignore:The ``noload`` loader strategy:DeprecationWarning"),
]


@pytest.fixture(scope="module")
def client(tmp_path_factory: pytest.TempPathFactory) -> Any:
    """Return MLflow's own client of a database that all tests here share."""
    import mlflow

    path = tmp_path_factory.mktemp("mlflow") / "mlflow.db"
    return mlflow.MlflowClient(tracking_uri=f"sqlite:///{path.as_posix()}")


@pytest.fixture
def start(client: Any) -> Callable[..., Any]:
    """Return what starts a session's run."""

    def start(session_id: str = "", attempt: int = 1, **options: Any) -> Any:
        info = RunInfo(session_id or new_session_id(), "r", attempt, "/runs/r", "{}")
        return MlflowTracker(client.tracking_uri, **options).start(info)

    return start


def warnings_in(caplog: pytest.LogCaptureFixture) -> list[str]:
    """Return what was warned of."""
    return [r.getMessage() for r in caplog.records if r.levelno >= logging.WARNING]


def test_the_run_of_a_launcher_is_taken_by_one_session(
    client: Any,
    start: Callable[..., Any],
    monkeypatch: pytest.MonkeyPatch,
    caplog: pytest.LogCaptureFixture,
) -> None:
    """Its next attempt has it again, without the variable too; another session has its own."""
    experiment = client.create_experiment("launched")
    launched = client.create_run(experiment).info.run_id
    monkeypatch.setenv("MLFLOW_RUN_ID", launched)
    session_id = new_session_id()
    run = start(session_id, experiment="not this one")
    assert run.run_id == launched
    assert run.options["experiment"] == "launched"
    run.send([Row(0, 1.0, 0, 1, {"x": 0.5})])
    assert run.rewind(Position(1, -1)) is False  # the launcher waits for this very run
    run.finish("completed")
    assert client.get_run(launched).data.metrics == {"x": 0.5}
    assert client.get_run(launched).info.status == "FINISHED"
    assert start(session_id, 2).run_id == launched
    assert warnings_in(caplog) == []
    other = start()
    assert other.run_id != launched
    (said,) = warnings_in(caplog)
    assert "MLFLOW_RUN_ID" in said
    assert "another session's" in said
    monkeypatch.delenv("MLFLOW_RUN_ID")
    assert start(session_id, 3, **{"experiment": "launched"}).run_id == launched


def test_an_earlier_attempts_run_goes_before_that_of_a_launcher(
    client: Any,
    start: Callable[..., Any],
    monkeypatch: pytest.MonkeyPatch,
    caplog: pytest.LogCaptureFixture,
) -> None:
    """That is said."""
    experiment = client.create_experiment("relaunched")
    session_id = new_session_id()
    first = start(session_id, experiment="relaunched")
    monkeypatch.setenv("MLFLOW_RUN_ID", client.create_run(experiment).info.run_id)
    assert start(session_id, 2).run_id == first.run_id
    (said,) = warnings_in(caplog)
    assert "not the one of its earlier attempts" in said


@pytest.mark.parametrize("deleted", [False, True])
def test_a_run_that_is_not_there_is_said(
    client: Any,
    start: Callable[..., Any],
    monkeypatch: pytest.MonkeyPatch,
    caplog: pytest.LogCaptureFixture,
    deleted: bool,
) -> None:
    """The session's own is tracked."""
    gone = "0" * 32
    if deleted:
        gone = client.create_run("0").info.run_id
        client.delete_run(gone)
    monkeypatch.setenv("MLFLOW_RUN_ID", gone)
    assert start().run_id != gone
    (said,) = warnings_in(caplog)
    assert "MLFLOW_RUN_ID names no run" in said


def test_an_experiment_is_found_by_its_id(
    client: Any, start: Callable[..., Any], monkeypatch: pytest.MonkeyPatch
) -> None:
    """A name goes before it, as in MLflow; one that is not there is an error."""
    experiment = client.create_experiment("by id")
    monkeypatch.setenv("MLFLOW_EXPERIMENT_ID", experiment)
    run = start()
    assert client.get_run(run.run_id).info.experiment_id == experiment
    assert run.options["experiment"] == "by id"
    named = start(experiment="by name")
    assert client.get_run(named.run_id).info.experiment_id != experiment
    monkeypatch.setenv("MLFLOW_EXPERIMENT_ID", "4711")
    with pytest.raises(TrackerError, match="MLFLOW_EXPERIMENT_ID names no experiment"):
        start()


def test_the_database_is_where_the_session_file_says(start: Callable[..., Any]) -> None:
    """An absolute path."""
    assert Path(start().directory).is_file()
