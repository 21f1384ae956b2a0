"""Commands that work on directories tell the registry, and ask it who is lost."""

from __future__ import annotations

import json
import re
import shutil
from pathlib import Path

import pytest
import sqlalchemy as sa
from typer.testing import CliRunner, Result

from keisei import Registry, SessionManager
from keisei.cli import doctor as _doctor  # noqa: F401 - registers the commands
from keisei.cli import labels as _labels  # noqa: F401
from keisei.cli import ls as _ls  # noqa: F401
from keisei.cli import show as _show  # noqa: F401
from keisei.cli import trash as _trash  # noqa: F401
from keisei.cli.program import app
from keisei.run.lease import Holder
from keisei.store import clock, leases, schema
from keisei.store.database import Database
from tests.conftest import MakeConfig
from tests.support.runs import Runs

TTL = 1000.0  # seconds


@pytest.fixture
def runs(tmp_path: Path, make_config: MakeConfig) -> Runs:
    """A root without runs."""
    return Runs(tmp_path / "runs", make_config)


@pytest.fixture
def url(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> str:
    """The URL of an empty registry, which the environment names."""
    url = f"sqlite:///{tmp_path}/registry.db"
    monkeypatch.setenv("KEISEI_REGISTRY_URL", url)
    return url


def invoke(*arguments: str, status: int = 0) -> Result:
    """Run a command in this process."""
    done = CliRunner().invoke(app, arguments)
    assert done.exit_code == status, done.output
    return done


def acquire(url: str, session_id: str, *, over: bool = False, attempt: int = 1) -> Holder:
    """Acquire a run's lease for another host's process, and let its time be over."""
    holder = Holder("node-7", 11, "x", attempt)
    one = schema.leases.c.session_id == session_id
    with Database(url) as database, database.writing() as connection:
        connection.execute(sa.delete(schema.leases).where(one))  # of the session that has made it
        assert leases.acquire(connection, session_id, holder, TTL) == 1
        if over:
            done = sa.update(schema.leases).where(one).values(expires=clock.now() - 1.0)
            connection.execute(done)
    return holder


@pytest.mark.requirement("REG-4")
def test_doctor_knows_of_other_hosts_by_their_leases(runs: Runs, url: str) -> None:
    """A live lease is a running owner, and one that is over a lost run; else nobody can tell."""
    for name in ("lives", "lost", "unknown"):
        runs.elsewhere(name)
    acquire(url, runs.record("lives")["session_id"])
    acquire(url, runs.record("lost")["session_id"], over=True)
    report = runs.doctor()
    assert report.states == {"lives": "running", "lost": "lost", "unknown": "elsewhere"}
    assert report.findings("lost") == [("owner", "", "repairable")]
    code, out, _ = runs.doctor_text("lost")
    assert code == 1
    assert "process" in out
    assert re.search(r"has stopped renewing its lease, 10\d\d s ago for the last time", out)


@pytest.mark.requirement("REG-4")
def test_doctor_closes_a_lost_run(runs: Runs, url: str) -> None:
    """It ends as failed, under its lease, and the registry knows it; its owner cannot renew."""
    runs.elsewhere("lost")
    runs.elsewhere("lives")
    session_id = runs.record("lost")["session_id"]
    holder = acquire(url, session_id, over=True)
    acquire(url, runs.record("lives")["session_id"])
    report = runs.doctor("--fix")
    assert report.states == {"lives": "running", "lost": "failed"}
    assert runs.record("lost")["status"] == "failed"
    assert runs.record("lives")["status"] == "running"
    with Registry(url) as registry:
        assert [row.status for row in registry.runs("lost")] == ["failed"]
    with Database(url) as database, database.writing() as connection:
        assert leases.renew(connection, session_id, holder, 1, TTL) is not None
        assert leases.acquire(connection, session_id, holder, TTL) == 3  # it was released


def test_doctor_leaves_a_run_that_is_renewed_meanwhile(
    runs: Runs, url: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    """The statement that takes the lease looks again."""
    runs.elsewhere("lost")
    session_id = runs.record("lost")["session_id"]
    holder = acquire(url, session_id, over=True)

    def renewed_before(*arguments: object) -> object:
        with Database(url) as database, database.writing() as connection:
            assert leases.renew(connection, session_id, holder, 1, TTL) is None
        return take_over(*arguments)  # type: ignore[arg-type]

    from keisei.store.opening import Opened

    take_over = Opened.take_over
    monkeypatch.setattr(Opened, "take_over", renewed_before)
    assert runs.doctor("--fix").states == {"lost": "elsewhere"}
    assert runs.record("lost")["status"] == "running"


def test_a_process_that_is_seen_is_not_lost(runs: Runs, url: str) -> None:
    """Whoever lives here and has stopped renewing is a hint, and nothing is repaired."""
    with SessionManager(runs.make_config(), run_name="r") as session:
        acquire(url, session.session_id, over=True)
        report = runs.doctor("--fix")
        assert report.states == {"r": "running"}
        assert report.findings() == [("owner", "", "hint")]
        assert report.code == 0


def test_doctor_goes_on_without_a_registry_that_cannot_be_used(
    runs: Runs, monkeypatch: pytest.MonkeyPatch
) -> None:
    """It says so once, and judges by what it sees."""
    monkeypatch.setenv("KEISEI_REGISTRY_URL", "mysql://me:s3cr3t-pass@h/d")
    for name in ("a", "b"):
        runs.elsewhere(name)
    code, out, err = runs.doctor_text()
    assert code == 0
    assert "2 elsewhere" in out
    assert err.count("goes on without the registry") == 1
    assert "s3cr3t-pass" not in out + err


def test_commands_that_change_a_run_tell_the_registry(runs: Runs, url: str) -> None:
    """Labels, the trash and repairs are in lists at once, whichever source they have."""
    root = ("--root", str(runs.root))
    for name in ("a", "b"):
        runs.completed(name)
    runs.killed("c")
    with Registry(url) as registry:
        registry.rebuild([runs.root])
    for arguments in (
        ["tag", "a", "best", "old", *root],
        ["untag", "a", "old", *root],
        ["note", "a", "the one", *root],
        ["rm", "b", *root],
        ["doctor", "--fix", "c", *root],
    ):
        invoke(*arguments)
        listed = [json.loads(invoke("ls", "--json", *way).stdout) for way in ((), root)]
        assert listed[0]["runs"] == listed[1]["runs"], arguments
    assert listed[0]["runs"][-1]["tags"] == ["best"]
    assert [run["status"] for run in listed[0]["runs"]] == ["failed", "completed"]
    invoke("restore", "b", *root)
    assert (
        invoke("ls", "-c", "name,status").stdout == invoke("ls", "-c", "name,status", *root).stdout
    )


def test_a_run_of_another_root_is_found(runs: Runs, url: str) -> None:
    """A run that no root has here is looked up in the registry, by its name or its id."""
    runs.completed("a")
    session_id = runs.record("a")["session_id"]
    with Registry(url) as registry:
        registry.rebuild([runs.root])
    moved = runs.root.parent / "other"
    runs.root.rename(moved)
    with Registry(url) as registry:
        registry.rebuild([moved])
    invoke("tag", "a", "x")
    invoke("tag", session_id, "y")
    assert json.loads(invoke("show", "a", "--json").stdout)["tags"] == ["x", "y"]
    assert "no run 'z'" in invoke("tag", "z", "x", status=2).output
    shutil.rmtree(moved)
    assert "cannot be seen from here" in invoke("tag", "a", "x", status=2).output


def test_without_the_registry_the_directory_is_changed(
    runs: Runs, monkeypatch: pytest.MonkeyPatch
) -> None:
    """A registry that is away costs one warning, and not the tag."""
    monkeypatch.setenv("KEISEI_REGISTRY_URL", "postgresql://me:s3cr3t-pass@127.0.0.1:1/d")
    runs.completed("a")
    done = invoke("tag", "a", "x", "--root", str(runs.root))
    assert "tags: x" in done.stdout
    assert done.stderr.count("goes on without the registry") == 1
    assert "s3cr3t-pass" not in done.output


def test_a_copy_takes_no_row(runs: Runs, url: str) -> None:
    """The row stays the first directory's, also where the copy is tagged."""
    path = runs.completed("a")
    with Registry(url) as registry:
        registry.rebuild([runs.root])
        shutil.copytree(path, runs.root / "b")
        invoke("tag", "b", "x", "--root", str(runs.root))
        (row,) = registry.runs()
        assert (row.name, row.tags) == ("a", ())
        shutil.rmtree(path)
        invoke("tag", "b", "y", "--root", str(runs.root))
        (row,) = registry.runs()
        assert (row.name, row.tags) == ("b", ("x", "y"))
