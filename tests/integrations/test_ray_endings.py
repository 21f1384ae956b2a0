"""Experiments of Ray Tune's that do not end by themselves leave no run that is untrue."""

from __future__ import annotations

import os
import subprocess
import sys
from importlib.util import find_spec
from pathlib import Path

import pytest

REPOSITORY = Path(__file__).parents[2]


@pytest.mark.frameworks
def test_trials_that_others_end_have_their_status(tmp_path: Path) -> None:
    """A stopper completes them, Ctrl-C and another's failure cancel them, what is raised fails."""
    for package in ("ray", "pandas", "pyarrow"):
        if find_spec(package) is None:
            pytest.skip(f"{package} is not installed")
    program = (
        "import runpy, signal, sys; signal.signal(signal.SIGINT, signal.default_int_handler); "
        "runpy.run_module(sys.argv.pop(1), run_name='__main__', alter_sys=True)"
    )
    module = "tests.support.trainers.ray_endings"
    command = [sys.executable, "-c", program, module, str(tmp_path)]
    environ = {**os.environ, "PYTHONPATH": str(REPOSITORY)}
    with open(tmp_path / "out", "w+") as out, open(tmp_path / "errors", "w+") as errors:
        done = subprocess.run(
            command, cwd=tmp_path, env=environ, stdout=out, stderr=errors, timeout=300
        )
    assert done.returncode == 0, (tmp_path / "errors").read_text()[-5000:]
    said = [line for line in (tmp_path / "out").read_text().splitlines() if "; raised" in line]
    assert said == [
        "stopper: completed, completed; raised nothing",
        "interrupt: cancelled, cancelled; raised nothing",
        "fail-fast: cancelled, failed; raised nothing",
        "raise: failed, failed; raised RayTaskError(ValueError)",
    ]
