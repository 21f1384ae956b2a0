"""What a save makes: its names, its order, and what it does where something stands already."""

from __future__ import annotations

import errno
import os
import stat
import sys
from collections.abc import Callable
from functools import partial
from pathlib import Path

import numpy as np
import pytest

from keisei import CheckpointError
from keisei._io.directories import OpenDirectory
from keisei.checkpoints.commit import commit
from keisei.checkpoints.listing import found
from keisei.checkpoints.opening import opened
from keisei.checkpoints.packing import pack
from keisei.checkpoints.restore import load
from keisei.checkpoints.verify import verify
from keisei.journal.records import Position
from tests.support.checkpoints import (
    RUN,
    contents,
    facts_of,
    leftovers,
    restored,
    save,
    state_of,
)
from tests.support.file_faults import FileFaults


@pytest.mark.requirement("CKPT-2")
def test_a_checkpoint_lies_under_its_step_and_latest_names_the_newest(
    models: OpenDirectory,
) -> None:
    """The directory, its manifest's facts, and the pointer, which is relative."""
    save(models, 10)
    facts = facts_of(20, loss=0.5)._replace(position=Position(3, 99), attempt=3)
    checkpoint = commit(models, pack(state_of(20), copy=True), facts)
    path = Path(models.path, "checkpoint_20.ckpt")
    assert Path(checkpoint.path) == path
    assert checkpoint[:2] == (20, 3)
    assert checkpoint.metrics == {"loss": 0.5}
    assert checkpoint.size == sum(len(data) for data in contents(path).values())
    assert os.readlink(Path(models.path, "latest")) == path.name
    stored = found(models, RUN).checkpoints[-1]
    assert stored.checkpoint == checkpoint
    assert stored.manifest.position == Position(3, 99)
    assert [stored.manifest.number for stored in found(models, RUN).checkpoints] == [1, 2]


@pytest.mark.skipif(os.name == "nt", reason="Windows has no such modes")
def test_nobody_else_may_read_it(models: OpenDirectory) -> None:
    """Directories are their owner's alone, and files, those of the user's function too."""

    def write(into: Path) -> None:
        (into / "deep").mkdir(mode=0o755)
        (into / "deep" / "weights").write_bytes(b"1")
        os.chmod(into / "deep" / "weights", 0o664)

    save(models, 1)
    commit(models, write, facts_of(2))
    for path in Path(models.path).rglob("*"):
        if not path.is_symlink():
            wanted = 0o700 if path.is_dir() else 0o600
            assert stat.S_IMODE(path.stat().st_mode) == wanted, path


@pytest.mark.skipif(os.name == "nt", reason="counts on directory descriptors")
@pytest.mark.requirement("CKPT-3")
@pytest.mark.parametrize("by_function", [False, True])
def test_a_save_is_ordered_so_that_it_survives_a_power_loss(
    models: OpenDirectory, monkeypatch: pytest.MonkeyPatch, by_function: bool
) -> None:
    """Every file is synced after its last byte, the manifest after all others, then its directory,
    all before the rename, and the models directory after it."""

    def write(into: Path) -> None:
        (into / "deep").mkdir()
        (into / "deep" / "weights").write_bytes(b"1" * 100)

    save(models, 1)
    faults = FileFaults()
    faults.install(partial(monkeypatch.setattr, raising=False))
    with OpenDirectory(models.path) as opened:
        commit(opened, write if by_function else pack(state_of(2), copy=True), facts_of(2))
    calls = faults.calls
    [rename] = [i for i, call in enumerate(calls) if call.target.endswith("/checkpoint_2.ckpt")]
    staged = calls[rename].path
    synced = {call.path: i for i, call in enumerate(calls) if call.kind == "fsync"}
    written = {call.path: i for i, call in enumerate(calls) if call.kind == "write"}
    names = {
        os.path.join(staged, name)
        for name in contents(Path(models.path, "checkpoint_2.ckpt"))
        if name != "manifest.json"
    }
    assert len(names) == (2 if by_function else 3)
    manifest = os.path.join(staged, ".manifest.json.tmp")
    for name in names:
        assert written.get(name, 0) < synced[name] < written[manifest]
    assert written[manifest] < synced[manifest] < synced[staged] < rename
    if by_function:
        assert synced[os.path.join(staged, "files/deep")] < synced[staged]
        assert synced[os.path.join(staged, "files")] < synced[staged]
    pointing = [i for i, call in enumerate(calls) if call.target.endswith("/latest")]
    assert rename < pointing[0] < synced[models.path]


