"""The README does what it says: its code runs, its commands exist, its tables are complete."""

from __future__ import annotations

import os
import re
import subprocess
import sys
from pathlib import Path

import pytest
from pydantic import BaseModel

import keisei
from keisei import AppConfig

ROOT = Path(__file__).parent.parent
README = (ROOT / "README.md").read_text(encoding="utf-8")
PYTHON_BLOCKS = re.findall(r"```python\n(.*?)```", README, re.DOTALL)


@pytest.mark.parametrize("number", range(len(PYTHON_BLOCKS)))
def test_its_code_blocks_run(number: int, tmp_path: Path) -> None:
    """Each block is a whole program."""
    environ = {**os.environ, "PYTHONWARNINGS": "error"}
    done = subprocess.run(
        [sys.executable, "-c", PYTHON_BLOCKS[number]],
        cwd=tmp_path,
        env=environ,
        capture_output=True,
        text=True,
    )
    assert done.returncode == 0, done.stderr
    assert done.stderr == ""
    for printed in re.findall(r"print\(.*\)  # (\w+ \[.*\])$", PYTHON_BLOCKS[number], re.MULTILINE):
        assert printed in done.stdout


def test_its_yaml_is_a_config(tmp_path: Path) -> None:
    """The documented config loads as it stands."""
    (block,) = re.findall(r"```yaml\n(.*?)```", README, re.DOTALL)
    (tmp_path / "c.yaml").write_text(block)
    assert keisei.load_config(tmp_path / "c.yaml").wandb.tags == ["baseline"]


def test_its_tables_name_every_field_and_error() -> None:
    """A field or an error that the README does not list is one that nobody finds."""
    for section, field in AppConfig.model_fields.items():
        assert isinstance(field.annotation, type)
        assert issubclass(field.annotation, BaseModel)
        for name in field.annotation.model_fields:
            assert f"| `{section}.{name}` |" in README
    for name in keisei.__all__:
        if name.endswith("Error") and name != "KeiseiError":
            assert f"| `{name}` |" in README


def test_its_two_commands_are_the_ones_that_ci_runs() -> None:
    """Each is a single line with its mark, by which `.ci/run` finds it."""
    for mark, target in (("try", "examples.cartpole"), ("test", "pytest")):
        (command,) = re.findall(rf"^(.*\S) +# {mark}$", README, re.MULTILINE)
        assert target in command
    for module in re.findall(r"`python -m ([\w.]+)`", README):
        path = ROOT / module.replace(".", "/")
        assert path.with_suffix(".py").exists() or (path / "__main__.py").exists()
