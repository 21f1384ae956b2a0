"""`keisei show` says where a run comes from, and restores its code."""

from __future__ import annotations

import json
import platform
from pathlib import Path

import pytest
from typer.testing import CliRunner, Result

from keisei import AsyncSessionManager, SessionManager, load_config
from keisei.cli import program
from keisei.journal.reader import read_run
from tests.support.dirty_trees import repository, tree_of
from tests.support.threads import off_loop

program.register("show")


def show(root: Path, *arguments: str) -> Result:
    """Run the command in this process."""
    return CliRunner().invoke(program.app, ["show", "r", "--root", str(root), *arguments])


@pytest.fixture
def root(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """The root of a run that was started in a dirty tree, which is the working directory."""
    repo = repository(tmp_path / "repo", {"train.py": "x = 1\n", "old.py": "old\n"})
    (repo / "train.py").write_text("x = 2\n")
    (repo / "old.py").unlink()
    (repo / "new.py").write_text("new\n")
    (tmp_path / "c.yaml").write_text("env:\n  seed: 3\n")
    monkeypatch.chdir(repo)
    monkeypatch.setenv("COLUMNS", "500")  # nothing is folded
    overrides = ["env.seed=5", f"logging.log_dir={tmp_path / 'runs'}"]
    with SessionManager(load_config(tmp_path / "c.yaml", overrides), run_name="r"):
        pass
    return tmp_path / "runs"


def test_the_code_and_what_it_ran_on_are_shown(root: Path) -> None:
    """A line for each, and all of it as JSON."""
    result = show(root)
    assert result.exit_code == 0, result.output
    assert "on main, 2 changed, 1 untracked" in result.output
    assert "  packages " in result.output
    found = json.loads(show(root, "--json").stdout)["provenance"]
    assert found["code"]["deleted"] == ["old.py"]
    assert found["packages"]["anyio"]


def test_the_origins_of_values_are_shown(root: Path, tmp_path: Path) -> None:
    """With the line of the file, and what each goes before."""
    lines = show(root, "--origins").output.splitlines()
    (seed,) = [line for line in lines if line.split()[:1] == ["env.seed"]]
    assert seed.split() == [
        *("env.seed", "5", "override", "1", f"{tmp_path}/c.yaml:2", "(3),", "default", "(null)")
    ]


def test_the_code_is_restored(root: Path, tmp_path: Path) -> None:
    """From the repository that the command is called in, and into nothing that has something."""
    result = show(root, "--restore-code", str(tmp_path / "again"))
    assert result.exit_code == 0, result.output
    assert "byte for byte" in result.output
    assert tree_of(tmp_path / "again") == tree_of(Path.cwd())
    result = show(root, "--restore-code", str(tmp_path / "again"))
    assert result.exit_code == 2
    assert "is not empty" in result.output


def test_a_run_without_a_record_is_shown_all_the_same(root: Path, tmp_path: Path) -> None:
    """What was not recorded cannot be shown, and is said where it was asked for."""
    for name in ("provenance.1.json", "config_origins.json"):
        (root / "r" / name).write_bytes(b"\xff{")
    assert show(root).exit_code == 0
    result = show(root, "--origins")
    assert (result.exit_code, "not recorded" in result.output) == (2, True)
    result = show(root, "--restore-code", str(tmp_path / "again"))
    assert (result.exit_code, "nothing is recorded" in result.output) == (2, True)


def test_what_somebody_has_made_up_shows_no_control_character(root: Path) -> None:
    """Whatever stands where a text, a list or a mapping belongs."""
    odd = "\x1b[31m\x07\n"
    made_up = {
        "code": {
            "commit": odd,
            "branch": [odd],
            "changed": odd,
            "is_dirty": 1,
            "left_out": [odd, {}],
        },
        "command": {"arguments": [odd, 3, None]},
        "machine": {"host": [odd], "gpus": [{"model": {odd: 1}}, 5], "driver": 7},
        "packages": [odd],
        "differs": [odd, {}],
        "config_changes": [{"key": odd}, odd],
    }
    (root / "r" / "provenance.1.json").write_text(json.dumps(made_up))
    values = {odd: {"value": odd, "source": [odd], "beat": odd}, "x": odd, "y": {"beat": [3, {}]}}
    (root / "r" / "config_origins.json").write_text(json.dumps({"values": values}))
    for arguments in ([], ["--origins"], ["--json"]):
        result = show(root, *arguments)
        assert result.exit_code == 0, result.output
        assert not {"\x1b", "\x07"} & set(result.output)


async def test_the_session_knows_it_and_logs_it(tmp_path: Path) -> None:
    """In its summary, and as an event of its journal: trackers get it, too."""
    config = load_config(overrides={"logging.log_dir": str(tmp_path / "runs")})
    async with AsyncSessionManager(config, run_name="logged") as session:
        assert session.get_session_summary()["provenance"] is None
        session.log_metrics({"loss": 1.0}, step=1)
    async with AsyncSessionManager(config, run_name="silent") as silent:
        pass
    known = session.get_session_summary()["provenance"]
    assert known["python"] == platform.python_version()
    assert len(known["packages_digest"]) == 16
    assert silent.get_session_summary()["provenance"] == known
    assert not off_loop(lambda: list(Path(silent.run_artifact_dir).glob("*journal*")))


async def test_a_journal_that_is_made_later_has_it_first(tmp_path: Path) -> None:
    """What is known before anything is logged waits for the first row, and makes no journal."""
    config = load_config(overrides={"logging.log_dir": str(tmp_path / "runs")})
    async with AsyncSessionManager(config, run_name="r") as session:
        snapshot = session._ending.snapshot
        snapshot.hasten()
        assert snapshot._taking is not None
        await snapshot._taking.over.wait()
        session.log_metrics({"loss": 1.0}, step=1)
        known = session.get_session_summary()["provenance"]
    run = off_loop(lambda: read_run(session.run_artifact_dir))
    (event,) = off_loop(lambda: list(run.events()))
    assert (event.seq, event.name, event.data) == (0, "provenance", known)
