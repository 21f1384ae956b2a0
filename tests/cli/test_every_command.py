"""What all commands have in common: their root, their JSON, and their exit statuses."""

from __future__ import annotations

import json
import re
from pathlib import Path
from typing import Any

import pytest
import typer
from click import Command
from typer.testing import CliRunner, Result

from keisei.cli.program import COMMANDS, app, register
from tests.conftest import MakeConfig
from tests.support.logged_runs import line, log_with

CONTRACT = (
    "ls show compare tag note rm restore export checkpoints cancel report ui tail plot doctor sync"
).split()
# What prints no data: it changes a label, moves a directory, draws, or serves.
SILENT = ["note", "plot", "restore", "rm", "tag", "ui", "untag"]
# What each is called with, after the root; each ends by itself.
CALLS: dict[str, list[str]] = {
    "cancel": ["r"],
    "check": ["r"],
    "checkpoints": ["r"],
    "compare": ["r", "s"],
    "doctor": ["r"],
    "export": ["r", "-o", "out.csv"],
    "ls": [],
    "note": ["r", "a note"],
    "plot": ["r"],
    "report": ["r", "-o", "out.html"],
    "restore": ["s"],
    "rm": ["s"],
    "show": ["r"],
    "sync": ["r"],
    "tag": ["r", "best"],
    "tail": ["r", "--no-follow"],
    "untag": ["r", "best"],
}


def command(name: str) -> Command:
    """Return a command as the program has it."""
    register(name)
    group: Any = typer.main.get_command(app)
    found: Command = group.commands[name]
    return found


def keisei(name: str, *arguments: str) -> Result:
    """Run a command in this process."""
    register(name)
    return CliRunner().invoke(app, [name, *arguments])


@pytest.fixture
def root(tmp_path: Path, make_config: MakeConfig, monkeypatch: pytest.MonkeyPatch) -> str:
    """Two runs, and a KEISEI_LOG_DIR that leads elsewhere."""
    log = log_with(make_config)
    for name in ("r", "s"):
        log(name, line(range(3)))
    elsewhere = tmp_path / "elsewhere"
    elsewhere.mkdir()
    monkeypatch.chdir(tmp_path)
    monkeypatch.setenv("KEISEI_LOG_DIR", str(elsewhere))
    return str(tmp_path / "runs")


@pytest.mark.requirement("LOOK-1")
def test_all_commands_of_the_contract_are_there() -> None:
    """Each has `--root`, says its exit statuses, and has `--json` where it prints data."""
    assert set(CONTRACT) <= COMMANDS.keys()
    for name in COMMANDS:
        known = command(name)
        for one in getattr(known, "commands", {"": known}).values():
            options = {option for parameter in one.params for option in parameter.opts}
            assert re.search(r"Exit status: .*\b(0|2)\b", str(one.help), re.S), name
            if name in CONTRACT:
                assert "--root" in options, name
                assert ("--json" in options) is (name not in SILENT), name


@pytest.mark.requirement("LOOK-1")
@pytest.mark.parametrize("name", CALLS)
def test_a_root_comes_before_the_environment(name: str, root: str) -> None:
    """With `--root` a command finds the runs; with the variable alone it does not."""
    if name == "restore":
        assert keisei("rm", "--root", root, "s").exit_code == 0
    if name != "ls":
        missing = keisei(name, *CALLS[name])
        assert missing.exit_code == 2, missing.output
        assert len(missing.stderr.splitlines()) == 1
        assert "Traceback" not in missing.output
    done = keisei(name, "--root", root, *CALLS[name])
    assert done.exit_code in ((0, 2) if name == "check" else (0, 1)), done.output


@pytest.mark.requirement("LOOK-1")
@pytest.mark.parametrize("name", sorted(set(CALLS) - set(SILENT)))
def test_json_is_json(name: str, root: str) -> None:
    """With `--json` a command prints JSON alone: one document, or one a line."""
    done = keisei(name, "--root", root, "--json", *CALLS[name])
    assert done.exit_code in (0, 1, 2), done.output
    try:
        json.loads(done.stdout)
    except ValueError:
        assert [json.loads(one) for one in done.stdout.splitlines()]


@pytest.mark.parametrize("name", ["check", "compare", "plot", "show"])
def test_a_name_of_100_kb_fills_no_terminal(
    name: str, make_config: MakeConfig, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """It loses its middle where lines have to fit."""
    log = log_with(make_config)
    for run in ("r", "s"):
        log(run, [({"loss" + "m" * 100_000: float(step)}, step) for step in range(3)])
    monkeypatch.setenv("COLUMNS", "80")
    narrow = keisei(name, *CALLS[name], "--root", str(tmp_path / "runs")).output
    assert len(narrow) < 10_000
    assert "lossmmm" in narrow
