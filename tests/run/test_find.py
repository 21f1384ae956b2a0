"""Runs are found in one way: under one root, by name or path, with the state that they are in."""

from __future__ import annotations

import os
import socket
from pathlib import Path

import pytest

from keisei import DirectorySetupError, SessionManager
from keisei._io.files import OpenDirectory
from keisei.run.find import absolute_path, find_at, find_run, find_runs, owner_state, root_of_runs
from keisei.run.session_file import Owner
from tests.conftest import MakeConfig
from tests.support.runs import Runs, snapshot


@pytest.fixture
def runs(tmp_path: Path, make_config: MakeConfig) -> Runs:
    """The root where the tests' configs let runs live."""
    return Runs(tmp_path / "runs", make_config)


@pytest.mark.parametrize(
    ("option", "variable", "configured", "chosen"),
    [
        ("a", "b", "c", "a"),
        (None, "b", "c", "b"),
        ("", "b", None, "b"),
        (None, "", "c", "c"),
        (None, None, "c", "c"),
        (None, None, None, "runs"),
    ],
)
def test_the_root_is_the_first_that_is_named(
    monkeypatch: pytest.MonkeyPatch,
    tmp_path: Path,
    option: str | None,
    variable: str | None,
    configured: str | None,
    chosen: str,
) -> None:
    """The option, the environment, the config, `runs`; what is empty counts as absent."""
    if variable is not None:
        monkeypatch.setenv("KEISEI_LOG_DIR", variable)
    assert root_of_runs(option, configured) == str(tmp_path / chosen)


@pytest.mark.requirement("DIR-3")
@pytest.mark.parametrize("how", ["variable", "config"])
def test_a_root_at_home_is_one_directory_for_sessions_and_commands(
    monkeypatch: pytest.MonkeyPatch, make_config: MakeConfig, tmp_path: Path, how: str
) -> None:
    """`~` is expanded in the same way, whoever names it."""
    if how == "variable":
        monkeypatch.setenv("KEISEI_LOG_DIR", "~/runs")
    config = make_config(logging={"log_dir": "~/runs"} if how == "config" else {})
    with SessionManager(config, run_name="r") as session:
        pass
    assert session.run_artifact_dir == str(tmp_path / "home" / "runs" / "r")
    assert [run.name for run in find_runs(root_of_runs("~/runs"))] == ["r"]
    assert not (tmp_path / "~").exists()


def test_a_home_that_nobody_has_is_an_error(make_config: MakeConfig, tmp_path: Path) -> None:
    """No directory with a name such as `~nobody` is made."""
    with pytest.raises(OSError, match="no home directory"):
        absolute_path("~no-such-user/runs")
    config = make_config(logging={"log_dir": "~no-such-user/runs"})
    with pytest.raises(DirectorySetupError, match="no home directory"):
        SessionManager(config, run_name="r").setup_directories()
    assert [path.name for path in tmp_path.iterdir()] == ["home"]


