"""Each adapter passes the kit with its real framework."""

from __future__ import annotations

import os
import subprocess
import sys
from importlib.util import find_spec
from pathlib import Path

import pytest

from keisei.integrations.conformance import CHECKS
from tests.support.trainers.adapters import ADAPTERS

REPOSITORY = Path(__file__).parents[2]


@pytest.mark.frameworks
@pytest.mark.parametrize("name", ADAPTERS)
def test_the_adapter_passes_the_kit(name: str, tmp_path: Path) -> None:
    """All twelve checks hold, but for those that the framework has no way for."""
    for package in (ADAPTERS[name]["framework"], *ADAPTERS[name].get("needs", ())):
        if find_spec(package) is None:
            pytest.skip(f"{package} is not installed")
    environ = {**os.environ, "PYTHONPATH": str(REPOSITORY), "HF_HUB_OFFLINE": "1"}
    command = [sys.executable, "-m", "tests.support.trainers", name]
    with open(tmp_path / "out", "w+") as out, open(tmp_path / "errors", "w+") as errors:
        done = subprocess.run(
            command, cwd=tmp_path, env=environ, stdout=out, stderr=errors, timeout=1200
        )
    assert done.returncode == 0, (tmp_path / "errors").read_text()[-5000:]
    said = (tmp_path / "out").read_text()
    assert [sentence for sentence, _ in CHECKS if sentence not in said] == []
