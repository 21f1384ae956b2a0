"""The run's directories: where they are, whose they are, and what happens where they cannot be."""

from __future__ import annotations

import contextlib
import itertools
import json
import logging
import os
import subprocess
import sys
from pathlib import Path
from typing import Any

import pytest

from keisei import (
    AsyncSessionManager,
    DirectorySetupError,
    NotReadyError,
    SessionEndedError,
    SessionInUseError,
    SessionManager,
)
from keisei.errors import KeiseiError
from tests.conftest import MakeConfig
from tests.support.session_files import record_of

NAMES = ["run_artifact_dir", "model_dir", "log_file_path", "eval_log_file_path"]


@pytest.mark.requirement("DIR-1", "DIR-2", "DIR-3", "DIR-6")
async def test_the_layout_is_made_and_returned(make_config: MakeConfig, tmp_path: Path) -> None:
    """The four paths are absolute, exist, and a second call changes nothing."""
    session = AsyncSessionManager(make_config(), run_name="r")
    paths = await session.setup_directories()
    run = tmp_path / "runs" / "r"
    assert paths == {
        "run_artifact_dir": str(run),
        "model_dir": str(run / "models"),
        "log_file_path": str(run / "training.log"),
        "eval_log_file_path": str(run / "evaluation.log"),
    }
    assert list(paths) == NAMES
    assert [getattr(session, name) for name in NAMES] == list(paths.values())
    assert all(os.path.exists(path) for path in paths.values())
    before = {p: p.stat().st_mtime_ns for p in run.rglob("*")}
    assert await session.setup_directories() == paths
    assert {p: p.stat().st_mtime_ns for p in run.rglob("*")} == before
    await session.save_effective_config()
    await session.finalize_session()
    assert await session.setup_directories() == paths
    assert sorted(os.listdir(run)) == [
        "effective_config.json",
        "evaluation.log",
        "models",
        "session.json",
        "training.log",
    ]


@pytest.mark.skipif(os.name == "nt", reason="Windows has no modes of this kind")
async def test_only_the_owner_can_read_what_is_made(make_config: MakeConfig) -> None:
    """Directories get mode 0700, files 0600."""
    async with AsyncSessionManager(make_config()) as session:
        run = Path(session.run_artifact_dir)
    for path in [run, *run.rglob("*")]:
        assert path.stat().st_mode & 0o777 == (0o700 if path.is_dir() else 0o600), path


