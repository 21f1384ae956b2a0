"""Parts of a run: each is claimed by one process, which is known to live, and to have died."""

from __future__ import annotations

import json
import multiprocessing
import os
import subprocess
import sys
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import pytest

from keisei import SessionManager
from keisei._io.directories import OpenDirectory
from keisei.errors import (
    DirectorySetupError,
    HandleError,
    InvalidRoleError,
    PartInUseError,
    RunEndedError,
    TakenOverError,
)
from keisei.journal.format import attempt_of, file_name, part_of
from keisei.run.joined import JoinedRun, join
from keisei.run.part_file import PartRecord, check_role, rank_of
from keisei.run.parts import FoundPart, OwnedPart, claim_part, parts_of
from tests.conftest import MakeConfig

CLAIM = """
import sys
from keisei.run.joined import join
from keisei.run.parts import claim_part
directory, name, session_id, attempt, role = sys.argv[1:]
part = claim_part(join(directory, name, session_id, int(attempt)), role=role)
print("ready", flush=True)
sys.stdin.read()
"""


@pytest.fixture
def session(make_config: MakeConfig) -> Iterator[SessionManager[Any]]:
    """A session that is at work."""
    with SessionManager(make_config(), run_name="r") as session:
        yield session


def joined(session: SessionManager[Any], **changes: Any) -> JoinedRun:
    """Join a session's run."""
    about = {
        "directory": session.run_artifact_dir,
        "run_name": session.run_name,
        "session_id": session.session_id,
        "attempt": 1,
    }
    return join(**{**about, **changes})


def claimed(session: SessionManager[Any], role: str | None = "a", **rank: int) -> OwnedPart:
    """Claim a part of a session's run."""
    return claim_part(joined(session), role=None if rank else role, **rank)


def found(session: SessionManager[Any], **options: Any) -> list[FoundPart]:
    """Find the parts of a session's run."""
    with OpenDirectory(session.run_artifact_dir) as directory:
        return parts_of(directory, **options)


def states(session: SessionManager[Any], **options: Any) -> dict[str, str]:
    """Return the states of the parts of a session's run, by name."""
    return {part.part: part.state for part in found(session, **options)}


@contextmanager
def claimed_elsewhere(session: SessionManager[Any], role: str) -> Iterator[subprocess.Popen[bytes]]:
    """Claim a part in a process of its own, which is killed at the end of the block."""
    about = [session.run_artifact_dir, session.run_name, session.session_id, "1", role]
    command = [sys.executable, "-c", CLAIM, *about]
    with subprocess.Popen(command, stdin=subprocess.PIPE, stdout=subprocess.PIPE) as process:
        assert process.stdout is not None
        assert process.stdout.readline() == b"ready\n"
        yield process
        process.kill()


def test_the_names_of_journals_tell_parts_from_the_owner() -> None:
    """A part's journal is not taken for the owner's own, whatever the part is called."""
    assert part_of(file_name(3)) == (3, None)
    assert part_of(file_name(3, "rank12")) == (3, "rank12")
    assert part_of(file_name(3, "2")) == (3, "2")
    assert part_of("metrics.3..journal") is None
    assert attempt_of(file_name(3, "2")) is None
    assert attempt_of(file_name(3, "2"), "2") == 3


@pytest.mark.parametrize(
    "role",
    [
        *("", "../x", "a/b", "a\0b", ".hidden", "x" * 129, "rank3", "RANK3", "rank0.x", "con"),
        *("superseded", "superseded.a", "owner", "all", "a\n", None, 3),
    ],
)
def test_hostile_and_reserved_roles_are_refused(role: object) -> None:
    """A role that could not safely name a file, or that names a rank, is an error that says so."""
    with pytest.raises(InvalidRoleError, match="role") as caught:
        check_role(role)
    assert isinstance(caught.value, ValueError)
    assert "\n" not in str(caught.value)


def test_legal_roles() -> None:
    """A role may have what a run's name may have."""
    assert [check_role(role) for role in ("rollout-3", "ranking", "a.b_c", "7")]
    assert rank_of("rank12") == 12
    assert rank_of("rank01") is None


def test_a_part_from_its_claim_to_its_end(session: SessionManager[Any]) -> None:
    """A part that is claimed is running, and has the end that it is given."""
    part = claimed(session, rank=3)
    assert states(session) == {"rank3": "running"}
    part.show_life()
    part.end("completed")
    part.end("failed")
    part.release()
    part.release()
    (one,) = found(session, attempt=1)
    assert (one.part, one.attempt, one.state) == ("rank3", 1, "completed")
    assert one.record is not None
    assert one.record.rank == 3
    assert one.record.role is None
    assert one.record.ended_at is not None
    assert found(session, attempt=2) == []
    assert {path.stat().st_mode & 0o777 for path in parts_directory(session).iterdir()} == {0o600}


