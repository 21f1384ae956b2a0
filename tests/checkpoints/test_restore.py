"""Which checkpoint is restored, and what a directory from somebody else, or half of one, gives."""

from __future__ import annotations

import errno
import os
import shutil
from collections.abc import Sequence
from functools import partial
from pathlib import Path

import pytest

from keisei import CheckpointError
from keisei._io.directories import OpenDirectory
from keisei.checkpoints.commit import commit
from keisei.checkpoints.listing import Stored, found
from keisei.checkpoints.manifest import FORMAT, encode
from keisei.checkpoints.packing import pack
from keisei.checkpoints.pointers import point
from keisei.checkpoints.restore import load
from keisei.checkpoints.retention import Removed, remove
from keisei.checkpoints.verify import verify
from tests.support.checkpoints import (
    RUN,
    contents,
    facts_of,
    restored,
    save,
    state_of,
)
from tests.support.file_faults import Fault, FileFaults


@pytest.fixture
def three(models: OpenDirectory) -> OpenDirectory:
    """A models directory with three checkpoints."""
    for step, loss in ((1, 3.0), (2, 1.0), (3, 2.0)):
        save(models, step, loss=loss)
    return models


def step_of(models: OpenDirectory, which: str | int | os.PathLike[str] = "latest") -> int | None:
    """Load a checkpoint of the run, and return its step."""
    loaded = load(models, which, run=RUN, set_aside=False)
    assert loaded is not None
    return loaded.stored.manifest.step


def state_file(models: OpenDirectory, step: int) -> Path:
    """Return the path of a checkpoint's tree."""
    return Path(models.path, f"checkpoint_{step}.ckpt", "state.json")


def by_loss(stored: Sequence[Stored]) -> list[Stored]:
    """Return checkpoints by their loss."""
    return sorted(stored, key=lambda stored: stored.checkpoint.metrics["loss"])


def test_a_run_without_checkpoints_has_none(models: OpenDirectory) -> None:
    """Neither the newest, nor the best, nor any step; a final model is not one."""
    commit(models, pack(state_of(1), copy=True), facts_of(None))
    for which in ("latest", "best", 7):
        assert load(models, which, run=RUN, set_aside=True) is None


@pytest.mark.requirement("CKPT-6")
def test_the_newest_is_the_one_that_was_committed_last(three: OpenDirectory) -> None:
    """Neither the step decides, nor a pointer, nor a file's time."""
    save(three, 0)
    point(three, "latest", "checkpoint_3.ckpt")
    os.utime(Path(three.path, "checkpoint_0.ckpt"), (0, 0))
    assert step_of(three) == 0


@pytest.mark.requirement("CKPT-6")
def test_the_best_is_the_one_that_the_metric_or_the_pointer_says(three: OpenDirectory) -> None:
    """The metric first; where it does not verify, the next best."""
    point(three, "best", "checkpoint_1.ckpt")
    assert step_of(three, "best") == 1
    load_best = partial(load, three, "best", run=RUN, set_aside=False, ranked=by_loss)
    loaded = load_best()
    assert loaded is not None
    assert loaded.stored.manifest.step == 2
    state_file(three, 2).unlink()
    loaded = load_best()
    assert loaded is not None
    assert loaded.stored.manifest.step == 3
    assert [fault.name for fault in loaded.faults] == ["checkpoint_2.ckpt"]


def test_the_best_of_nothing_known_is_an_error_that_names_the_setting(
    three: OpenDirectory,
) -> None:
    """Nobody has said what is better."""
    with pytest.raises(CheckpointError, match="keep_best"):
        load(three, "best", run=RUN, set_aside=False)


@pytest.mark.requirement("CKPT-6")
def test_a_step_is_restored_and_the_next_older_where_it_does_not_verify(
    three: OpenDirectory,
) -> None:
    """A newer one is no way out: it knows more than was asked for."""
    assert step_of(three, 2) == 2
    state_file(three, 2).write_bytes(b"")
    assert step_of(three, 2) == 1
    Path(three.path, "checkpoint_2.ckpt", "manifest.json").write_bytes(b"")
    assert step_of(three, 2) == 1


def test_a_step_that_is_not_there_is_an_error_with_those_that_are(three: OpenDirectory) -> None:
    """Nothing else is taken for it."""
    with pytest.raises(CheckpointError, match="no checkpoint of step 9.*are 3, 2, 1"):
        load(three, 9, run=RUN, set_aside=False)