@pytest.mark.requirement("CKPT-2")
def test_the_same_content_at_the_same_step_is_written_once(models: OpenDirectory) -> None:
    """The checkpoint that stands there is returned, whatever has happened to the random states."""
    first = save(models, 5, loss=1.0)
    before = contents(Path(models.path))
    facts = facts_of(5)._replace(random={"random": [9]})
    called: list[None] = []
    content = pack(state_of(5), copy=True)
    assert commit(models, content, facts, before_rename=lambda: called.append(None)) == first
    assert called == []
    assert contents(Path(models.path)) == before


def test_other_content_at_the_same_step_is_an_error_that_says_so(models: OpenDirectory) -> None:
    """What stands there stays, and the error names it and the ways out."""
    save(models, 5)
    before = contents(Path(models.path))
    with pytest.raises(CheckpointError, match="exists already with other content") as caught:
        commit(models, pack(state_of(6), copy=True), facts_of(5))
    assert "remove it first" in str(caught.value)
    assert caught.value.path == os.path.join(models.path, "checkpoint_5.ckpt")
    assert contents(Path(models.path)) == before


def test_another_runs_checkpoint_of_the_same_step_is_left_alone(models: OpenDirectory) -> None:
    """Equal content does not make it this run's."""
    commit(models, pack(state_of(5), copy=True), facts_of(5)._replace(run="other"))
    before = contents(Path(models.path))
    with pytest.raises(CheckpointError, match="exists already"):
        save(models, 5)
    assert contents(Path(models.path)) == before


@pytest.mark.requirement("CKPT-2")
@pytest.mark.parametrize("exchanges", [True, False])
def test_a_final_model_is_replaced_by_another_and_latest_stays(
    models: OpenDirectory, monkeypatch: pytest.MonkeyPatch, exchanges: bool
) -> None:
    """The same content is written once, other content takes its place, and nothing is left over;
    so where the system cannot exchange two names, too."""
    if not exchanges:
        monkeypatch.setattr("keisei._io.exchange._rename", lambda: None)
    save(models, 1)
    for step in (1, 1, 2):
        checkpoint = commit(models, pack(state_of(step), copy=True), facts_of(None))
        assert checkpoint.step is None
        loaded = load(models, os.path.join(models.path, "final_model"), run=RUN, set_aside=False)
        assert loaded is not None
        assert loaded.state is not None
        assert loaded.state["layers"][1] == (2, step)
    assert sorted(models.names()) == ["checkpoint_1.ckpt", "final_model", "latest"]
    assert os.readlink(Path(models.path, "latest")) == "checkpoint_1.ckpt"


