"""A project of a user's own, whose tests run in a process of their own."""

from __future__ import annotations

import os
import re
import subprocess
import sys
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from textwrap import dedent

import pytest

CONFTEST = 'pytest_plugins = ["keisei.pytest_plugin"]\n'


@dataclass(frozen=True)
class Outcome:
    """How the tests of a project fared.

    Attributes:
        output: what pytest printed.
        counts: how many passed, failed, and so on, as its closing line says.
    """

    output: str
    counts: dict[str, int]


Project = Callable[..., Outcome]


@pytest.fixture
def project(tmp_path: Path) -> Project:
    """Make a project, and run its tests with warnings as errors."""

    def run(tests: str, *options: str, conftest: str = CONFTEST) -> Outcome:
        directory = tmp_path / "project"
        directory.mkdir()
        (directory / "pytest.ini").write_text("[pytest]\n")  # the root of a project
        (directory / "conftest.py").write_text(dedent(conftest))
        (directory / "test_it.py").write_text(dedent(tests))
        command = [sys.executable, "-m", "pytest", "-q", "-p", "no:cacheprovider", "-W", "error"]
        with open(tmp_path / "out", "w+") as out:  # a host process may hold a pipe open
            subprocess.run(
                [*command, *options],
                cwd=directory,
                env=os.environ | {"KEISEI_RESOURCES": "on"},  # the plug-in cleans it
                stdout=out,
                stderr=subprocess.STDOUT,
                timeout=120,
            )
        output = (tmp_path / "out").read_text()
        closing = output.strip().rpartition("\n")[2]
        found = re.findall(r"(\d+) (passed|failed|errors?|skipped|warnings?)", closing)
        return Outcome(output, {kind.rstrip("s"): int(count) for count, kind in found})

    return run
