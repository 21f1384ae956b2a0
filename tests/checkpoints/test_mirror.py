"""Checkpoints follow to a URL beside the training, and come back from there to a new disk."""

from __future__ import annotations

import shutil
from collections.abc import Iterator
from pathlib import Path

import pytest

from keisei import CheckpointError, CheckpointsConfig
from keisei._io.directories import OpenDirectory
from keisei.checkpoints.commit import commit
from keisei.checkpoints.content import Facts
from keisei.checkpoints.listing import found
from keisei.checkpoints.mirror import Mirror
from keisei.checkpoints.packing import pack
from keisei.checkpoints.retention import remove
from keisei.checkpoints.verify import verify
from tests.support.object_store import object_store

RUN = "01AAAA"
KEEP_ALL = CheckpointsConfig(keep_last=None)


@pytest.fixture
def models(tmp_path: Path) -> Path:
    """An empty models directory."""
    path = tmp_path / "models"
    path.mkdir()
    return path


@pytest.fixture
def there(tmp_path: Path) -> Path:
    """Where the copies of the run `walker` are."""
    return tmp_path / "there" / "walker"


@pytest.fixture
def mirror(models: Path, there: Path) -> Mirror:
    """The mirror of these models in a directory."""
    return Mirror(there.parent.as_uri(), "walker", str(models))


def save(models: Path, step: int, *, attempt: int = 1) -> str:
    """Commit a checkpoint of a state and return its name."""
    with OpenDirectory(str(models)) as directory:
        facts = Facts(RUN, step, attempt, None, {"score": float(step)})
        commit(directory, pack({"step": step, "text": "x" * 1000}, copy=True), facts)
    return f"checkpoint_{step}.ckpt"


def names(directory: Path) -> list[str]:
    """Return the names of the checkpoints in a directory."""
    return sorted(path.name for path in directory.glob("checkpoint_*.ckpt"))


def lose(models: Path) -> None:
    """Empty the models directory, as a new disk is."""
    shutil.rmtree(models)
    models.mkdir()


def fetch(mirror: Mirror, models: Path) -> tuple[str | None, list[str]]:
    """Fetch the newest copy; return its name and those that did not verify."""
    with OpenDirectory(str(models)) as directory:
        name, faults = mirror.fetch(directory, RUN, 1)
        assert name is None or verify(directory, name) == []
        return name, [fault.name for fault in faults]


def test_what_is_committed_is_copied_and_comes_back(
    mirror: Mirror, models: Path, there: Path
) -> None:
    """Bit for bit, on a new disk; the pointer `latest` leads to it."""
    for step in (1, 2):
        save(models, step)
        mirror.follow(KEEP_ALL)
    assert mirror.finish(10.0)
    assert names(there) == names(models)
    before = {p.name: p.read_bytes() for p in (models / "checkpoint_2.ckpt").iterdir()}
    lose(models)
    assert fetch(mirror, models) == ("checkpoint_2.ckpt", [])
    assert {p.name: p.read_bytes() for p in (models / "latest").iterdir()} == before
    assert names(models) == ["checkpoint_2.ckpt"]
    assert [path.name for path in models.iterdir() if path.name.startswith(".")] == []


def test_files_of_the_programs_own_come_back(mirror: Mirror, models: Path, there: Path) -> None:
    """In their folders."""

    def write(directory: Path) -> None:
        (directory / "a" / "b").mkdir(parents=True)
        (directory / "a" / "b" / "weights.bin").write_bytes(bytes(range(256)) * 1000)
        (directory / "empty").write_bytes(b"")

    with OpenDirectory(str(models)) as directory:
        commit(directory, write, Facts(RUN, 7, 1, None, {}))
    mirror.follow(None)
    assert mirror.finish(10.0)
    lose(models)
    assert fetch(mirror, models) == ("checkpoint_7.ckpt", [])
    path = models / "checkpoint_7.ckpt" / "files" / "a" / "b" / "weights.bin"
    assert path.read_bytes() == bytes(range(256)) * 1000


def test_where_there_is_no_copy_there_is_nothing_to_fetch(mirror: Mirror, models: Path) -> None:
    """Neither an error nor a fault."""
    assert fetch(mirror, models) == (None, [])