@pytest.mark.requirement("CKPT-6")
def test_a_path_names_one_checkpoint_whoevers_it_is(three: OpenDirectory, tmp_path: Path) -> None:
    """A copy anywhere, under any name, and through a link; without another in its place."""
    copy = tmp_path / "a copy"
    shutil.copytree(Path(three.path, "checkpoint_2.ckpt"), copy)
    (tmp_path / "link").symlink_to(copy)
    for path in (copy, str(copy), tmp_path / "link", Path(three.path, "latest")):
        loaded = load(three, path, run="another", set_aside=True)
        assert loaded is not None
        assert loaded.stored.manifest.step == (3 if "latest" in str(path) else 2)
    (copy / "state.json").write_bytes(b"")
    before = contents(tmp_path)
    with pytest.raises(CheckpointError, match="does not verify") as caught:
        load(three, copy, run=RUN, set_aside=True)
    assert caught.value.corrupt
    assert contents(tmp_path) == before
    with pytest.raises(CheckpointError, match="no checkpoint at"):
        load(three, tmp_path / "missing", run=RUN, set_aside=True)
    with pytest.raises(CheckpointError):
        load(three, tmp_path / "missing" / "too", run=RUN, set_aside=True)


def test_another_runs_checkpoint_is_passed_over_and_said(
    three: OpenDirectory, caplog: pytest.LogCaptureFixture
) -> None:
    """Its position is one in another journal; by its path it is restored."""
    commit(three, pack(state_of(9), copy=True), facts_of(9)._replace(run="another"))
    assert step_of(three) == 3
    assert "is of another run" in caplog.text
    with pytest.raises(CheckpointError, match="another run"):
        load(three, 9, run=RUN, set_aside=True)
    assert step_of(three, Path(three.path, "checkpoint_9.ckpt")) == 9
    [fault] = found(three, RUN).unusable
    assert fault.kind == "foreign"


def test_a_newer_format_is_an_error_that_says_so(three: OpenDirectory) -> None:
    """It is neither set aside nor passed over: an older one in its place would undo it."""
    manifest = found(three).checkpoints[-1].manifest
    text = encode(manifest.model_copy(update={"format": FORMAT + 1}))
    Path(three.path, "checkpoint_3.ckpt", "manifest.json").write_bytes(text)
    for which in ("latest", "best", 3):
        with pytest.raises(CheckpointError, match="newer keisei") as caught:
            load(three, which, run=RUN, set_aside=True)
        assert not caught.value.corrupt
    assert three.holds("checkpoint_3.ckpt")
    assert step_of(three, 2) == 2
    with pytest.raises(CheckpointError, match="newer keisei"):
        save(three, 3)


@pytest.mark.parametrize(
    "kept",
    [(), ("manifest.json",), ("manifest.json", "state.json"), ("arrays.safetensors", "state.json")],
)
def test_a_half_copied_checkpoint_does_not_verify(
    three: OpenDirectory, kept: tuple[str, ...]
) -> None:
    """Whichever files are missing, it is set aside, and the next older one restored."""
    whole = Path(three.path, "checkpoint_3.ckpt")
    half = Path(three.path, "checkpoint_4.ckpt")
    half.mkdir()
    for name in kept:
        shutil.copy(whole / name, half / name)
    assert verify(three, "checkpoint_4.ckpt") != []
    loaded = restored(three, aside=True)
    assert loaded.stored.manifest.step == 3
    assert loaded.aside == ["checkpoint_4.ckpt.corrupt"]


@pytest.mark.skipif(os.name == "nt", reason="Windows has other links")
def test_links_are_not_followed(three: OpenDirectory, tmp_path: Path) -> None:
    """A checkpoint that is a link, or has one in a file's place, does not verify."""
    copy = tmp_path / "copy"
    shutil.copytree(Path(three.path, "checkpoint_3.ckpt"), copy)
    for name in ("manifest.json", "state.json", "arrays.safetensors", "random.json"):
        path = Path(three.path, "checkpoint_3.ckpt", name)
        path.unlink()
        path.symlink_to(copy / name)
        assert verify(three, "checkpoint_3.ckpt") != []
        assert step_of(three) == 2
        path.unlink()
        shutil.copy(copy / name, path)
    assert step_of(three) == 3
    shutil.rmtree(Path(three.path, "checkpoint_3.ckpt"))
    Path(three.path, "checkpoint_3.ckpt").symlink_to(copy)
    assert restored(three, aside=True).aside == ["checkpoint_3.ckpt.corrupt"]
    assert verify(OpenDirectory(str(tmp_path)), "copy") == []


@pytest.mark.skipif(os.name == "nt", reason="Windows has no pipes in directories")
def test_a_pipe_in_a_files_place_holds_nobody(three: OpenDirectory) -> None:
    """Nothing waits for somebody to write into it."""
    state_file(three, 3).unlink()
    os.mkfifo(state_file(three, 3))
    assert step_of(three) == 2
    manifest = Path(three.path, "checkpoint_2.ckpt", "manifest.json")
    manifest.unlink()
    os.mkfifo(manifest)
    assert step_of(three) == 1


def test_a_copy_under_another_steps_name_does_not_verify(three: OpenDirectory) -> None:
    """The manifest says which step it is."""
    whole = Path(three.path, "checkpoint_3.ckpt")
    shutil.copytree(whole, Path(three.path, "checkpoint_8.ckpt"))
    shutil.copytree(whole, Path(three.path, "final_model"))
    there = found(three, RUN)
    assert there.final_model is None
    assert {fault.name: fault.kind for fault in there.unusable} == {
        "checkpoint_8.ckpt": "damaged",
        "final_model": "damaged",
    }
    assert restored(three, aside=True).aside == ["checkpoint_8.ckpt.corrupt"]


