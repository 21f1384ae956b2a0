"""`keisei show` says where the time of a run went, also of one that was killed."""

from __future__ import annotations

import json
import os
import re
import signal
import subprocess
import sys
from pathlib import Path
from typing import Any

import pytest
from typer.testing import CliRunner

from keisei import SessionManager
from keisei.cli import show  # noqa: F401 - registers the command
from keisei.cli.program import app
from tests.conftest import MakeConfig

runner = CliRunner()

# It trains to step 20, saves at step 10, and dies; started again, it goes on to step 30.
PROGRAM = """
import os, signal, sys, time
import keisei

config = keisei.load_config(overrides={"logging": {"log_dir": sys.argv[1]}})
with keisei.SessionManager(config, run_name="r") as session:
    restored = session.restore_checkpoint()
    last = 30 if restored else 20
    for step in range(restored.step + 1 if restored else 1, last + 1):
        time.sleep(0.01)
        session.log_metrics({"loss": 1 / step}, step)
        if step == 10:
            with session.phase("evaluation"):
                time.sleep(0.1)
            session.save_checkpoint({"step": step}, step)
    if not restored:
        session.flush()
        os.kill(os.getpid(), signal.SIGKILL)
    session.phase("evaluation")(time.sleep)(0.1)
"""


def shown(root: Path) -> dict[str, Any]:
    """Return what `keisei show --json` says of the run's time."""
    done = runner.invoke(app, ["show", "r", "--root", str(root), "--json"])
    assert done.exit_code == 0, done.output
    return dict(json.loads(done.stdout)["phases"])


@pytest.mark.requirement("MON-3")
@pytest.mark.skipif(sys.platform == "win32", reason="Windows has no SIGKILL")
def test_a_killed_run_has_told_where_its_time_went(tmp_path: Path) -> None:
    """Its time is there; after a resume also what was lost, and how long the run was down."""
    environ = {**os.environ, "KEISEI_PROVENANCE": "off"}
    command = [sys.executable, "-c", PROGRAM, str(tmp_path)]
    assert subprocess.run(command, env=environ).returncode == -signal.SIGKILL
    killed = shown(tmp_path)
    assert killed["attempts"] == 1
    assert killed["seconds"]["evaluation"] >= 0.1
    assert killed["seconds"]["training"] >= 0.2  # of 20 steps, of which 10 came after its word
    assert {"down", "lost"}.isdisjoint(killed["seconds"])

    assert subprocess.run(command, env=environ).returncode == 0
    resumed = shown(tmp_path)
    assert resumed["attempts"] == 2
    assert resumed["seconds"]["evaluation"] >= 0.2
    assert resumed["seconds"]["lost"] >= 0.1 * 0.9  # of steps 11 to 20
    assert resumed["seconds"]["training"] >= 0.3 * 0.9
    assert resumed["seconds"]["down"] > 0
    assert sum(resumed["seconds"].values()) == pytest.approx(resumed["wall_s"])
    assert sum(resumed["shares"].values()) == pytest.approx(1.0)
    assert resumed["throughput"]["last_step"] == 30

    done = runner.invoke(app, ["show", "r", "--root", str(tmp_path)])
    for word in ("phase", "training", "evaluation", "down", "lost", "goodput", "steps/s"):
        assert word in done.stdout


def test_a_run_that_has_said_nothing_shows_nothing(make_config: MakeConfig, tmp_path: Path) -> None:
    """A session that ends at once has no table, and no null lines."""
    with SessionManager(make_config(monitoring={"phases": True}), run_name="r") as session:
        session.log_metrics({"loss": 1.0}, 1)
    root = tmp_path / "runs"
    done = runner.invoke(app, ["show", "r", "--root", str(root), "--json"])
    assert json.loads(done.stdout)["phases"] is None
    assert "goodput" not in runner.invoke(app, ["show", "r", "--root", str(root)]).stdout


def test_a_name_is_shown_on_one_line(make_config: MakeConfig, tmp_path: Path) -> None:
    """A phase that is called like a markup is shown as it is called."""
    with (
        SessionManager(make_config(monitoring={"phases": True}), run_name="r") as session,
        session.phase("[red]x"),
    ):
        pass
    done = runner.invoke(app, ["show", "r", "--root", str(tmp_path / "runs")])
    assert "[red]x" in done.stdout


def test_what_is_said_below_the_table_fits_a_narrow_terminal(
    make_config: MakeConfig, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """It is folded between words; how many steps come in a second is a number with all digits."""
    monkeypatch.setenv("COLUMNS", "40")
    with (
        SessionManager(make_config(monitoring={"phases": True}), run_name="r") as session,
        session.phase("evaluation"),
    ):
        for step in (1, 10**9):
            session.log_metrics({"loss": 1.0}, step)
    lines = runner.invoke(app, ["show", "r", "--root", str(tmp_path / "runs")]).stdout.splitlines()
    (begin,) = (at for at, line in enumerate(lines) if line.startswith("  goodput"))
    said = lines[begin : begin + 2]
    assert max(map(len, said)) <= 40
    assert re.search(r"[0-9]{1,3}(,[0-9]{3})+ +steps/s", " ".join(said)), said
