"""Commands know the parts of a run: ranks and members."""

from __future__ import annotations

import json
import logging
from pathlib import Path
from typing import Any

import pytest
from typer.testing import CliRunner

from keisei import SessionManager, SessionMember
from keisei.cli import plot, show, tail  # noqa: F401 - registers the commands
from keisei.cli.program import app
from tests.conftest import MakeConfig
from tests.support.runs import Runs

runner = CliRunner()


@pytest.fixture
def run(make_config: MakeConfig) -> Path:
    """A run with an owner and two members, one of which has failed."""
    with SessionManager(make_config(), run_name="r") as session:
        session.log_metrics({"loss": 1.0}, 0)
        with SessionMember(session.handle(), role="a") as member:
            logger = logging.getLogger("parts")
            handler = member.log_handler()
            logger.addHandler(handler)
            logger.warning("from the member")
            logger.removeHandler(handler)
            member.log_metrics({"loss": 3.0, "reward": 5.0}, 0)
        with pytest.raises(KeyError), SessionMember(session.handle(), role="b"):
            raise KeyError("lost")
    return Path(session.run_artifact_dir)


def called(*arguments: object) -> Any:
    """Call a command."""
    return runner.invoke(app, list(map(str, arguments)))


def test_tail_shows_one_part(run: Path) -> None:
    """`--part` shows its rows and lines; without it, the owner's own."""
    done = called("tail", run, "--part", "a", "--no-follow", "--json")
    shown = [json.loads(line) for line in done.stdout.splitlines()]
    assert [row["values"] for row in shown if row["kind"] == "row"] == [
        {"loss": 3.0, "reward": 5.0}
    ]
    (line,) = [row["line"] for row in shown if row["kind"] == "log"]
    assert "from the member" in line
    for owner in ((), ("--part", "rank0")):
        done = called("tail", run, *owner, "--no-follow", "--metrics", "--json")
        assert [json.loads(line)["values"] for line in done.stdout.splitlines()] == [{"loss": 1.0}]


@pytest.mark.parametrize("command", [("tail", "--no-follow"), ("plot",)])
def test_a_part_that_there_is_not(run: Path, command: tuple[str, ...]) -> None:
    """The error names the parts that there are; a hostile name leads nowhere."""
    name, *options = command
    done = called(name, run, *options, "--part", "rank7")
    assert done.exit_code == 2
    assert "its parts: a" in done.stderr
    done = called(name, run, *options, "--part", "../../x")
    assert done.exit_code == 2
    assert "illegal role" in done.stderr


def test_plot_draws_a_part_or_all_of_them_merged(run: Path) -> None:
    """`--reduce` draws metrics that only a part has, too."""
    done = called("plot", run, "--part", "a")
    assert done.exit_code == 0, done.stderr
    assert "reward" in done.stdout
    done = called("plot", run, "--reduce", "mean")
    assert done.exit_code == 0, done.stderr
    assert "reward" in done.stdout
    assert "reward" not in called("plot", run).stdout
    done = called("plot", run, "--reduce", "mean", "--part", "a")
    assert done.exit_code == 2
    assert "goes with no --part" in done.stderr


def test_show_says_how_the_parts_stand(run: Path) -> None:
    """One line has them all, with their states."""
    done = called("show", run.name, "--root", run.parent)
    assert "1 completed, 1 failed (a, b)" in done.stdout


def test_doctor_says_which_parts_have_died_or_failed(make_config: MakeConfig, run: Path) -> None:
    """They are hints: what they logged is there, and a run of them is as it should be."""
    runs = Runs(run.parent, make_config)
    assert runs.doctor().findings() == [("part", "parts/1.b.json", "hint")]
    record = json.loads((run / "parts" / "1.a.json").read_text(encoding="utf-8"))
    record |= {"status": "running", "ended_at": None}
    (run / "parts" / "1.a.json").write_text(json.dumps(record), encoding="utf-8")
    (run / "parts" / "1.b.json").write_text("?", encoding="utf-8")
    report = runs.doctor()
    assert report.findings() == [
        ("part", "parts/1.a.json", "hint"),
        ("part", "parts/1.b.json", "hint"),
    ]
    assert report.code == 0
