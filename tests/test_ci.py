"""`.ci/run` fails where any of its steps fails, and else ends with the tests' closing line."""

from __future__ import annotations

import os
import shutil
import subprocess
from pathlib import Path

import pytest

RUN = Path(__file__).parent.parent / ".ci" / "run"
# Stands for the environment's interpreter: it fails where its arguments hold $FAILS.
PYTHON = """#!/bin/sh
case "$*" in *"$FAILS"*) echo "failed: $*"; exit 3;; esac
echo "done: $*"
"""
README = """
mkdir -p .venv/bin && cp python .venv/bin/ && .venv/bin/python -m pytest  # test
.venv/bin/python -m try  # try
"""

pytestmark = pytest.mark.skipif(
    os.name == "nt" or shutil.which("git") is None, reason="needs git and a POSIX shell"
)


def check(repository: Path, readme: str, fails: str) -> tuple[int, list[str]]:
    """Run it in a repository of its own, with a step that fails; return its status and output."""
    (repository / ".ci").mkdir()
    shutil.copy(RUN, repository / ".ci" / "run")
    (repository / "README.md").write_text(readme)
    (repository / "python").write_text(PYTHON)
    (repository / "python").chmod(0o755)
    identity = ["-c", "user.name=a", "-c", "user.email=a@localhost"]
    for command in (["init", "-q"], ["add", "."], [*identity, "commit", "-q", "-m", "a"]):
        subprocess.run(["git", *command], cwd=repository, check=True)
    environ = {**os.environ, "FAILS": fails}
    script = repository / ".ci" / "run"
    done = subprocess.run([script], env=environ, capture_output=True, text=True, timeout=60)
    return done.returncode, done.stdout.splitlines()


def test_it_ends_with_the_closing_line_of_the_tests(tmp_path: Path) -> None:
    """Where all steps succeed, its status is 0 and the last line is the test runner's."""
    status, printed = check(tmp_path, README, "nothing")
    assert (status, printed[-1]) == (0, "done: -m pytest")


@pytest.mark.parametrize(
    "step", ["pytest", "blocking", "many_sessions", "trio", "-m try", "check .", "--check", "mypy"]
)
def test_it_fails_with_any_step(tmp_path: Path, step: str) -> None:
    """A step that fails is not hidden by a pipe, a loop or a later one."""
    status, printed = check(tmp_path, README, step)
    assert status != 0
    assert printed[-1].startswith("failed: ")


@pytest.mark.parametrize("mark", ["# test", "# try"])
def test_it_fails_without_a_command(tmp_path: Path, mark: str) -> None:
    """A README that has lost one of its two commands is noticed."""
    status, _ = check(tmp_path, README.replace(mark, "# lost"), "nothing")
    assert status != 0