def test_files_that_are_not_in_the_manifest_do_no_harm(three: OpenDirectory) -> None:
    """A file manager or a network file system may have left one."""
    Path(three.path, "checkpoint_3.ckpt", ".DS_Store").write_bytes(b"1")
    Path(three.path, "notes.txt").write_bytes(b"mine")
    assert step_of(three) == 3


@pytest.mark.skipif(os.name == "nt", reason="counts on directory descriptors")
@pytest.mark.parametrize("error", [errno.EACCES, errno.EMFILE, errno.ENOMEM, errno.ESTALE])
def test_one_that_cannot_be_read_now_is_no_damaged_one(
    three: OpenDirectory, monkeypatch: pytest.MonkeyPatch, error: int
) -> None:
    """An error of the system is raised: an older one in its place would undo the newer one."""
    for number in range(1, 40):
        with monkeypatch.context() as patch:
            faults = FileFaults(Fault("open", number, error))
            faults.install(partial(patch.setattr, raising=False))
            caught = None
            try:
                assert step_of(three) == 3
            except CheckpointError as exc:
                caught = exc
        if faults.injected:
            assert caught is not None
            assert not caught.corrupt
            assert os.strerror(error) in str(caught)
        else:
            break
    assert number > 5
    assert len(found(three).checkpoints) == 3


@pytest.mark.skipif(os.name == "nt", reason="counts on directory descriptors")
def test_one_that_the_disk_fails_to_read_is_passed_over(
    three: OpenDirectory, monkeypatch: pytest.MonkeyPatch
) -> None:
    """File systems that check their content say so of a flipped bit."""
    tree = state_file(three, 3)

    class Failing(FileFaults):
        def _by_fd(self, kind: str, fd: int, action):  # type: ignore[no-untyped-def]
            if kind == "read" and self._names.get(fd) == str(tree):
                raise OSError(errno.EIO, os.strerror(errno.EIO))
            return super()._by_fd(kind, fd, action)

    with monkeypatch.context() as patch:
        Failing().install(partial(patch.setattr, raising=False))
        with OpenDirectory(three.path) as models:
            assert step_of(models) == 2


def test_a_checkpoint_that_is_removed_while_it_is_looked_for(
    three: OpenDirectory, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Another one is found instead, and none is called damaged."""

    def removing(stored: Sequence[Stored]) -> list[Stored]:
        with OpenDirectory(three.path) as other:
            if len(stored) == 3:
                remove(other, [by_loss(stored)[0].name])
        return by_loss(stored)

    loaded = load(three, "best", run=RUN, set_aside=True, ranked=removing)
    assert loaded is not None
    assert loaded.stored.manifest.step == 3
    assert loaded.faults == []


def test_a_checkpoint_that_is_replaced_while_it_is_looked_for(three: OpenDirectory) -> None:
    """The new one is read by its own manifest, and not called damaged by the old one's."""
    replaced: list[Removed] = []

    def replacing(stored: Sequence[Stored]) -> list[Stored]:
        if not replaced:
            with OpenDirectory(three.path) as other:
                replaced.append(remove(other, ["checkpoint_2.ckpt"]))
                commit(other, pack(state_of(7), copy=True), facts_of(2, loss=1.0))
        return by_loss(stored)

    loaded = load(three, "best", run=RUN, set_aside=True, ranked=replacing)
    assert loaded is not None
    assert loaded.faults == []
    assert loaded.stored.manifest.step == 2
    assert loaded.state is not None
    assert loaded.state["layers"][1] == (2, 7)


@pytest.mark.requirement("CKPT-3")
def test_all_that_were_listed_are_removed_before_they_are_looked_at(
    models: OpenDirectory, monkeypatch: pytest.MonkeyPatch
) -> None:
    """A newer one has come meanwhile: the run is never one that has no checkpoint."""
    save(models, 1)
    names, turn = OpenDirectory.names, iter([2, 3, None])

    def overtaken(directory: OpenDirectory) -> list[str]:
        listed = names(directory)
        monkeypatch.setattr(OpenDirectory, "names", names)
        if (step := next(turn)) is not None:
            save(models, step)
            remove(models, [f"checkpoint_{step - 1}.ckpt"])
            monkeypatch.setattr(OpenDirectory, "names", overtaken)
        return listed

    monkeypatch.setattr(OpenDirectory, "names", overtaken)
    assert step_of(models) == 3


@pytest.mark.requirement("CKPT-6")
def test_a_path_that_is_none_is_the_same_error(models: OpenDirectory) -> None:
    """A text that no file can be named by is a `CheckpointError`."""
    with pytest.raises(CheckpointError, match="is no path"):
        step_of(models, "latest\0")
