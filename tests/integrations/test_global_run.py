"""Libraries that log to W&B's global run log to the session, and end nothing."""

from __future__ import annotations

from pathlib import Path

import pytest

from keisei import AppConfig, SessionManager
from keisei.integrations.attached import Attached
from keisei.integrations.wandb import as_global_run
from keisei.journal.reader import read_run

numpy = pytest.importorskip("numpy")
wandb = pytest.importorskip("wandb")


def session_in(root: Path) -> SessionManager[AppConfig]:
    config = AppConfig.model_validate({"logging": {"log_dir": str(root)}})
    return SessionManager(config, run_name="global")


def test_what_a_library_logs_is_the_sessions(tmp_path: Path) -> None:
    """Rows, config, summary and files are in the run; `init` and `finish` start and end nothing."""
    (tmp_path / "model.zip").write_text("a model")
    with session_in(tmp_path) as session, as_global_run(session) as run:
        assert wandb.run is run is wandb.init(project="any", config={"first": 1})
        wandb.config.update({"learning_rate": 0.1}, allow_val_change=True)
        wandb.config.depth = 2
        wandb.log({"loss": 1.0}, commit=False)
        wandb.log({"accuracy": 0.5, "nested": {"a": 1}}, step=3)
        wandb.run.summary["best"] = 0.5
        wandb.define_metric("*", step_metric="epoch")
        wandb.save(str(tmp_path / "model.zip"), base_path=str(tmp_path))
        wandb.finish()
        assert session.status == "running"
        wandb.log({"loss": 0.5}, step=4)
    found = read_run(session.run_artifact_dir)
    rows = [row for row in found.rows() if not next(iter(row.values)).startswith("system/")]
    values = [(row.step, row.values) for row in rows]
    assert values == [(3, {"loss": 1.0, "accuracy": 0.5, "nested/a": 1}), (4, {"loss": 0.5})]
    events = {event.name: event.data for event in found.events()}
    assert events["wandb.config"] == {"first": 1, "learning_rate": 0.1, "depth": 2}
    assert events["wandb.summary"] == {"best": 0.5}
    assert [medium.name for medium in found.media()] == ["files/model.zip"]


def test_a_metric_that_is_named_as_the_steps_is_the_step(tmp_path: Path) -> None:
    """So logs transformers, whose rows have no step of their own; what is not whole is none."""
    with session_in(tmp_path) as session, as_global_run(session):
        wandb.log({"loss": 3.0, "train/global_step": 1})
        wandb.run.define_metric("train/global_step")
        wandb.run.define_metric("*", step_metric="train/global_step", step_sync=True)
        wandb.log({"loss": 2.0, "train/global_step": 20})
        wandb.log({"loss": 1.0, "train/global_step": 20.5})
        wandb.log({"loss": 0.5, "train/global_step": 30}, step=40)
    rows = read_run(session.run_artifact_dir).rows()
    assert [row.step for row in rows] == [None, 20, None, 40]


def test_the_global_run_is_put_back(tmp_path: Path) -> None:
    """After the block, and after an error in it, W&B's module is what it was."""
    before = (wandb.run, wandb.log, wandb.config, wandb.init, wandb.finish)
    session = session_in(tmp_path)
    with pytest.raises(ValueError, match="mine"), session, as_global_run(session):
        assert wandb.log != before[1]
        raise ValueError("mine")
    assert (wandb.run, wandb.log, wandb.config, wandb.init, wandb.finish) == before
    assert session.status == "failed"


def test_what_is_not_kept_is_said_once(tmp_path: Path, caplog: pytest.LogCaptureFixture) -> None:
    """Artifacts, graphs and media of other kinds are a warning each, and stop nothing."""
    with session_in(tmp_path) as session, as_global_run(session):
        for _ in range(2):
            wandb.watch(object(), log_freq=10)
            wandb.log({"page": wandb.Html("<p>a page</p>"), "loss": 1.0})
    said = [record.getMessage() for record in caplog.records if "W&B's" in record.getMessage()]
    assert len(said) == 2


def test_media_of_wandbs_kinds_are_the_runs(tmp_path: Path) -> None:
    """Images, lists of them, histograms and tables have the step of their row."""
    pixels = numpy.zeros((4, 4, 3), "uint8")
    with session_in(tmp_path) as session, as_global_run(session):
        wandb.define_metric("*", step_metric="epoch")
        wandb.log({"samples": [wandb.Image(pixels), wandb.Image(pixels)], "epoch": 3})
        wandb.log({"weights": wandb.Histogram([1.0, 2.0, 2.0])}, step=4, commit=False)
        cells = [[1, "a", wandb.Image(pixels)], [2.5, None, wandb.Image(pixels)]]
        wandb.log({"table": wandb.Table(["number", "text", "image"], cells)}, step=4)
    kept = {
        (each.name, each.kind, each.step) for each in read_run(session.run_artifact_dir).media()
    }
    assert kept == {
        ("samples/0", "image", 3),
        ("samples/1", "image", 3),
        ("weights", "histogram", 4),
        ("table", "table", 4),
    }


def test_lightnings_logger_names_its_steps(tmp_path: Path) -> None:
    """It calls `define_metric` of no run but W&B's own, so its name for them is known."""
    with session_in(tmp_path) as session, as_global_run(session):
        wandb.run.log({"loss": 1.0, "trainer/global_step": 7})
    (row,) = (row for row in read_run(session.run_artifact_dir).rows() if "loss" in row.values)
    assert row.step == 7


def test_what_an_adapter_has_logged_is_not_logged_again(tmp_path: Path) -> None:
    """A library's own W&B logger beside the adapter's adds only what the adapter has not."""
    with session_in(tmp_path) as session, as_global_run(session):
        adapter = Attached(session, "a framework")
        adapter.log({"loss": 1.0, "accuracy": 0.5}, 3)
        wandb.log({"loss": 1.0, "accuracy": 0.5}, step=3)
        wandb.log({"loss": 1.0, "mine": 2.0}, step=3)
        wandb.log({"accuracy": 0.25}, step=3)  # another value is another row
        adapter.log({"loss": 1.0}, 3)  # so is the same adapter's
        wandb.log({"loss": 1.0}, step=4)
    rows = [(row.step, row.values) for row in read_run(session.run_artifact_dir).rows()]
    assert [row for row in rows if not next(iter(row[1])).startswith("system/")] == [
        (3, {"loss": 1.0, "accuracy": 0.5}),
        (3, {"mine": 2.0}),
        (3, {"accuracy": 0.25}),
        (3, {"loss": 1.0}),
        (4, {"loss": 1.0}),
    ]
