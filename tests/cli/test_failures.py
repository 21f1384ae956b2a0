"""Every command says in one line why it cannot do what was asked, with exit status 2."""

from __future__ import annotations

import json
import os
from pathlib import Path

import pytest
from typer.testing import CliRunner, Result

from keisei.cli import doctor as _doctor  # noqa: F401 - registers the command
from keisei.cli import plot as _plot  # noqa: F401
from keisei.cli import sync as _sync  # noqa: F401
from keisei.cli import tail as _tail  # noqa: F401
from keisei.cli.program import COMMANDS, app, register
from tests.conftest import MakeConfig
from tests.support.runs import Runs

OF_ALL = [["doctor"], ["doctor", "--json"], ["sync"], ["sync", "--json"], ["sync", "--dry-run"]]
OF_ONE = [["tail"], ["tail", "--json"], ["tail", "--no-follow"], ["plot"]]
NAMED = [["doctor"], ["doctor", "--json"], ["sync"], ["sync", "--json"], *OF_ONE]
POSIX = pytest.mark.skipif(os.name == "nt", reason="Windows has no such modes")


@pytest.fixture
def runs(tmp_path: Path, make_config: MakeConfig) -> Runs:
    """The root where the tests' configs let runs live."""
    return Runs(tmp_path / "runs", make_config)


def keisei(*arguments: str, **environ: str) -> Result:
    """Run a command in this process."""
    return CliRunner().invoke(app, arguments, env=environ)


def assert_refused(done: Result, *parts: str) -> None:
    """Assert that a command ended with one printable line that holds some texts."""
    assert done.exit_code == 2, done.output
    assert done.stdout == ""
    assert done.stderr.startswith("keisei ")
    assert done.stderr.count("\n") == 1
    assert done.stderr[:-1].isprintable()
    for part in parts:
        assert part in done.stderr


@pytest.mark.parametrize("command", OF_ALL, ids=" ".join)
@pytest.mark.parametrize("how", ["option", "variable", "default"])
def test_a_root_that_does_not_exist_is_an_error(command: list[str], how: str) -> None:
    """Whoever names it: nothing was checked, and nothing is up to date."""
    given = {"option": ["--root", "runs"]}.get(how, [])
    environ = {"KEISEI_LOG_DIR": "runs"} if how == "variable" else {}
    done = keisei(*command, *given, **environ)
    assert_refused(done, "there is no directory", "--root or KEISEI_LOG_DIR")


@pytest.mark.parametrize("command", OF_ALL, ids=" ".join)
def test_a_root_that_is_a_file_is_an_error(tmp_path: Path, command: list[str]) -> None:
    """It says what is wrong with it."""
    (tmp_path / "runs").write_text("")
    assert_refused(keisei(*command), repr(str(tmp_path / "runs")), "cannot be listed")


@POSIX
@pytest.mark.parametrize("command", OF_ALL, ids=" ".join)
def test_a_root_that_may_not_be_read_is_an_error(
    monkeypatch: pytest.MonkeyPatch, command: list[str]
) -> None:
    """It is not taken for an empty one."""

    def closed(path: str) -> None:
        raise PermissionError(13, "Permission denied", path)

    monkeypatch.setattr("keisei.run.find.os.scandir", closed)
    assert_refused(keisei(*command), "cannot be listed: Permission denied")


@pytest.mark.parametrize("command", OF_ALL, ids=" ".join)
def test_an_empty_root_has_no_runs(tmp_path: Path, command: list[str]) -> None:
    """This is no failure, and no claim about trackers."""
    (tmp_path / "runs").mkdir()
    done = keisei(*command)
    assert done.exit_code == 0
    if "--json" in command:
        found = json.loads(done.stdout)
        assert (found if isinstance(found, list) else found["runs"]) == []
    else:
        assert done.stdout == f"There are no runs under {tmp_path / 'runs'}.\n"


@pytest.mark.parametrize("command", OF_ALL, ids=" ".join)
@pytest.mark.parametrize("root", ["a\0b", "~no-such-user/runs"])
def test_a_root_that_no_directory_can_have_is_an_error(command: list[str], root: str) -> None:
    """It is quoted, with the reason."""
    assert_refused(keisei(*command, "--root", root), ascii(root))


@pytest.mark.parametrize("command", NAMED, ids=" ".join)
@pytest.mark.parametrize("name", ["q", "q\n\x1b[31m", "q\0", "x" * 400, "../q", "~nobody/q"])
def test_a_run_that_is_missing_is_an_error(runs: Runs, command: list[str], name: str) -> None:
    """In the same words for every command, escaped."""
    runs.completed("r")
    assert_refused(keisei(*command, name), "there is no run '")
    assert_refused(keisei(*command, "q"), "There is 'r'.")


@pytest.mark.parametrize("command", NAMED, ids=" ".join)
def test_the_option_comes_before_the_environment(runs: Runs, command: list[str]) -> None:
    """A root that is named at the command is the one that is looked at, also with `~`."""
    runs.completed("r")
    done = keisei(*command, "r", "--root", "nowhere", KEISEI_LOG_DIR="runs")
    assert_refused(done, "nowhere', which does not exist")
    done = keisei(*command, "r", "--root", "runs", KEISEI_LOG_DIR="nowhere")
    assert "there is no run" not in done.stderr
    done = keisei(*command, "r", "--root", "~/../runs", KEISEI_LOG_DIR="nowhere")
    assert "there is no run" not in done.stderr


@pytest.mark.parametrize("command", NAMED, ids=" ".join)
def test_ctrl_c_ends_a_command_with_status_130(
    runs: Runs, monkeypatch: pytest.MonkeyPatch, command: list[str]
) -> None:
    """At most one line is printed, and no traceback."""
    runs.completed("r")

    def interrupt(*args: object) -> None:
        raise KeyboardInterrupt

    monkeypatch.setattr("keisei.run.find.look", interrupt)
    done = keisei(*command, "r")
    assert done.exit_code == 130
    assert done.stdout == ""
    assert done.stderr.count("\n") <= 1


@pytest.mark.parametrize("command", NAMED, ids=" ".join)
def test_a_run_that_vanishes_while_it_is_looked_at_is_said(
    runs: Runs, monkeypatch: pytest.MonkeyPatch, command: list[str]
) -> None:
    """One line names it; nothing is reported of a run that is no more."""
    import shutil

    from keisei.run import find

    run = runs.completed("r")
    look = find.look

    def look_and_remove(*arguments: object) -> find.FoundRun | None:
        found = look(*arguments)  # type: ignore[arg-type]
        shutil.rmtree(run, ignore_errors=True)
        return found

    monkeypatch.setattr(find, "look", look_and_remove)
    done = keisei(*command, "r")
    if command[0] == "sync":  # it has found nothing that would remain
        assert done.exit_code in (1, 2)
        assert done.exception is None or isinstance(done.exception, SystemExit)
    else:
        assert_refused(done, "r'")


@pytest.mark.parametrize("name", COMMANDS)
def test_each_command_documents_its_exit_status(name: str) -> None:
    """In its help, as the program's own help does for all; only the page has no good end."""
    register(name)
    first = "Exit status: 2" if name == "ui" else "Exit status: 0"
    assert first in keisei(name, "--help").stdout
    assert "Exit status: 0" in keisei("--help").stdout
