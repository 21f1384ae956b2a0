"""Git at arm's length: nothing of a repository's runs, nothing hangs, and each refusal is said."""

from __future__ import annotations

import json
import logging
import os
import stat
import subprocess
import sys
import time
from pathlib import Path
from typing import Any

import pytest

from keisei import AsyncSessionManager, SessionManager, load_config
from keisei.config.schema import ProvenanceConfig
from keisei.provenance import snapshot
from keisei.provenance.code import code_state
from keisei.provenance.git import GitError, ask
from tests.support.dirty_trees import git, repository
from tests.support.storms import repetitions
from tests.support.threads import off_loop


@pytest.fixture(autouse=True)
def _unsaid(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(snapshot, "_said", set())


def script(path: Path, text: str) -> Path:
    """Write a program of the shell's."""
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_text(f"#!/bin/sh\n{text}\n")
    path.chmod(path.stat().st_mode | stat.S_IXUSR)
    return path


def hung_git(place: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """Put a git first on the path that starts another process, and hangs with it for ever."""
    noted = place / "pids"
    script(place / "bin" / "git", f"sleep 1000 &\necho $! $$ >> {noted}\nwait\n")
    monkeypatch.setenv("PATH", f"{place / 'bin'}:{os.environ['PATH']}")
    return noted


def state(directory: Path, **limits: Any) -> dict[str, Any]:
    """Return what is said of the code."""
    given = {"timeout": 30.0, "largest_file": 2**20, "largest_total": 10 * 2**20} | limits
    return code_state(str(directory), (), (), **given).about


def wait_for_their_end(noted: Path) -> None:
    """Wait until none of the processes that are noted in a file runs any more; blocks."""
    for pid in noted.read_text().split():
        give_up = time.monotonic() + 10
        while True:
            try:
                if "Z" in Path(f"/proc/{pid}/stat").read_text().rpartition(")")[2]:
                    break
            except OSError:
                break
            assert time.monotonic() < give_up, pid
            time.sleep(0.01)


def test_a_hung_git_is_killed_with_all_it_has_started(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """When its time is over; what it was asked is an error that says so."""
    noted = hung_git(tmp_path, monkeypatch)
    with pytest.raises(GitError, match="has not ended in time, and was killed"):
        ask(str(tmp_path), ["status"], time.monotonic() + 0.3)
    wait_for_their_end(noted)


@pytest.mark.requirement("PROV-1")
async def test_a_hung_git_is_felt_by_nobody(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    """The session is entered and trains; one warning says it, and the rest is recorded."""
    noted = hung_git(tmp_path, monkeypatch)
    config = load_config(
        overrides={"provenance.timeout": 0.5, "logging.log_dir": str(tmp_path / "r")}
    )
    async with AsyncSessionManager(config) as session:
        record = Path(session.run_artifact_dir, "provenance.1.json")
        assert not record.exists()
        session.log_metrics({"loss": 1.0}, step=1)
    assert session.status == "completed"
    found = json.loads(off_loop(record.read_text))
    assert "was killed" in found["code"]["problem"]
    assert found["packages"]["anyio"]
    warnings = [one for one in caplog.records if one.levelno >= logging.WARNING]
    assert ["the code of run" in one.getMessage() for one in warnings] == [True]
    off_loop(lambda: wait_for_their_end(noted))


def test_nothing_of_the_repository_is_run(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """No hook, monitor, pager, prompt, external diff, or conversion of texts."""
    repo = repository(tmp_path / "repo", {"a.txt": "one\n", ".gitattributes": "*.txt diff=mine\n"})
    mark = tmp_path / "was-run"
    spy = script(tmp_path / "spy", f'echo "$0 $@" >> {mark}\ncat')
    for key in (
        *("core.fsmonitor", "core.pager", "diff.external", "diff.mine.textconv", "core.askPass"),
        *("diff.mine.command", "core.editor", "credential.helper", "pager.status", "pager.diff"),
        *("gpg.program", "core.sshCommand", "log.showSignature"),
    ):
        git(repo, "config", key, str(spy))
    for hook in ("post-checkout", "post-index-change", "fsmonitor-watchman", "pre-auto-gc"):
        script(repo / ".git" / "hooks" / hook, f"echo {hook} >> {mark}")
    for name in ("GIT_EXTERNAL_DIFF", "GIT_PAGER", "GIT_ASKPASS", "PAGER", "GIT_EDITOR"):
        monkeypatch.setenv(name, str(spy))
    monkeypatch.setenv("GIT_DIR", str(tmp_path / "elsewhere"))
    (repo / "a.txt").write_text("two\n")
    (repo / "b.py").write_text("new\n")
    about = state(repo)
    assert (about["changed"], about["untracked"], about.get("problem")) == (1, 1, None)
    assert not mark.exists()


def test_the_index_is_left_as_it_was(tmp_path: Path) -> None:
    """Whoever works in the tree meanwhile finds no lock, and no other index."""
    repo = repository(tmp_path / "repo", {"a.txt": "one\n"})
    os.utime(repo / "a.txt", (1, 1))
    before = (repo / ".git" / "index").read_bytes()
    assert state(repo)["is_dirty"] is False
    assert (repo / ".git" / "index").read_bytes() == before
    (repo / ".git" / "index.lock").write_text("")
    assert state(repo)["is_dirty"] is False


@pytest.mark.skipif(os.geteuid() != 0, reason="only root can give a repository to somebody else")
def test_a_repository_of_somebody_elses_is_not_read(
    tmp_path: Path, caplog: pytest.LogCaptureFixture, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Git refuses it; the way out is said once, and the training goes on."""
    repo = repository(tmp_path / "repo", {"a.txt": "one\n"})
    for path in [repo, repo / ".git"]:
        os.chown(path, 12345, 12345)
    monkeypatch.chdir(repo)
    monkeypatch.delenv("SUDO_UID", raising=False)
    for _ in range(2):
        config = load_config(overrides={"logging.log_dir": str(tmp_path / "runs")})
        with SessionManager(config) as session:
            pass
    assert session.status == "completed"
    assert caplog.text.count("safe.directory") == 1


def test_without_git_the_rest_is_recorded(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    """It is no warning: many containers have none."""
    monkeypatch.setenv("PATH", str(tmp_path))
    config = load_config(overrides={"logging.log_dir": str(tmp_path / "runs")})
    with SessionManager(config) as session:
        pass
    found = json.loads(Path(session.run_artifact_dir, "provenance.1.json").read_text())
    assert "not installed" in found["code"]["problem"]
    assert not [one for one in caplog.records if one.levelno >= logging.WARNING]


def test_outside_of_a_repository_there_is_nothing_to_say(
    tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    """That is no fault."""
    assert state(tmp_path).get("problem") is None
    assert caplog.records == []


@pytest.mark.parametrize("damage", ["index", "HEAD", "objects", "config"])
def test_a_damaged_repository_is_said(tmp_path: Path, damage: str) -> None:
    """What git says of it is the problem, and nothing is raised."""
    repo = repository(tmp_path / "repo", {"a.txt": "one\n"})
    (repo / "a.txt").write_text("two\n")
    path = repo / ".git" / damage
    if damage == "objects":
        path.rename(tmp_path / "objects")
        path.mkdir()
    else:
        path.write_bytes(b"\xff\0nonsense")
    about = state(repo)
    # A repository without a HEAD that can be read is none to git.
    assert about.get("problem") or about["commit"] is None


def test_a_detached_head_has_a_commit_and_no_branch(tmp_path: Path) -> None:
    """It is no fault."""
    repo = repository(tmp_path / "repo", {"a.txt": "one\n"})
    git(repo, "checkout", "-q", "--detach")
    about = state(repo)
    assert (about["commit"], about["branch"]) == (git(repo, "rev-parse", "HEAD"), None)
    assert about.get("problem") is None


def test_a_worktree_is_its_own_tree(tmp_path: Path) -> None:
    """What has changed in the other one is not this one's."""
    repo = repository(tmp_path / "repo", {"a.txt": "one\n"})
    git(repo, "worktree", "add", "-q", "-b", "side", str(tmp_path / "side"))
    (repo / "a.txt").write_text("two\n")
    about = state(tmp_path / "side")
    assert (about["branch"], about["is_dirty"]) == ("side", False)
    assert (state(repo)["branch"], state(repo)["is_dirty"]) == ("main", True)


def test_a_submodule_is_its_commit(tmp_path: Path) -> None:
    """What stands in it is another repository's; that it has moved on is a change, and said."""
    inner = repository(tmp_path / "inner", {"b.txt": "one\n"})
    repo = repository(tmp_path / "repo", {"a.txt": "one\n"})
    allowed = ("-c", "protocol.file.allow=always")
    git(repo, *allowed, "submodule", "--quiet", "add", str(inner), "sub")
    git(repo, "commit", "-q", "-m", "with it")
    (repo / "sub" / "b.txt").write_text("two\n")
    assert state(repo)["is_dirty"] is False
    git(repo / "sub", "commit", "-q", "-am", "on")
    about = state(repo)
    (left_out,) = about["left_out"]
    assert (about["changed"], left_out["path"]) == (1, "sub")
    assert "another repository" in left_out["reason"]


@pytest.mark.storm
def test_a_large_repository_is_seen_in_time(tmp_path: Path) -> None:
    """100,000 files are within the default timeout of git."""
    files = {f"d{n // 100}/f{n}.py": f"x = {n}\n" for n in range(repetitions(100_000))}
    repo = repository(tmp_path / "repo", files)
    (repo / "d0" / "f0.py").write_text("changed\n")
    (repo / "new.py").write_text("new\n")
    began = time.monotonic()
    about = state(repo, timeout=ProvenanceConfig().timeout)
    print(f"{len(files)} files: {time.monotonic() - began:.2f} s")
    assert (about["changed"], about["untracked"], about.get("problem")) == (1, 1, None)


def test_a_diff_is_cut_where_it_is_too_large(tmp_path: Path) -> None:
    """It ends at the end of a line, and says so."""
    repo = repository(tmp_path / "repo", {"a.txt": "".join(f"{n}\n" for n in range(20_000))})
    (repo / "a.txt").write_text("".join(f"x{n}\n" for n in range(20_000)))
    code = code_state(str(repo), (), (), 30.0, 10_000, 10_000)
    assert code.about["diff_is_cut"]
    assert len(code.diff) < 11_000
    assert code.diff.endswith(b"larger than provenance.largest_total\n")


DYING = """
import os, signal, sys, time
from keisei import SessionManager, load_config
config = load_config(overrides={"logging.log_dir": sys.argv[1], "provenance.timeout": 600.0})
with SessionManager(config, run_name="r"):
    while not os.path.exists(sys.argv[2]):
        time.sleep(0.01)
    os._exit(3) if sys.argv[3] == "exit" else os.kill(os.getpid(), signal.SIGKILL)
"""


@pytest.mark.skipif(os.name == "nt", reason="git is watched by a shell of POSIX")
@pytest.mark.parametrize("end", ["kill", "exit"])
def test_git_dies_with_its_program(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, end: str
) -> None:
    """By SIGKILL or `os._exit`, of which nothing in the program hears."""
    noted = hung_git(tmp_path, monkeypatch)
    command = [sys.executable, "-c", DYING, str(tmp_path / "runs"), str(noted), end]
    assert subprocess.run(command, timeout=60).returncode in (3, -9)
    wait_for_their_end(noted)
