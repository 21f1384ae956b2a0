"""Arrays of jax come back as arrays of jax, where it is imported."""

from __future__ import annotations

import importlib.util
import subprocess
import sys
from pathlib import Path

import pytest

from tests.support.jax_states import CHECKS

pytestmark = pytest.mark.skipif(
    importlib.util.find_spec("jax") is None, reason="jax is not installed"
)


@pytest.mark.requirement("CKPT-1")
@pytest.mark.parametrize("check", CHECKS)
def test_arrays_of_jax(check: str) -> None:
    """They come back as what they were, never cut, and one without a value is refused."""
    done = subprocess.run(
        [sys.executable, "-W", "ignore", "-m", "tests.support.jax_states", check],
        capture_output=True,
        text=True,
        cwd=Path(__file__).parents[2],
    )
    assert done.stdout == f"checked {check}\n", done.stderr
