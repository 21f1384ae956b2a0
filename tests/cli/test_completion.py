"""What a shell completes: commands, options, and the names of runs."""

from __future__ import annotations

import os
import shutil
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path

import pytest
from typer.testing import CliRunner

from keisei.cli import program
from keisei.run import trash

Complete = Callable[[str], list[str]]
RUNS = ["ppo", "walker-1", "walker-2"]


@pytest.fixture
def root(tmp_path: Path) -> Path:
    """Three runs, and what is none: a file, a directory, and a name that a shell would evaluate."""
    for name in [*RUNS, "$(id)"]:
        (tmp_path / "runs" / name).mkdir(parents=True)
        (tmp_path / "runs" / name / "session.json").write_text("{}")
    (tmp_path / "runs" / "walker.txt").write_text("")
    (tmp_path / "runs" / "walks").mkdir()
    return tmp_path / "runs"


@pytest.fixture
def complete(root: Path, monkeypatch: pytest.MonkeyPatch) -> Complete:
    """Return what bash is offered for the last word of a line, where all commands are imported."""
    monkeypatch.chdir(root.parent)
    monkeypatch.delenv("KEISEI_LOG_DIR", raising=False)
    for name in program.COMMANDS:
        program.register(name)

    def ask(line: str) -> list[str]:
        done = CliRunner().invoke(program.app, [], prog_name="keisei", env=bash_asks(line))
        return done.stdout.split()

    return ask


def bash_asks(line: str) -> dict[str, str]:
    """Return what bash sets when it asks for the last word of a line."""
    last = str(len(line.split(" ")) - 1)
    return {"_KEISEI_COMPLETE": "complete_bash", "COMP_WORDS": line, "COMP_CWORD": last}


def said(command: list[str], where: Path, environ: dict[str, str]) -> str:
    """Return what the program prints; it complains of nothing."""
    done = subprocess.run(
        [sys.executable, *command],
        cwd=where,
        env={**os.environ, **environ},
        capture_output=True,
        text=True,
    )
    assert (done.returncode, done.stderr) == (0, "")
    return done.stdout


@pytest.mark.parametrize(
    ("line", "offered"),
    [
        ("keisei ", list(program.COMMANDS)),
        ("keisei check", ["check", "checkpoints"]),  # either
        ("keisei baseline ", ["ls", "set", "unset"]),
        ("keisei tail --no", ["--no-follow"]),
    ],
)
def test_commands_and_options_are_completed(root: Path, line: str, offered: list[str]) -> None:
    """Though only the command that the line names is imported."""
    assert sorted(said(["-m", "keisei"], root.parent, bash_asks(line)).split()) == sorted(offered)


@pytest.mark.parametrize(
    "line",
    [
        *("cancel", "check", "checkpoints", "compare", "doctor", "export", "note", "plot"),
        *("report", "rm", "show", "sync", "tag", "tail", "untag", "baseline set", "check -b"),
        *("plot ppo --with", "report -b", "compare ppo"),
    ],
)
def test_names_of_runs_are_completed(complete: Complete, line: str) -> None:
    """Of what lies under the root, with nothing that a shell might evaluate."""
    assert complete(f"keisei {line} ") == RUNS
    assert complete(f"keisei {line} walk") == RUNS[1:]


def test_the_root_that_the_line_names_is_looked_in(complete: Complete, tmp_path: Path) -> None:
    """One that is not there has no runs, and no complaint."""
    (tmp_path / "elsewhere" / "far").mkdir(parents=True)
    (tmp_path / "elsewhere" / "far" / "session.json").write_text("{}")
    assert complete("keisei show --root elsewhere ") == ["far"]
    assert complete("keisei show --root nowhere ") == []
    assert complete("keisei restore --root nowhere ") == []


def test_what_is_in_the_trash_can_be_restored(complete: Complete, root: Path) -> None:
    """`keisei restore` completes the names that were removed, each once, and no others."""
    for _ in range(2):
        (root / trash.TRASH).mkdir(exist_ok=True)
        (root / "ppo").rename(root / trash.TRASH / f"ppo~20261126T00000{_}000000Z")
        (root / "ppo").mkdir()
    assert complete("keisei restore ") == ["ppo"]


@pytest.mark.parametrize("shell", ["zsh", "fish", "powershell"])
def test_other_shells_ask_in_their_own_ways(root: Path, shell: str) -> None:
    """Each gets the names."""
    asked = {"_KEISEI_COMPLETE": f"complete_{shell}", "_TYPER_COMPLETE_ARGS": "keisei show walk"}
    asked |= {"_TYPER_COMPLETE_FISH_ACTION": "get-args"}
    asked |= {"_TYPER_COMPLETE_WORD_TO_COMPLETE": "walk"}
    offered = said(["-m", "keisei"], root.parent, asked)
    assert [name for name in RUNS if name in offered] == RUNS[1:]


@pytest.mark.skipif(shutil.which("bash") is None, reason="bash is not installed")
def test_bash_completes_with_what_is_installed(root: Path, tmp_path: Path) -> None:
    """Its script goes below the home directory, and `~/.bashrc` names it."""
    home, programs = tmp_path / "home", tmp_path / "bin"
    for path in (home, programs):
        path.mkdir(exist_ok=True)
    (programs / "keisei").write_text(f'#!/bin/sh\nexec "{sys.executable}" -m keisei "$@"\n')
    (programs / "keisei").chmod(0o755)
    environ = {**os.environ, "HOME": str(home)}
    environ["PATH"] = f"{programs}{os.pathsep}{os.environ['PATH']}"
    script = (
        "keisei --install-completion\n"
        ". ~/.bashrc\n"
        "complete -p keisei\n"
        "COMP_WORDS=(keisei show walk) COMP_CWORD=2; _keisei_completion keisei\n"
        'echo "${COMPREPLY[@]}"\n'
    )
    done = subprocess.run(
        ["bash", "-c", script], cwd=root.parent, env=environ, capture_output=True, text=True
    )
    assert done.stderr == ""
    installed, *_, kind, offered = done.stdout.splitlines()
    assert installed.startswith("bash completion installed in ")
    assert kind.endswith("-F _keisei_completion keisei")
    assert offered == "walker-1 walker-2"