def parts_directory(session: SessionManager[Any]) -> Path:
    """Return the directory of the parts of a session's run."""
    return Path(session.run_artifact_dir, "parts")


def test_two_that_live_cannot_have_one_part(session: SessionManager[Any]) -> None:
    """The second is refused, here and in another process, and the error names the first."""
    part = claimed(session)
    with pytest.raises(PartInUseError, match=f"process {os.getpid()} on host") as caught:
        claimed(session)
    assert caught.value.pid == os.getpid()
    part.release()
    with claimed_elsewhere(session, "a") as process:
        with pytest.raises(PartInUseError, match=f"process {process.pid} on host"):
            claimed(session)
        assert states(session) == {"a": "running"}


def test_a_part_of_a_killed_process_is_known_to_have_died_and_is_taken_up(
    session: SessionManager[Any],
) -> None:
    """As soon as the process is gone its part has died, and another one may go on with it."""
    with claimed_elsewhere(session, "a"):
        pass
    assert states(session) == {"a": "died"}
    part = claimed(session)
    assert states(session) == {"a": "running"}
    part.end("completed")
    part.release()
    again = claimed(session)
    assert states(session) == {"a": "running"}
    again.release()


def test_a_fork_does_not_keep_a_part_alive(session: SessionManager[Any]) -> None:
    """A child that was forked from a member holds no lock of its part."""
    part = claimed(session)
    ready, go_on = multiprocessing.Pipe()
    child = multiprocessing.get_context("fork").Process(target=ready.recv, daemon=True)
    child.start()
    part.release()
    assert states(session) == {"a": "died"}
    go_on.send(None)
    child.join()


def test_a_part_on_another_host_has_died_when_it_is_silent(session: SessionManager[Any]) -> None:
    """A process that cannot be seen lives until it was silent for too long, or its host is gone."""
    part = claimed(session)
    part.release()
    path = parts_directory(session) / "1.a.json"
    record = json.loads(path.read_text(encoding="utf-8"))
    record["owner"] |= {"host": "node-7", "kernel": "node-7/x", "machine": None}
    path.write_text(json.dumps(record), encoding="utf-8")
    assert states(session) == {"a": "elsewhere"}
    assert states(session, silent_after=30) == {"a": "elsewhere"}
    assert states(session, gone=["node-7"]) == {"a": "died"}
    with pytest.raises(PartInUseError, match="node-7"):
        claimed(session)
    os.utime(path, (1, 1))
    assert states(session, silent_after=30) == {"a": "died"}
    claimed(session).release()


def test_parts_are_sorted_and_a_damaged_one_is_unreadable(session: SessionManager[Any]) -> None:
    """Rank 2 comes before rank 10; a file that is no record hides no other one."""
    owned = [claimed(session, rank=rank) for rank in (10, 2)]
    (parts_directory(session) / "1.b.json").write_text("{", encoding="utf-8")
    (parts_directory(session) / "1.c.json").symlink_to("1.rank2.json")
    (parts_directory(session) / "notes.txt").write_text("", encoding="utf-8")
    assert list(states(session).items()) == [
        ("b", "unreadable"),
        ("c", "unreadable"),
        ("rank2", "running"),
        ("rank10", "running"),
    ]
    for part in owned:
        part.release()


def test_a_run_that_is_not_the_one_that_is_meant(session: SessionManager[Any]) -> None:
    """A directory that is missing, a link, or another run's is an error with the way out."""
    directory = Path(session.run_artifact_dir)
    link = directory.parent / "link"
    link.symlink_to(directory)
    for changes, text in (
        ({"directory": str(directory.parent / "none")}, "mount it there"),
        ({"directory": str(link)}, "link"),
        ({"session_id": "0" * 26}, "Take a handle of the session that is meant"),
        ({"run_name": "other"}, "Take a handle of the session that is meant"),
        ({"attempt": 2}, "attempt 1, and not of run"),
        ({"directory": str(directory.parent)}, "no valid session file"),
    ):
        with pytest.raises(HandleError, match=text):
            joined(session, **changes)


def test_a_link_in_the_place_of_the_parts_is_not_followed(
    session: SessionManager[Any], tmp_path: Path
) -> None:
    """Nothing is written outside of the run."""
    outside = tmp_path / "outside"
    outside.mkdir()
    parts_directory(session).symlink_to(outside)
    with pytest.raises(HandleError, match="Move it away"):
        claimed(session)
    assert list(outside.iterdir()) == []