@pytest.mark.skipif(os.name == "nt", reason="Windows keeps a directory that is in use")
def test_a_working_directory_that_was_removed_is_said(
    monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    """A relative path has no meaning there."""
    (tmp_path / "gone").mkdir()
    monkeypatch.chdir(tmp_path / "gone")
    (tmp_path / "gone").rmdir()
    with pytest.raises(OSError, match="working directory has been removed"):
        root_of_runs()
    assert root_of_runs(str(tmp_path)) == str(tmp_path)


def test_runs_are_found_with_state_and_record_and_nothing_is_touched(runs: Runs) -> None:
    """Sorted by name; what is no run, and what is a link, is passed over."""
    for name in ("c", "a"):
        runs.completed(name)
    runs.elsewhere("far")
    (runs.completed("torn") / "session.json").write_text('{"x')
    (runs.root / "empty").mkdir()
    (runs.root / "file").write_text("")
    (runs.root / "another program's" / "models").mkdir(parents=True)
    (runs.root / "another program's" / "training.log").write_text("epoch 1")
    if os.name != "nt":
        (runs.root / "latest").symlink_to("a")
    before = snapshot(runs.root)
    found = {run.name: run for run in find_runs(str(runs.root))}
    assert {name: run.state for name, run in found.items()} == {
        "a": "completed",
        "c": "completed",
        "far": "elsewhere",
        "torn": "corrupt",
    }
    assert list(found) == sorted(found)
    record = found["a"].record
    assert record is not None
    assert record.run_name == "a"
    assert found["torn"].record is None
    assert found["far"].live_owner is not None
    assert found["far"].live_owner.host == "node-7"
    assert found["a"].live_owner is None
    assert snapshot(runs.root) == before


def test_the_wanted_runs_are_found_by_name_or_path_each_once(runs: Runs, tmp_path: Path) -> None:
    """In the order in which they are named; by path whatever the root is."""
    for name in ("a", "b"):
        runs.completed(name)
    root = str(runs.root)
    found = find_runs(root, ["b", "runs/a", str(runs.root / "b"), "./runs/a/"])
    assert [run.directory for run in found] == [str(runs.root / "b"), str(runs.root / "a")]
    assert find_run(str(tmp_path / "nowhere"), "runs/a").name == "a"


@pytest.mark.parametrize(
    ("root", "said"),
    [
        ("nowhere", "which does not exist, nor at that path. --root or KEISEI_LOG_DIR says"),
        ("file", "which cannot be listed (Not a directory), nor at that path."),
        ("empty", "nor at that path. --root or KEISEI_LOG_DIR says where runs live."),
        ("runs", "nor at that path. There is 'cartpole-1' and 1 more."),
    ],
)
@pytest.mark.parametrize("name", ["cartpole", "cart\npole", "", "cartpole" * 50, "../cartpole"])
def test_a_run_that_is_missing_is_one_error(
    runs: Runs, tmp_path: Path, root: str, said: str, name: str
) -> None:
    """It says where it was looked for and what is there, and quotes what it was given."""
    for there in ("cartpole-1", "walker-1"):
        runs.completed(there)
    (tmp_path / "empty").mkdir()
    (tmp_path / "file").write_text("")
    with pytest.raises(FileNotFoundError) as caught:
        find_run(str(tmp_path / root), name)
    text = str(caught.value)
    assert text.isprintable()
    assert text.startswith("there is no run ")
    assert str(tmp_path / root) in text
    assert name != "cartpole" or said in text


@pytest.mark.parametrize("name", ["a\0b", "a\ud800b"])
def test_a_name_that_no_path_can_hold_is_missing(runs: Runs, name: str) -> None:
    """It is no error of another kind."""
    with pytest.raises(FileNotFoundError, match="there is no run 'a"):
        find_run(str(runs.root), name)


@pytest.mark.skipif(os.name == "nt", reason="Windows has no such modes")
def test_what_may_not_be_read_is_not_missing(
    runs: Runs, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Neither a run behind a directory that is closed, nor a root."""
    runs.completed()

    def closed(path: str) -> os.stat_result:
        raise PermissionError(13, "Permission denied", path)

    with monkeypatch.context() as patch:
        patch.setattr("keisei.run.find.files.OpenDirectory", closed)
        patch.setattr("keisei.run.find.os.lstat", closed)
        with pytest.raises(OSError, match="cannot be read: Permission denied"):
            find_run(str(runs.root), "r")
    monkeypatch.setattr("keisei.run.find.os.scandir", closed)
    with pytest.raises(OSError, match="cannot be listed: Permission denied"):
        find_runs(str(runs.root))


def test_a_run_that_vanishes_is_none(runs: Runs) -> None:
    """Neither is what stands in its place."""
    run = runs.completed()
    assert find_at(str(run)) is not None
    run.rename(runs.root / "elsewhere")
    assert find_at(str(run)) is None
    run.write_text("")
    assert find_at(str(run)) is None


def test_whether_an_owner_lives(runs: Runs) -> None:
    """Known on this host by process and start; on another one only if the host is gone."""
    runs.completed()
    owner = Owner.model_validate(runs.record()["owner"])
    unlocked = owner.model_copy(update={"locked": None})
    far = owner.model_copy(update={"host": "node-7"})
    with OpenDirectory(str(runs.root / "r")) as directory:
        assert owner_state(unlocked, directory) == "running"
        assert owner_state(owner.model_copy(update={"process_start": "x"}), directory) == "died"
        assert owner_state(unlocked, directory, [socket.gethostname()]) == "running"
        assert owner_state(far, directory) == "elsewhere"
        assert owner_state(far, directory, ["node-7"]) == "died"
