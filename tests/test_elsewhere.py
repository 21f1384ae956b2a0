"""What other systems have not is not called, where this one does as they do."""

from __future__ import annotations

import os
import subprocess
import sys
from pathlib import Path

import pytest


@pytest.mark.skipif(os.name == "nt", reason="takes POSIX's names away")
@pytest.mark.parametrize("system", ["windows", "macos"])
def test_a_run_lives_with_what_another_system_has(system: str, tmp_path: Path) -> None:
    """A run fails, goes on from its checkpoint and ends, and its journal is read back."""
    done = subprocess.run(
        [sys.executable, "-m", "tests.support.elsewhere", system, str(tmp_path)],
        capture_output=True,
        text=True,
        cwd=Path(__file__).parents[1],
    )
    assert done.stdout == "lived\n", done.stderr
