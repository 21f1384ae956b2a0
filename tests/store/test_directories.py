"""Rows of runs from their directories: what they say, and what they do not read."""

from __future__ import annotations

import math
from functools import partial
from pathlib import Path

import pytest

from keisei import SessionManager
from keisei.run.labels import change_labels, noted, tagged
from keisei.store.directories import rows
from keisei.store.rows import MetricSummary
from tests.conftest import MakeConfig
from tests.support.runs import Runs


@pytest.fixture
def runs(tmp_path: Path, make_config: MakeConfig) -> Runs:
    """The root where the tests' configs let runs live."""
    return Runs(tmp_path / "runs", make_config)


def test_a_row_says_what_the_directory_says(runs: Runs, make_config: MakeConfig) -> None:
    """State, owner, times, labels, config and metrics come from the run's own files."""
    with (
        pytest.raises(RuntimeError),
        SessionManager(make_config(env={"seed": 3}), run_name="r") as session,
    ):
        for step, loss in enumerate([4.0, 1.0, math.nan, 3.0]):
            session.log_metrics({"loss": loss}, step=step)
        session.log_metrics({"always": math.nan, "up": math.inf})
        raise RuntimeError("no memory")
    change_labels(session.run_artifact_dir, partial(tagged, tags=["ppo"]))
    change_labels(session.run_artifact_dir, partial(noted, note="first"))
    (row,) = rows(str(runs.root))
    assert (row.name, row.directory, row.status) == ("r", session.run_artifact_dir, "failed")
    assert (row.session_id, row.attempt) == (session.session_id, 1)
    assert row.started is not None
    assert row.ended is not None
    assert row.started <= row.ended
    assert "no memory" in (row.failure or "")
    assert (row.tags, row.note) == (("ppo",), "first")
    assert row.config["env"] == {"seed": 3, "device": "cpu"}
    assert row.metrics["loss"] == MetricSummary(3.0, 1.0, 4.0, 8 / 3, None, 4, 3)
    assert row.metrics["always"] == MetricSummary(count=1)
    assert row.metrics["up"].max == math.inf


def test_what_was_superseded_is_not_summed_up(runs: Runs, make_config: MakeConfig) -> None:
    """The values that a resumed run has logged anew count, and the earlier ones do not."""
    for first, value in ((0, 9.0), (2, 1.0)):
        with SessionManager(make_config(), run_name="r") as session:
            if first:
                session.resume_at(first - 1)
            for step in range(first, 4):
                session.log_metrics({"loss": value}, step=step)
    (row,) = rows(str(runs.root))
    assert row.metrics["loss"] == MetricSummary(1.0, 1.0, 9.0, 5.0, None, 4, 3)


def test_what_nobody_asks_for_is_not_read(runs: Runs) -> None:
    """A list reads no config and no journal of a run, until somebody asks for it."""
    path = runs.completed("r")
    (row,) = rows(str(runs.root))
    (path / "effective_config.json").write_text('{"later": 1}')
    assert row.config == {"later": 1}
    (path / "effective_config.json").write_text('{"later": 2}')
    assert row.config["later"] == 1


def test_checkpoints_are_counted_and_not_opened(runs: Runs, make_config: MakeConfig) -> None:
    """A row has the count, the latest and the best, whatever stands inside of them."""
    config = make_config(
        checkpoints={"keep_last": 3, "keep_best": {"metric": "loss", "mode": "min"}}
    )
    with SessionManager(config, run_name="r") as session:
        session.setup_auto_checkpointing(None, state={}, at_end=False)
        for step, loss in ((5, 0.2), (10, 0.1), (20, 0.3)):
            session.save_checkpoint({"step": step}, step=step, metrics={"loss": loss})
        session.save_final_model({"step": 20})
    models = Path(session.model_dir)
    for path in models.glob("*/manifest.json"):
        path.write_text("{")
    (row,) = rows(str(runs.root))
    assert row.checkpoints == {"count": 3, "latest": 20, "best": 10}
    (models / "latest").unlink()
    (models / "best").unlink()
    (models / "best").symlink_to("checkpoint_7.ckpt")
    (row,) = rows(str(runs.root))
    assert row.checkpoints == {"count": 3, "latest": 20, "best": None}


def test_without_models_nothing_is_known_of_checkpoints(
    runs: Runs, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Models that are elsewhere are found as the environment says; a symlink is not followed."""
    path = runs.completed("r")
    (row,) = rows(str(runs.root))
    assert row.checkpoints == {"count": 0, "latest": None, "best": None}
    (path / "models").rmdir()
    (tmp_path / "elsewhere" / "r" / "checkpoint_3.ckpt").mkdir(parents=True)
    (row,) = rows(str(runs.root))
    assert row.checkpoints == {}
    monkeypatch.setenv("KEISEI_MODEL_DIR", str(tmp_path / "elsewhere"))
    (row,) = rows(str(runs.root))
    assert row.checkpoints == {"count": 1, "latest": 3, "best": None}
    (path / "models").symlink_to(tmp_path / "elsewhere" / "r")
    (row,) = rows(str(runs.root))
    assert row.checkpoints == {}


@pytest.mark.parametrize("text", ["", "[]", "{", "[" * 100_000, "\xff"])
def test_a_config_that_cannot_be_read_is_empty(runs: Runs, text: str) -> None:
    """Damage in one file costs what it holds, and no list."""
    path = runs.completed("r")
    (path / "effective_config.json").write_bytes(text.encode("latin-1"))
    (path / "labels.json").write_text("{")
    (row,) = rows(str(runs.root))
    assert (dict(row.config), row.tags, row.note) == ({}, (), None)


def test_runs_in_every_state_have_a_row(runs: Runs) -> None:
    """A run that is damaged, dead or elsewhere is in the list with its state."""
    runs.killed("dead")
    runs.elsewhere("far")
    (runs.completed("torn") / "session.json").write_text('{"x')
    runs.completed("well")
    states = {row.name: row.status for row in rows(str(runs.root))}
    assert states == {"dead": "died", "far": "elsewhere", "torn": "corrupt", "well": "completed"}