def test_a_copy_that_does_not_verify_is_passed_over(
    mirror: Mirror, models: Path, there: Path
) -> None:
    """A flipped bit, a file too few, a file too long; the next older one is taken."""
    for step in (1, 2, 3, 4, 5):
        save(models, step)
    mirror.follow(KEEP_ALL)
    assert mirror.finish(10.0)
    flipped = there / "checkpoint_5.ckpt" / "state.json"
    data = bytearray(flipped.read_bytes())
    data[len(data) // 2] ^= 4
    flipped.write_bytes(data)
    (there / "checkpoint_4.ckpt" / "state.json").unlink()
    with (there / "checkpoint_3.ckpt" / "state.json").open("ab") as file:
        file.write(b" ")
    manifest = there / "checkpoint_2.ckpt" / "manifest.json"
    manifest.write_bytes(manifest.read_bytes().replace(b'"step":2', b'"step":3'))
    lose(models)
    damaged = ["checkpoint_5.ckpt", "checkpoint_4.ckpt", "checkpoint_3.ckpt"]
    assert fetch(mirror, models) == ("checkpoint_1.ckpt", damaged)
    assert names(models) == ["checkpoint_1.ckpt"]


def test_where_no_copy_verifies_that_is_an_error(mirror: Mirror, models: Path, there: Path) -> None:
    """It names the first of them; nothing is left over."""
    save(models, 1)
    mirror.follow(None)
    assert mirror.finish(10.0)
    (there / "checkpoint_1.ckpt" / "state.json").write_bytes(b"{}")
    lose(models)
    with pytest.raises(CheckpointError, match=r"none of the 1 copies .* checkpoint_1.ckpt"):
        fetch(mirror, models)
    assert list(models.iterdir()) == []


def test_a_hostile_copy_writes_nothing_elsewhere(
    mirror: Mirror, models: Path, there: Path, tmp_path: Path
) -> None:
    """Names that lead elsewhere are none of a checkpoint's; a manifest with one is damaged."""
    save(models, 1)
    mirror.follow(None)
    assert mirror.finish(10.0)
    for name in ("..", "checkpoint_2.ckpt", "checkpoint_-0.ckpt", "x\x1b[2J"):
        target = there / name
        target.mkdir(exist_ok=True)
        (target / "manifest.json").write_bytes(b'{"digest":"blake2b:00","manifest":{}}\n')
    lose(models)
    assert fetch(mirror, models) == ("checkpoint_1.ckpt", [])


def test_an_outage_is_one_warning_and_what_is_missing_follows(
    models: Path, tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    """While a file stands where the directory should be; the training knows nothing of it."""
    in_the_way = tmp_path / "there"
    in_the_way.write_bytes(b"")
    mirror = Mirror((in_the_way / "deeper").as_uri(), "walker", str(models))
    for step in (1, 2, 3):
        save(models, step)
        mirror.follow(KEEP_ALL)
        assert mirror._idle.wait(10.0)
    assert mirror.problem is not None
    assert len([r for r in caplog.records if "is not copied" in r.message]) == 1
    in_the_way.unlink()
    assert mirror.finish(10.0)  # tries once more
    assert names(in_the_way / "deeper" / "walker") == names(models)
    assert mirror.problem is None


def test_the_end_waits_no_longer_than_it_may(
    models: Path, caplog: pytest.LogCaptureFixture, tmp_path: Path
) -> None:
    """What is not copied by then is said, with the URL's password hidden."""
    mirror = Mirror("ftp://user:hunter2secret@127.0.0.1:9/x", "walker", str(models))
    save(models, 1)
    mirror.follow(KEEP_ALL)
    assert mirror._idle.wait(10.0)
    assert not mirror.finish(10.0)
    assert "not every checkpoint is copied" in caplog.text
    assert "hunter2secret" not in caplog.text
    assert "hunter2secret" not in str(mirror.problem)


def test_the_policy_holds_there_too(mirror: Mirror, models: Path, there: Path) -> None:
    """What it no longer keeps goes, whether it stands locally or not."""
    keep = CheckpointsConfig(keep_last=2)
    for step in (1, 2, 3, 4):
        save(models, step)
        if step > 2:
            with OpenDirectory(str(models)) as directory:
                remove(directory, [f"checkpoint_{step - 2}.ckpt"])
        mirror.follow(keep)
        assert mirror.finish(10.0)
    assert names(there) == ["checkpoint_3.ckpt", "checkpoint_4.ckpt"]
    lose(models)
    assert fetch(mirror, models) == ("checkpoint_4.ckpt", [])
    save(models, 5, attempt=2)
    mirror.follow(keep)
    assert mirror.finish(10.0)
    assert names(there) == ["checkpoint_4.ckpt", "checkpoint_5.ckpt"]


def test_a_future_that_is_left_behind_goes(mirror: Mirror, models: Path, there: Path) -> None:
    """A step that is saved again with another content replaces its copy."""
    for step in (1, 2, 3):
        save(models, step)
    mirror.follow(KEEP_ALL)
    assert mirror.finish(10.0)
    for step in (2, 3):
        shutil.rmtree(models / f"checkpoint_{step}.ckpt")
    save(models, 2, attempt=2)
    mirror.follow(KEEP_ALL)
    assert mirror.finish(10.0)
    assert names(there) == ["checkpoint_1.ckpt", "checkpoint_2.ckpt"]
    with OpenDirectory(str(there)) as directory:
        assert [s.manifest.attempt for s in found(directory).checkpoints] == [1, 2]


def test_a_copy_of_a_lost_disk_becomes_the_new_runs_own(
    mirror: Mirror, models: Path, there: Path
) -> None:
    """Under its own id, and without a place in a journal that is gone; it is not copied again."""
    save(models, 5)
    mirror.follow(KEEP_ALL)
    assert mirror.finish(10.0)
    lose(models)
    written = (there / "checkpoint_5.ckpt" / "manifest.json").stat().st_mtime_ns
    with OpenDirectory(str(models)) as directory:
        assert mirror.fetch(directory, "01BBBB", 1) == ("checkpoint_5.ckpt", [])
        (stored,) = found(directory, "01BBBB").checkpoints
        assert verify(directory, stored.name) == []
    assert (stored.manifest.number, stored.manifest.position) == (1, None)
    mirror.follow(KEEP_ALL)
    assert mirror.finish(10.0)
    assert (there / "checkpoint_5.ckpt" / "manifest.json").stat().st_mtime_ns == written


@pytest.fixture(scope="module")
def bucket() -> Iterator[str]:
    """The URL of a bucket in an object store."""
    with object_store() as url:
        yield url


def test_an_object_store_brings_a_run_back(bucket: str, models: Path) -> None:
    """Over the network, by S3's protocol."""
    mirror = Mirror(bucket, "walker", str(models))
    for step in (1, 2, 3):
        save(models, step)
        mirror.follow(CheckpointsConfig(keep_last=2))
    assert mirror.finish(30.0)
    lose(models)
    assert fetch(Mirror(bucket, "walker", str(models)), models) == ("checkpoint_3.ckpt", [])
