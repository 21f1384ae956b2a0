"""`.ci/run` fails where any of its steps fails, and else ends with the tests' closing line."""

from __future__ import annotations

import os
import re
import shutil
import subprocess
from pathlib import Path

import pytest

from tests.support.lowest_versions import PYPROJECT, lowest_versions
from tests.support.storms import repetitions, some_of

RUN = Path(__file__).parent.parent / ".ci" / "run"
# Stands for each environment's interpreter: it fails where its arguments hold $FAILS.
PYTHON = """#!/bin/sh
case "$0 $*" in *"$FAILS"*) echo "failed: $*"; exit 3;; esac
case "$*" in "-m venv "*) mkdir -p "$3/bin" && cp "$0" "$3/bin/python";; esac
echo "done: $*"
"""
README = """
mkdir -p .venv/bin && cp python .venv/bin/ && .venv/bin/python -m pytest  # test
.venv/bin/python -m try  # try
"""

needs_git = pytest.mark.skipif(
    os.name == "nt" or shutil.which("git") is None, reason="needs git and a POSIX shell"
)


def check(repository: Path, readme: str, fails: str) -> tuple[int, list[str]]:
    """Run it in a repository of its own, with a step that fails; return its status and output."""
    (repository / ".ci").mkdir()
    shutil.copy(RUN, repository / ".ci" / "run")
    (repository / "README.md").write_text(readme)
    (repository / "python").write_text(PYTHON)
    (repository / "python").chmod(0o755)
    programs = repository / "bin"
    programs.mkdir()
    (programs / "id").write_text("#!/bin/sh\necho 1000\n")  # not root: it may install no package
    (programs / "id").chmod(0o755)
    identity = ["-c", "user.name=a", "-c", "user.email=a@localhost"]
    for command in (["init", "-q"], ["add", "."], [*identity, "commit", "-q", "-m", "a"]):
        subprocess.run(["git", *command], cwd=repository, check=True)
    path = f"{programs}{os.pathsep}{os.environ['PATH']}"
    environ = {**os.environ, "FAILS": fails, "PATH": path}
    script = repository / ".ci" / "run"
    done = subprocess.run([script], env=environ, capture_output=True, text=True, timeout=300)
    return done.returncode, done.stdout.splitlines()


@needs_git
def test_it_ends_with_the_closing_line_of_the_tests(tmp_path: Path) -> None:
    """Where all steps succeed, its status is 0 and the last line is the test runner's."""
    status, printed = check(tmp_path, README, "nothing")
    assert (status, printed[-1]) == (0, "done: -m pytest")
    closing = [printed[n + 1] for n, line in enumerate(printed) if "== closing line" in line]
    browser, frameworks, launchers, postgres, storms, lowest, packaging, tests = closing
    assert browser.endswith("-m browser and not storm")
    assert frameworks.endswith("-m frameworks and not storm")
    assert launchers.endswith("-m launchers and not storm")
    assert postgres.endswith("-m postgres and not storm")
    assert "-m storm and not " in storms
    assert "tests/journal" in lowest
    assert packaging.endswith("-m packaging")
    assert tests == printed[-1]


@needs_git
@pytest.mark.parametrize(
    "step",
    [
        *("venv/bin/python -m pytest", "blocking", "many_sessions", "trio", "-m try"),
        *("check .", "--check", "mypy", "lowest_versions", "-m venv", "-c lowest.txt"),
        *("lowest/bin/python -m pytest", "-m storm", "-m postgres", "-m packaging"),
        *("-m launchers", "-m frameworks", "-m browser"),
    ],
)
def test_it_fails_with_any_step(tmp_path: Path, step: str) -> None:
    """A step that fails is not hidden by a pipe, a loop or a later one."""
    status, printed = check(tmp_path, README, step)
    assert status != 0
    if step != "lowest_versions":  # whose output is a file
        assert printed[-1].startswith("failed: ")


@needs_git
@pytest.mark.parametrize("mark", ["# test", "# try"])
def test_it_fails_without_a_command(tmp_path: Path, mark: str) -> None:
    """A README that has lost one of its two commands is noticed."""
    status, _ = check(tmp_path, README.replace(mark, "# lost"), "nothing")
    assert status != 0


def test_what_it_names_is_there() -> None:
    """The part of the tests for the lowest versions; and no package is fetched from an address."""
    text = RUN.read_text(encoding="utf-8")
    named = re.findall(r"\btests/[\w./]+", text)
    assert len(named) > 10
    assert [name for name in named if not (RUN.parent.parent / name).exists()] == []
    assert "://" not in text


def test_the_lowest_versions_are_those_of_the_package() -> None:
    """Each direct dependency, of keisei and of its extras, is held at its lower bound."""
    found = lowest_versions(PYPROJECT.read_text(encoding="utf-8"))
    assert {"anyio", "pydantic", "wandb", "mlflow", "typer", "uvloop"} <= set(found)
    assert not {"keisei", "pytest", "ruff", "tensorboardX"} & set(found)
    text = """
[project]
name = "a"
dependencies = ["b>=1.2,<2"]
[project.optional-dependencies]
one = ["a[two]", "C.d[e]>=3; sys_platform != 'win32'"]
test = ["f>=4"]
"""
    assert lowest_versions(text) == {"b": "1.2", "C.d": "3"}
    with pytest.raises(ValueError, match=r"'b<2' in pyproject.toml has no lower bound"):
        lowest_versions(text.replace("b>=1.2,<2", "b<2"))


def test_a_share_of_a_storm_is_some_of_all_of_it() -> None:
    """From the first to the last, none twice, and never nothing."""
    assert (repetitions(50, 1.0), repetitions(50, 0.1), repetitions(50, 0.001)) == (50, 5, 1)
    assert repetitions(50, 7.0) == 50
    assert some_of(range(10), 1.0) == list(range(10))
    assert some_of(range(10), 0.3) == [0, 3, 6]
    assert some_of(range(10), 0.0) == [0]
