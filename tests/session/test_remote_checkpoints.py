"""A session's checkpoints follow to `checkpoints.remote`, and bring the run back from there."""

from __future__ import annotations

import shutil
import threading
import time
from pathlib import Path

import pytest

from keisei import AsyncSessionManager, CheckpointError, SessionManager
from tests.conftest import MakeConfig


@pytest.fixture
def there(tmp_path: Path) -> Path:
    """Where the copies of the run `r` are."""
    return tmp_path / "there" / "r"


@pytest.fixture
def with_remote(make_config: MakeConfig, there: Path) -> MakeConfig:
    """Makes configs whose checkpoints are copied to a directory."""

    def make(**sections: dict[str, object]) -> object:
        section = {"remote": there.parent.as_uri(), **sections.pop("checkpoints", {})}
        return make_config(checkpoints=section, **sections)

    return make  # type: ignore[return-value]


def names(directory: Path) -> list[str]:
    """Return the names of the checkpoints in a directory."""
    return sorted(path.name for path in directory.glob("checkpoint_*.ckpt"))


async def test_a_run_whose_disk_is_gone_goes_on(with_remote: MakeConfig, there: Path) -> None:
    """From the newest copy, as a run of its own with the steps of the first one."""
    async with AsyncSessionManager(with_remote(), run_name="r") as first:
        for step in (1, 2):
            await first.save_checkpoint({"step": step}, step)
    assert names(there) == ["checkpoint_1.ckpt", "checkpoint_2.ckpt"]
    shutil.rmtree(first.run_artifact_dir)
    async with AsyncSessionManager(with_remote(), run_name="r") as second:
        restored = await second.restore_checkpoint()
        assert restored is not None
        assert restored.state == {"step": 2}
        await second.save_checkpoint({"step": 3}, 3)
    assert second.session_id != first.session_id
    assert len(names(there)) == 3
    async with AsyncSessionManager(with_remote(), run_name="r") as third:
        restored = await third.restore_checkpoint()
        assert restored is not None
        assert restored.step == 3


def test_the_retention_holds_there_too(with_remote: MakeConfig, there: Path) -> None:
    """What the policy removes here is removed there."""
    with SessionManager(with_remote(), run_name="r") as session:
        session.setup_auto_checkpointing(interval=1, keep_last=2, state={"x": 1})
        for step in range(1, 6):
            session.checkpoint_if_due(step)
    assert names(there) == names(Path(session.model_dir))
    assert names(there) == ["checkpoint_4.ckpt", "checkpoint_5.ckpt"]


def test_what_does_not_verify_here_is_fetched(with_remote: MakeConfig, there: Path) -> None:
    """The damaged one is set aside, and its copy takes its name."""
    with SessionManager(with_remote(), run_name="r") as session:
        session.save_checkpoint({"step": 7}, 7)
    local = Path(session.model_dir) / "checkpoint_7.ckpt"
    (local / "state.json").write_bytes(b"{}")
    with SessionManager(with_remote(), run_name="r") as session:
        restored = session.restore_checkpoint()
        assert restored is not None
        assert restored.state == {"step": 7}
    assert (Path(session.model_dir) / "checkpoint_7.ckpt.corrupt").is_dir()


def test_what_is_out_of_reach_is_no_start_from_scratch(
    make_config: MakeConfig, tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    """A restore that cannot know whether there is a copy says so; a save warns, and is whole."""
    (tmp_path / "file").write_bytes(b"")
    config = make_config(checkpoints={"remote": (tmp_path / "file" / "x").as_uri()})
    with SessionManager(config, run_name="r") as session:
        with pytest.raises(CheckpointError, match="cannot be listed"):
            session.restore_checkpoint()
        session.save_checkpoint({"x": 1}, 1)
        session.save_checkpoint({"x": 1}, 2)
    assert session.status == "completed"
    warnings = [record.message for record in caplog.records if record.levelname == "WARNING"]
    assert len([text for text in warnings if "is not copied" in text]) == 1
    assert len([text for text in warnings if "not every checkpoint is copied" in text]) == 1


def test_a_password_in_the_url_is_shown_nowhere(
    make_config: MakeConfig, tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    """Neither in files nor in messages, errors and the summary."""
    config = make_config(checkpoints={"remote": "ftp://user:hunter2secret@127.0.0.1:9/runs"})
    with SessionManager(config, run_name="r") as session:
        with pytest.raises(CheckpointError) as refused:
            session.restore_checkpoint()
        session.save_checkpoint({"x": 1}, 1)
        session.log_evaluation({"score": 1.0}, step=1)
    shown = f"{refused.value!r} {refused.value.path} {caplog.text} {session.get_session_summary()}"
    assert "hunter2secret" not in shown
    for path in tmp_path.rglob("*"):
        assert not path.is_file() or b"hunter2secret" not in path.read_bytes(), path


async def test_the_loop_never_waits_for_the_url(
    make_config: MakeConfig, monkeypatch: pytest.MonkeyPatch
) -> None:
    """A server that hangs holds up neither a save nor the next one; the end gives it its time."""
    import fsspec
    from fsspec.implementations.memory import MemoryFileSystem

    released = threading.Event()

    class Hanging(MemoryFileSystem):  # type: ignore[misc]
        protocol = "hanging"
        store: dict[str, object] = {}

        def ls(self, path: str, detail: bool = True, **kwargs: object) -> list[object]:
            released.wait(30)
            raise FileNotFoundError(path)

    fsspec.register_implementation("hanging", Hanging, clobber=True)
    monkeypatch.setattr("keisei.session.checkpointing.COPIES_TIMEOUT", 0.05)
    config = make_config(checkpoints={"remote": "hanging://x"})
    async with AsyncSessionManager(config, run_name="r") as session:
        for step in range(3):
            await session.save_checkpoint({"x": step}, step)
    assert session.status == "completed"
    assert len(names(Path(session.model_dir))) == 3
    released.set()
    while any(thread.name == "keisei-copies" for thread in threading.enumerate()):
        time.sleep(0.001)