@pytest.mark.requirement("CKPT-3")
@pytest.mark.skipif(sys.platform != "linux", reason="names are exchanged there")
def test_there_is_a_final_model_at_each_instant(
    models: OpenDirectory, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Before each change of the directory one of the two stands there; a failure leaves the first,
    and one that is being read stays until the next save."""
    commit(models, pack(state_of(1), copy=True), facts_of(None))
    instants: list[bool] = []

    def watched(name: str) -> Callable[..., object]:
        method = getattr(OpenDirectory, name)

        def call(directory: OpenDirectory, *args: object, **kwargs: object) -> object:
            instants.append(models.holds("final_model"))
            return method(directory, *args, **kwargs)

        return call

    with monkeypatch.context() as patched:
        for name in ("sync", "replace", "unlink", "remove_tree"):
            patched.setattr(OpenDirectory, name, watched(name))
        commit(models, pack(state_of(2), copy=True), facts_of(None))
    assert instants
    assert all(instants)
    sync = OpenDirectory.sync

    def failing(directory: OpenDirectory) -> None:
        if directory.path == models.path:
            raise OSError(errno.EIO, os.strerror(errno.EIO), directory.path)
        sync(directory)

    with monkeypatch.context() as patched:
        patched.setattr(OpenDirectory, "sync", failing)
        with pytest.raises(CheckpointError, match="as it was"):
            commit(models, pack(state_of(3), copy=True), facts_of(None))
    path = os.path.join(models.path, "final_model")
    loaded = load(models, path, run=RUN, set_aside=False)
    assert loaded is not None
    assert loaded.state is not None
    assert loaded.state["layers"][1] == (2, 2)
    with opened(models, "final_model") as read:
        commit(models, pack(state_of(4), copy=True), facts_of(None))
        assert read.holds("state.json")
    assert len(leftovers(models)) == 1
    save(models, 1)
    assert leftovers(models) == []


def test_a_file_that_already_has_the_name_is_set_aside(models: OpenDirectory) -> None:
    """A file, an empty directory and a link are no checkpoints, and are kept under another name."""
    outside = Path(models.path).parent / "outside"
    outside.mkdir()
    Path(models.path, "checkpoint_1.ckpt").write_bytes(b"mine")
    Path(models.path, "checkpoint_2.ckpt").mkdir()
    Path(models.path, "checkpoint_3.ckpt").symlink_to(outside)
    for step in (1, 2, 3):
        save(models, step)
        assert restored(models).stored.manifest.step == step
    assert Path(models.path, "checkpoint_1.ckpt.corrupt").read_bytes() == b"mine"
    assert list(outside.iterdir()) == []


def test_what_dead_savers_have_left_is_removed_by_the_next_save(models: OpenDirectory) -> None:
    """Staged and half removed directories, of any step; what only looks like one stays."""
    token = "0123456789abcdef"
    for name in (f".checkpoint_1.ckpt.tmp-{token}", f".final_model.removing-{token}"):
        Path(models.path, name, "files", "deep").mkdir(parents=True)
        Path(models.path, name, "files", "deep", "x").write_bytes(b"1")
    Path(models.path, ".latest.tmp").symlink_to("gone")
    mine = [".checkpoint_1.ckpt.tmp-mine", ".notes.tmp-" + token]
    for name in mine:
        Path(models.path, name).mkdir()
    save(models, 2)
    assert sorted(leftovers(models)) == mine


def test_what_a_living_saver_writes_is_left_alone(models: OpenDirectory) -> None:
    """A save under way in another part of the program or another process is not a dead one's."""

    def meanwhile() -> None:
        with OpenDirectory(models.path) as other:
            save(other, 1)
            assert [name for name in leftovers(models) if "checkpoint_2" in name]

    commit(models, pack(state_of(2), copy=True), facts_of(2), before_rename=meanwhile)
    assert leftovers(models) == []
    assert restored(models, 1).faults == []
    assert restored(models, 2).faults == []


def test_two_savers_of_one_step(models: OpenDirectory) -> None:
    """The first one's stands; the second gets it where the content is the same."""
    firsts = []

    def meanwhile() -> None:
        with OpenDirectory(models.path) as other:
            firsts.append(save(other, 1))

    second = commit(models, pack(state_of(1), copy=True), facts_of(1), before_rename=meanwhile)
    assert [second] == firsts
    assert leftovers(models) == []


@pytest.mark.skipif(not hasattr(os, "fork"), reason="needs fork")
def test_a_process_forked_during_a_save_keeps_no_lock(models: OpenDirectory) -> None:
    """A worker that is started meanwhile does not make the checkpoint one in use for its life."""
    from keisei.checkpoints.retention import remove

    children = []
    reading, writing = os.pipe()

    def fork() -> None:
        child = os.fork()
        if not child:
            os.close(writing)
            os.read(reading, 1)
            os._exit(0)
        children.append(child)

    commit(models, pack(state_of(1), copy=True), facts_of(1), before_rename=fork)
    try:
        save(models, 2)
        assert remove(models, ["checkpoint_1.ckpt"]).removed == ["checkpoint_1.ckpt"]
    finally:
        os.close(writing)
        os.waitpid(children[0], 0)
        os.close(reading)


@pytest.mark.parametrize("what", ["staged", "files"])
def test_a_directory_that_is_swapped_for_a_link_is_not_followed(
    models: OpenDirectory, what: str
) -> None:
    """Whoever puts a link in its place while it is written gets nothing written elsewhere."""
    outside = Path(models.path).parent / "outside"
    outside.mkdir()
    (outside / "theirs").write_bytes(b"theirs")

    def swap(path: Path) -> None:
        path.rename(outside.with_name("moved"))
        path.symlink_to(outside)

    def write(into: Path) -> None:
        (into / "mine").write_bytes(b"1")
        swap(into.parent if what == "staged" else into)

    with pytest.raises(CheckpointError):
        commit(models, write, facts_of(1))
    assert contents(outside) == {"theirs": b"theirs"}
    assert not models.holds("checkpoint_1.ckpt")


def test_a_pointer_that_is_a_link_elsewhere_is_replaced(models: OpenDirectory) -> None:
    """`latest` is never written through."""
    outside = Path(models.path).parent / "outside"
    outside.write_bytes(b"theirs")
    Path(models.path, "latest").symlink_to(outside)
    save(models, 1)
    assert outside.read_bytes() == b"theirs"
    assert os.readlink(Path(models.path, "latest")) == "checkpoint_1.ckpt"


def test_a_pointer_that_cannot_be_written_does_not_fail_the_save(
    models: OpenDirectory, caplog: pytest.LogCaptureFixture
) -> None:
    """What is saved is saved, and the log says what is wrong with `latest`."""
    Path(models.path, "latest", "mine").mkdir(parents=True)
    save(models, 1)
    assert "latest does not point at it" in caplog.text
    assert restored(models).stored.manifest.step == 1
    assert leftovers(models) == []


def function_of(*names: str) -> Callable[[Path], None]:
    """Return a function that writes files of these names."""

    def write(into: Path) -> None:
        for name in names:
            (into / name).parent.mkdir(parents=True, exist_ok=True)
            (into / name).write_bytes(name.encode())

    return write


@pytest.mark.requirement("CKPT-1")
def test_files_that_a_function_writes_are_kept_as_they_are(models: OpenDirectory) -> None:
    """Sub-directories, spaces and empty files; the restore names their directory, which is not
    removed while it is used."""
    names = ["model.bin", "deep/er/tokens é.txt", "empty"]
    commit(models, function_of(*names), facts_of(3))
    loaded = load(models, run=RUN, set_aside=False)
    assert loaded is not None
    assert loaded.state is None
    assert loaded.directory is not None
    assert contents(loaded.directory) == {name: name.encode() for name in names}
    loaded.release()
    (loaded.directory / "model.bin").write_bytes(b"Model.bin")
    assert len(verify(models, "checkpoint_3.ckpt")) == 1


def a_link(into: Path) -> None:
    """Write a link."""
    (into / "link").symlink_to("/etc/passwd")


def a_directory_link(into: Path) -> None:
    """Write a link to a directory."""
    (into / "link").symlink_to("/etc")


def a_pipe(into: Path) -> None:
    """Write a named pipe."""
    os.mkfifo(into / "pipe")


def a_hard_link(into: Path) -> None:
    """Write a second name of a file that is elsewhere."""
    elsewhere = into.parents[2] / "elsewhere"
    elsewhere.write_bytes(b"1")
    os.link(elsewhere, into / "linked")


def nothing(into: Path) -> None:
    """Write only a directory."""
    (into / "empty").mkdir()


def too_deep(into: Path) -> None:
    """Write directories in directories."""
    into.joinpath(*["d"] * 40).mkdir(parents=True)


def an_error(into: Path) -> None:
    """Write half, and fail."""
    (into / "half").write_bytes(b"1")
    raise ValueError("my own")


@pytest.mark.skipif(os.name == "nt", reason="Windows has no pipes in directories")
@pytest.mark.parametrize(
    ("write", "problem"),
    [
        (a_link, "a symlink"),
        (a_directory_link, "a symlink"),
        (a_pipe, "no plain file"),
        (a_hard_link, "hard link"),
        (nothing, "no file"),
        (too_deep, "directories in directories"),
        (an_error, "ValueError: my own"),
        (function_of("back\\slash"), "not every system"),
    ],
)
def test_what_a_function_may_not_write_is_refused(
    models: OpenDirectory, write: Callable[[Path], None], problem: str
) -> None:
    """One typed error says what it is, and nothing of it is left."""
    save(models, 1)
    before = contents(Path(models.path))
    with pytest.raises(CheckpointError, match=problem) as caught:
        commit(models, write, facts_of(2))
    assert caught.value.path == os.path.join(models.path, "checkpoint_2.ckpt")
    assert contents(Path(models.path)) == before
    assert leftovers(models) == []


def test_metrics_that_are_no_numbers_of_json_come_back(models: OpenDirectory) -> None:
    """NaN and infinities, and numpy's scalars."""
    facts = facts_of(1, a=float("nan"), b=float("inf"), c=np.float64(0.5))
    commit(models, pack(state_of(1), copy=True), facts)
    [stored] = found(models, RUN).checkpoints
    assert str(stored.checkpoint.metrics) == "{'a': nan, 'b': inf, 'c': 0.5}"
