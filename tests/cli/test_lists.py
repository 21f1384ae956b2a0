"""`keisei ls`, `show`, `tag`, `untag`, `note`, `rm`, `restore`: from the directories alone."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import pytest
from typer.testing import CliRunner

from keisei import SessionManager
from keisei.cli import labels as _labels  # noqa: F401 - registers the commands
from keisei.cli import ls as _ls  # noqa: F401
from keisei.cli import show as _show  # noqa: F401
from keisei.cli import trash as _trash  # noqa: F401
from keisei.cli.program import app
from keisei.reports.words import duration
from tests.conftest import MakeConfig
from tests.support.runs import Runs


@pytest.fixture
def runs(tmp_path: Path, make_config: MakeConfig) -> Runs:
    """Three runs with metrics, of which one has failed."""
    for name, seed, loss in (("ppo-1", 1, 0.3), ("ppo-2", 2, 0.1), ("a2c-1", 1, 0.2)):
        config = make_config(env={"seed": seed})
        with SessionManager(config, run_name=name) as session:
            session.log_metrics({"loss": loss}, step=7)
            if seed == 2:
                session.save_checkpoint({"x": 1}, step=7)
            if name == "ppo-2":
                session.finalize_session("failed")
    return Runs(tmp_path / "runs", make_config)


def keisei(*arguments: str, status: int = 0) -> str:
    """Run a command in this process, and return what it printed."""
    done = CliRunner().invoke(app, [arguments[0], "--root", "runs", *arguments[1:]])
    assert done.exit_code == status, done.output
    return done.output if status else done.stdout


def listed(*arguments: str) -> list[str]:
    document = json.loads(keisei("ls", "--json", *arguments))
    return [run["name"] for run in document["runs"]]


@pytest.mark.usefixtures("runs")
def test_runs_are_filtered_sorted_and_cut() -> None:
    """A query, an order and a limit choose the rows; the newest come first."""
    assert listed() == ["a2c-1", "ppo-2", "ppo-1"]
    assert listed("ppo") == ["ppo-2", "ppo-1"]
    assert listed("status:failed", "or", "env.seed:2") == ["ppo-2"]
    assert listed("loss.last<=0.2", "--sort", "loss.last") == ["ppo-2", "a2c-1"]
    assert listed("--sort", "-env.seed", "--limit", "1") == ["ppo-2"]
    assert json.loads(keisei("ls", "--json", "--limit", "1"))["more"] == 2
    assert listed("since:1h", "not", "ppo") == ["a2c-1"]


@pytest.mark.usefixtures("runs")
def test_columns_are_chosen() -> None:
    """Columns are chosen by name, or added to the usual ones."""
    lines = keisei("ls", "-c", "name,loss.last,env.seed", "--sort", "name").splitlines()
    assert [line.split() for line in lines[:4]] == [
        ["name", "loss.last", "env.seed"],
        ["a2c-1", "0.2", "1"],
        ["ppo-1", "0.3", "1"],
        ["ppo-2", "0.1", "2"],
    ]
    assert lines[4] == "3 runs: 2 completed, 1 failed"
    lines = keisei("ls", "-c", "name,checkpoints,latest_checkpoint", "checkpoints>0").splitlines()
    assert lines[1].split() == ["ppo-2", "1", "7"]
    assert "loss.step" in keisei("ls", "-c", "+loss.step").splitlines()[0]
    assert "status" in keisei("ls", "-c", "+loss.step").splitlines()[0]


def test_what_is_wrong_is_one_line(runs: Runs) -> None:
    """A query or a column that is none, and a root that is not there, are one line and status 2."""
    del runs
    for arguments, says in (
        (("ls", "statsu:failed"), "character 1"),
        (("ls", "-c", "colour"), "no column 'colour'"),
        (("ls", "--sort", "-colour"), "no column 'colour'"),
        (("ls", "--root", "nowhere"), "nowhere"),
        (("show", "ppo-3"), "ppo-1"),
        (("tag", "ppo-1", "a,b"), "no tag"),
        (("restore", "ppo-1"), "nothing"),
    ):
        output = keisei(*arguments, status=2)
        assert says in output
        assert len(output.strip().splitlines()) == 1


def test_an_empty_root_and_no_match_are_said(runs: Runs) -> None:
    """Where nothing is listed, one line says so."""
    assert "fits 'nothing'" in keisei("ls", "nothing")
    for name in ("ppo-1", "ppo-2", "a2c-1"):
        keisei("rm", name)
    assert keisei("ls").startswith(f"There are no runs in {runs.root}")


@pytest.mark.usefixtures("runs")
def test_one_run_is_shown() -> None:
    """A run's screen has its state, labels and metrics; its JSON has the config, too."""
    keisei("tag", "ppo-2", "best", "ppo")
    keisei("note", "ppo-2", "the one")
    text = keisei("show", "ppo-2")
    for part in ("ppo-2", "failed", "best, ppo", "the one", "1, latest 7", "loss", "0.1"):
        assert part in text
    document: dict[str, Any] = json.loads(keisei("show", "ppo-2", "--json"))
    assert document["config"]["env"]["seed"] == 2
    assert document["metrics"]["loss"]["last"] == 0.1
    assert document["checkpoints"] == {"count": 1, "latest": 7, "best": None}
    assert '"seed": 2' in keisei("show", "ppo-2", "--config")


@pytest.mark.usefixtures("runs")
def test_labels_are_asked_for() -> None:
    """Tags and notes that a command has written are what the next one finds."""
    assert "tags: best" in keisei("tag", "ppo-1", "best")
    assert listed("tag:best") == ["ppo-1"]
    assert "no tags" in keisei("untag", "ppo-1", "best")
    assert listed("tag:best") == []
    keisei("note", "a2c-1", "a longer text")
    assert listed("note:longer") == ["a2c-1"]
    assert "no note" in keisei("note", "a2c-1", "")


def test_runs_are_removed_and_restored(runs: Runs) -> None:
    """A removed run is in no list until it is restored; a live one is refused."""
    assert "keisei restore ppo-1" in keisei("rm", "ppo-1", "a2c-1")
    assert listed() == ["ppo-2"]
    keisei("restore", "ppo-1")
    assert sorted(listed()) == ["ppo-1", "ppo-2"]
    with SessionManager(runs.make_config(), run_name="living"):
        assert "belongs to process" in keisei("rm", "living", status=2)


def test_control_characters_of_a_run_are_escaped(runs: Runs) -> None:
    """What stands in a run's files reaches no terminal as it is."""
    (runs.root / "ppo-1" / "labels.json").write_text('{"tags": [], "note": "a\\u001b[31mb"}')
    runs.record("ppo-1", trackers={"x\x1b": {"state": "live"}})
    assert "\x1b" not in keisei("ls", "-c", "name,note,trackers") + keisei("show", "ppo-1")


@pytest.mark.parametrize(
    ("seconds", "text"),
    [(0.04, "0.0s"), (59.9, "59.9s"), (60, "1m 0s"), (3725, "1h 2m"), (200_000, "2d 7h")],
)
def test_a_duration_reads_well(seconds: float, text: str) -> None:
    """A duration is shown in its two largest units."""
    assert duration(seconds) == text