@pytest.mark.requirement("DIR-3")
async def test_the_root_is_the_environments_then_the_configs_then_runs(
    make_config: MakeConfig, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """KEISEI_LOG_DIR comes before `log_dir` comes before `runs`, and so for the models."""
    plain = AsyncSessionManager(make_config(logging={"log_dir": None}), run_name="a")
    assert (await plain.setup_directories())["run_artifact_dir"] == str(tmp_path / "runs" / "a")

    config = make_config(logging={"log_dir": "there", "model_dir": "weights"})
    paths = await AsyncSessionManager(config, run_name="b").setup_directories()
    assert paths["run_artifact_dir"] == str(tmp_path / "there" / "b")
    assert paths["model_dir"] == str(tmp_path / "weights" / "b")

    monkeypatch.setenv("KEISEI_LOG_DIR", str(tmp_path / "elsewhere"))
    monkeypatch.setenv("KEISEI_MODEL_DIR", "~/models")
    paths = await AsyncSessionManager(config, run_name="c").setup_directories()
    assert paths["run_artifact_dir"] == str(tmp_path / "elsewhere" / "c")
    assert paths["model_dir"] == str(tmp_path / "home" / "models" / "c")
    assert os.path.isdir(paths["model_dir"])


@pytest.mark.requirement("DIR-5")
@pytest.mark.parametrize("face", [AsyncSessionManager, SessionManager])
def test_reading_a_path_too_early_names_the_step(make_config: MakeConfig, face: Any) -> None:
    """Every path says which call is missing."""
    session = face(make_config())
    for name in NAMES:
        with pytest.raises(NotReadyError, match=r"setup_directories\(\)") as caught:
            getattr(session, name)
        assert isinstance(caught.value, RuntimeError)


@pytest.mark.requirement("DIR-7")
async def test_the_record_tells_the_whole_story(make_config: MakeConfig) -> None:
    """`session.json` holds id, name, attempt, owner, status, times and paths at every change."""
    session = AsyncSessionManager(make_config(), run_name="r")
    paths = await session.setup_directories()
    running = record_of(session)
    assert running["session_id"] == session.session_id
    assert (running["run_name"], running["attempt"], running["status"]) == ("r", 1, "running")
    assert running["owner"]["pid"] == os.getpid()
    assert running["owner"]["host"]
    assert running["owner"]["process_start"]
    assert running["paths"] == paths
    assert running["ended_at"] is None
    await session.finalize_session("preempted")
    ended = record_of(session)
    assert ended["status"] == session.status == "preempted"
    assert ended["started_at"] == running["started_at"] <= ended["ended_at"]
    assert ended["duration_s"] >= 0


@pytest.mark.requirement("DIR-8")
async def test_a_live_owners_run_is_refused(make_config: MakeConfig) -> None:
    """The second session of one name gets an error that names the owner and the ways out."""
    first = AsyncSessionManager(make_config(), run_name="r")
    await first.setup_directories()
    for if_exists in ("resume", "refuse"):
        second = AsyncSessionManager(make_config(logging={"if_exists": if_exists}), run_name="r")
        with pytest.raises(SessionInUseError) as caught:
            await second.setup_directories()
        assert caught.value.pid == os.getpid()
        assert caught.value.host is not None
        for word in (str(os.getpid()), "another run name", "number"):
            assert word in str(caught.value)
    assert record_of(first)["attempt"] == 1
    await first.finalize_session()


@pytest.mark.requirement("DIR-8", "ID-4")
async def test_a_run_is_resumed_as_its_next_attempt(make_config: MakeConfig) -> None:
    """It keeps its id, its logs are appended to, and the earlier config stays beside the new."""
    config = make_config()
    async with AsyncSessionManager(config, run_name="r") as first:
        Path(first.model_dir, "model.bin").write_bytes(b"x")
    config.training.total_timesteps = 5
    async with AsyncSessionManager(config, run_name="r") as second:
        assert second.session_id == first.session_id
        assert second.get_session_summary()["attempt"] == 2
    run = Path(second.run_artifact_dir)
    assert record_of(second)["attempt"] == 2
    assert (run / "models" / "model.bin").exists()
    log = (run / "training.log").read_text(encoding="utf-8")
    assert log.count("session started") == log.count("session ended") == 2
    kept = json.loads((run / "effective_config.attempt-1.json").read_text(encoding="utf-8"))
    now = json.loads((run / "effective_config.json").read_text(encoding="utf-8"))
    assert kept["training"]["total_timesteps"] == 1_000_000
    assert now["training"]["total_timesteps"] == 5
    async with AsyncSessionManager(config, run_name="r") as third:
        assert third.get_session_summary()["attempt"] == 3
    assert (run / "effective_config.attempt-2.json").exists()


@pytest.mark.requirement("DIR-8")
async def test_if_exists_refuses_or_numbers(make_config: MakeConfig) -> None:
    """`refuse` leaves the run alone, `number` gives the next free name."""
    async with AsyncSessionManager(make_config(), run_name="r"):
        pass
    refusing = AsyncSessionManager(make_config(logging={"if_exists": "refuse"}), run_name="r")
    with pytest.raises(SessionInUseError, match="'resume' or 'number'"):
        await refusing.setup_directories()
    numbering = make_config(logging={"if_exists": "number"})
    for expected in ("r-2", "r-3"):
        async with AsyncSessionManager(numbering, run_name="r") as session:
            assert session.run_name == expected
            assert session.get_session_summary()["attempt"] == 1
            assert record_of(session)["run_name"] == expected


@pytest.mark.requirement("DIR-8")
async def test_a_dead_owners_run_is_taken_up_again(make_config: MakeConfig, tmp_path: Path) -> None:
    """A run whose process was killed is still `running` on disk, and the next start resumes it."""
    code = (
        "import os, signal\n"
        "from keisei import AppConfig, SessionManager\n"
        "session = SessionManager(AppConfig(), run_name='r')\n"
        "session.setup_directories()\n"
        "print(session.session_id, flush=True)\n"
        "os.kill(os.getpid(), signal.SIGKILL)\n"
    )
    environ = {**os.environ, "KEISEI_LOG_DIR": str(tmp_path / "runs")}
    done = subprocess.run([sys.executable, "-c", code], env=environ, capture_output=True, text=True)
    assert done.returncode == -9, done.stderr
    on_disk = json.loads((tmp_path / "runs" / "r" / "session.json").read_text(encoding="utf-8"))
    assert on_disk["status"] == "running"
    async with AsyncSessionManager(make_config(), run_name="r") as session:
        assert session.session_id == done.stdout.strip()
        assert session.get_session_summary()["attempt"] == 2


def blocked(kind: str, place: Path) -> None:
    """Put something where a directory should be."""
    place.parent.mkdir(parents=True, exist_ok=True)
    if kind == "file":
        place.write_text("in the way")
    elif kind == "dangling link":
        place.symlink_to(place.parent / "nowhere")
    else:
        outside = place.parent.parent / "outside"
        outside.mkdir(exist_ok=True)
        place.symlink_to(outside)


@pytest.mark.requirement("DIR-4")
@pytest.mark.parametrize(
    ("where", "kind"),
    [
        ("runs", "file"),
        *itertools.product(["runs/r", "runs/r/models"], ["file", "dangling link", "link"]),
        *itertools.product(["runs/r/training.log"], ["dangling link", "link"]),
    ],
)
async def test_a_place_that_is_taken_is_a_typed_error(
    make_config: MakeConfig, tmp_path: Path, kind: str, where: str
) -> None:
    """A file or link where a directory should be (or the reverse) is named, and left alone."""
    place = tmp_path / "deep" / where
    blocked(kind, place)
    config = make_config(logging={"log_dir": str(tmp_path / "deep" / "runs")})
    before = sorted(tmp_path.rglob("*"))
    session = AsyncSessionManager(config, run_name="r")
    with pytest.raises(DirectorySetupError) as caught:
        await session.setup_directories()
    assert isinstance(caught.value, RuntimeError)
    assert place.name in str(caught.value)
    assert "logging.log_dir" in str(caught.value)
    assert caught.value.__cause__ is not None
    after = [p for p in sorted(tmp_path.rglob("*")) if p not in before]
    assert all(p.stat().st_size == 0 or p.is_dir() for p in after), after
    assert not list(tmp_path.rglob("outside/*"))
    assert session.status == "created"
    assert await session.finalize_session() == "completed"


@pytest.mark.requirement("DIR-4")
@pytest.mark.parametrize(
    "root",
    [
        "a\0b",
        "a\ud800b",
        "x" * 300,
        "/".join(["x" * 200] * 30),
        pytest.param(
            "/proc/no/such",
            marks=pytest.mark.skipif(sys.platform != "linux", reason="only Linux has this /proc"),
        ),
        "/dev/null/runs",
    ],
    ids=lambda root: ascii(root)[:20],
)
async def test_a_root_that_no_system_can_make_is_a_typed_error(
    make_config: MakeConfig, root: str
) -> None:
    """Characters, lengths and places that cannot be: one error, in which the path is escaped."""
    session = AsyncSessionManager(make_config(logging={"log_dir": root}))
    with pytest.raises(DirectorySetupError) as caught:
        await session.setup_directories()
    assert str(caught.value).isascii()
    assert str(caught.value).isprintable()
    assert len(str(caught.value)) < 1000


@pytest.mark.requirement("DIR-4")
async def test_a_root_that_cannot_be_made_is_replaced_by_the_fallback(
    make_config: MakeConfig, tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    """One warning says so, the summary says why, and the models come along."""
    (tmp_path / "file").write_text("")
    config = make_config(
        logging={
            "log_dir": str(tmp_path / "file" / "runs"),
            "model_dir": str(tmp_path / "file" / "models"),
            "fallback_dir": str(tmp_path / "spare"),
        }
    )
    async with AsyncSessionManager(config, run_name="r") as session:
        assert session.run_artifact_dir == str(tmp_path / "spare" / "r")
        assert session.model_dir == str(tmp_path / "spare" / "r" / "models")
    assert str(tmp_path / "file") in session.get_session_summary()["fallback_reason"]
    assert [r.levelno for r in caplog.records].count(logging.WARNING) == 1

    config.logging.fallback_dir = tmp_path / "file" / "too"
    with pytest.raises(DirectorySetupError, match=r"fallback_dir .*file"):
        await AsyncSessionManager(config, run_name="r").setup_directories()


@pytest.mark.requirement("DIR-4")
@pytest.mark.skipif(sys.platform != "linux", reason="mounts a tmpfs")
async def test_nothing_is_left_where_the_disk_is_full(tiny_disk: Path) -> None:
    """On a full disk the set-up fails whole: no directory, no temporary file."""
    from keisei import load_config

    filler = os.open(tiny_disk / "filler", os.O_WRONLY | os.O_CREAT)
    with contextlib.suppress(OSError):
        while os.write(filler, b"x" * 4096):
            pass
    os.close(filler)
    config = load_config(overrides={"logging.log_dir": str(tiny_disk / "runs")})
    with pytest.raises(DirectorySetupError, match="No space left"):
        await AsyncSessionManager(config, run_name="r").setup_directories()
    assert not (tiny_disk / "runs" / "r").exists()


EARLY = ["setup_wandb", "save_effective_config", "log_session_start"]


@pytest.mark.requirement("DIR-5", "CFG-4", "WB-1", "LOG-2")
@pytest.mark.parametrize("step", EARLY)
async def test_a_step_out_of_order_names_the_missing_one(
    make_config: MakeConfig, step: str
) -> None:
    """Steps that need directories say so, and the session goes on."""
    session = AsyncSessionManager(make_config())
    with pytest.raises(NotReadyError, match=rf"{step}.*setup_directories\(\)"):
        await getattr(session, step)()
    assert session.status == "created"
    await session.setup_directories()
    await getattr(session, step)()


@pytest.mark.requirement("CFG-4")
@pytest.mark.parametrize("step", EARLY)
def test_the_blocking_face_names_the_missing_step_too(make_config: MakeConfig, step: str) -> None:
    """The same error comes through the portal as it is."""
    session = SessionManager(make_config())
    with pytest.raises(NotReadyError, match=rf"{step}.*setup_directories\(\)"):
        getattr(session, step)()


@pytest.mark.parametrize(
    "step",
    ["setup_directories", "setup_wandb", "save_effective_config", "setup_seeding"],
)
async def test_a_step_after_the_end_is_refused(make_config: MakeConfig, step: str) -> None:
    """No step may come after the end, and each says so."""
    session = AsyncSessionManager(make_config())
    await session.finalize_session()
    with pytest.raises(SessionEndedError, match=rf"{step}.*ended as completed") as caught:
        await getattr(session, step)()
    assert isinstance(caught.value, KeiseiError)