@pytest.mark.parametrize("name", ["1.a.lock", "1.a.json", "../metrics.1.a.journal"])
def test_what_is_no_file_in_a_parts_place_is_an_error(
    session: SessionManager[Any], name: str
) -> None:
    """A pipe or a link there makes nobody wait and is not followed; the error names the file."""
    parts_directory(session).mkdir()
    path = parts_directory(session) / name
    for place in (os.mkfifo, lambda path: path.symlink_to(path.parent / "elsewhere")):
        place(path)
        with pytest.raises(DirectorySetupError, match=path.name):
            claimed(session)
        path.unlink()
    claimed(session).release()


def test_an_attempt_of_which_only_parts_have_logged_keeps_its_number(
    make_config: MakeConfig,
) -> None:
    """A record that is lost does not lead to two attempts of one number."""
    with SessionManager(make_config(), run_name="r") as session:
        pass
    Path(session.run_artifact_dir, file_name(7, "a")).write_bytes(b"")
    with SessionManager(make_config(), run_name="r") as session:
        assert session.get_session_summary()["attempt"] == 8


def test_files_of_another_user_are_not_mixed_with_the_runs(session: SessionManager[Any]) -> None:
    """A member that would make files which the run's user cannot read is refused."""
    if os.geteuid():
        pytest.skip("only root can make a directory another user's")
    os.chown(session.run_artifact_dir, 12345, -1)
    with pytest.raises(HandleError, match="the user with the id 12345"):
        claimed(session)
    os.chown(session.run_artifact_dir, os.geteuid(), -1)
    claimed(session).release()


@pytest.mark.requirement("RANK-5")
def test_the_runs_end_is_told_to_its_parts(make_config: MakeConfig) -> None:
    """After the run's end nothing is written; the parts are told once, and record their ends."""
    with SessionManager(make_config(), run_name="r") as session:
        part = claimed(session)
        told: list[object] = []
        part.run.on_over(told.append)
        assert part.run.look() is None
    assert isinstance(part.run.look(), RunEndedError)
    assert isinstance(part.run.look(), RuntimeError)
    assert len(told) == 1
    with pytest.raises(RunEndedError, match="has ended as completed"), part.run.home.entered():
        pass
    part.end("cancelled")
    part.release()
    assert states(session) == {"a": "cancelled"}
    with pytest.raises(RunEndedError, match="has ended as completed"):
        joined(session)


def test_a_later_attempt_refuses_the_parts_of_an_earlier_one(make_config: MakeConfig) -> None:
    """An old member cannot write to the new attempt's run, nor keep its role from it."""
    with SessionManager(make_config(), run_name="r") as session:
        part = claimed(session)
    with SessionManager(make_config(), run_name="r") as session:
        with pytest.raises(TakenOverError, match="goes on as attempt 2"), part.run.home.entered():
            pass
        with pytest.raises(TakenOverError, match="Take a handle of the session that goes on"):
            joined(session)
        new = claim_part(joined(session, attempt=2), role="a")
        part.end("failed")
        assert states(session) == {"a": "running"}
        assert states(session, attempt=1) == {"a": "failed"}
        new.release()
    part.release()


def test_a_run_whose_owner_was_killed_takes_no_new_part(
    session: SessionManager[Any], make_config: MakeConfig, tmp_path: Path
) -> None:
    """A handle of a run that nobody owns any more is refused."""
    program = (
        "from keisei import *\n"
        "s = SessionManager(AppConfig(), run_name='dead')\n"
        "s.__enter__(); print(s.session_id, flush=True); input()"
    )
    root = os.path.dirname(session.run_artifact_dir)
    with subprocess.Popen(
        [sys.executable, "-c", program],
        env={**os.environ, "KEISEI_LOG_DIR": root},
        stdin=subprocess.PIPE,
        stdout=subprocess.PIPE,
        text=True,
    ) as owner:
        assert owner.stdout is not None
        session_id = owner.stdout.readline().strip()
        owner.kill()
    with pytest.raises(RunEndedError, match="its owner is gone"):
        join(os.path.join(root, "dead"), "dead", session_id, 1)


@pytest.mark.skipif(not os.path.isdir("/proc/self/fd"), reason="descriptors cannot be listed here")
# What git writes to is open for a moment, and all that is open is counted.
def test_many_parts_in_one_process_share_one_descriptor(session: SessionManager[Any]) -> None:
    """A process has one descriptor of the run's directory, and one lock for each part."""
    before = len(os.listdir("/proc/self/fd"))
    owned = [claimed(session, role=f"m{i}") for i in range(100)]
    assert len(os.listdir("/proc/self/fd")) == before + 101
    assert len(found(session)) == 100
    for part in owned:
        part.release()
    assert len(os.listdir("/proc/self/fd")) == before


def test_a_record_reads_back() -> None:
    """A record of a part is what its text says; a hostile name in it is none."""
    assert PartRecord.parsed(b"{}") is None
    assert PartRecord.parsed(b"\xff") is None
