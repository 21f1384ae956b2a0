"""A flipped bit, wherever it is, is found, and the last good checkpoint is restored."""

from __future__ import annotations

import logging
import os
import random
from collections.abc import Iterable
from pathlib import Path

import pytest

from keisei import CheckpointError
from keisei._io.directories import OpenDirectory
from keisei.checkpoints.restore import load
from keisei.checkpoints.verify import verify
from tests.support.checkpoints import RUN, contents, restored, save
from tests.support.storms import repetitions, some_of

pytestmark = pytest.mark.filterwarnings("error")
DAMAGED = "checkpoint_2.ckpt"


@pytest.fixture
def two(models: OpenDirectory) -> OpenDirectory:
    """A models directory with a good checkpoint, and a newer one to be damaged."""
    save(models, 1)
    save(models, 2)
    return models


def places(models: OpenDirectory, names: Iterable[str]) -> list[tuple[str, int]]:
    """List every byte of some files."""
    directory = Path(models.path, DAMAGED)
    return [(name, i) for name in names for i in range((directory / name).stat().st_size)]


def flip_all(models: OpenDirectory, flips: list[tuple[str, int, int]]) -> None:
    """Flip a bit at a time; each is found, and the good checkpoint is restored."""
    for name, position, bit in flips:
        fd = os.open(Path(models.path, DAMAGED, name), os.O_RDWR)
        good = os.pread(fd, 1, position)
        os.pwrite(fd, bytes([good[0] ^ (1 << bit)]), position)
        assert restored(models).stored.manifest.step == 1, (name, position, bit)
        os.pwrite(fd, good, position)
        os.close(fd)
    print(f"bits flipped and found: {len(flips)}")
    assert restored(models).stored.manifest.step == 2


@pytest.mark.requirement("CKPT-6")
def test_a_flipped_bit_in_each_byte_of_the_manifest(two: OpenDirectory) -> None:
    """No byte of the manifest is without a meaning."""
    rng = random.Random(1)
    flip_all(two, [(*at, rng.randrange(8)) for at in places(two, ["manifest.json"])])


@pytest.mark.requirement("CKPT-6")
def test_flipped_bits_in_the_data(two: OpenDirectory) -> None:
    """No byte of arrays, tree and random states is without a digest."""
    rng = random.Random(2)
    everywhere = places(two, ["state.json", "arrays.safetensors", "random.json"])
    flip_all(two, [(*rng.choice(everywhere), rng.randrange(8)) for _ in range(300)])


@pytest.mark.storm
def test_flipped_bits_everywhere(two: OpenDirectory) -> None:
    """The same for every bit of the manifest, and at 10,000 places in the data."""
    rng = random.Random(3)
    bits = [(*at, bit) for at in places(two, ["manifest.json"]) for bit in range(8)]
    flip_all(two, some_of(bits))
    everywhere = places(two, ["state.json", "arrays.safetensors", "random.json"])
    flip_all(two, [(*rng.choice(everywhere), rng.randrange(8)) for _ in range(repetitions(10_000))])


@pytest.mark.parametrize("name", ["manifest.json", "state.json", "arrays.safetensors"])
def test_a_file_that_was_cut_or_has_grown(two: OpenDirectory, name: str) -> None:
    """A file with other bytes at its end, or none, is found, too."""
    path = Path(two.path, DAMAGED, name)
    whole = path.read_bytes()
    for other in (b"", whole[:-1], whole[: len(whole) // 2], whole + b"\0", whole + whole):
        path.write_bytes(other)
        assert verify(two, DAMAGED) != []
        assert restored(two).stored.manifest.step == 1
    path.unlink()
    assert verify(two, DAMAGED) != []
    assert restored(two).stored.manifest.step == 1


@pytest.mark.requirement("CKPT-6")
def test_what_does_not_verify_is_set_aside_and_said(
    two: OpenDirectory, caplog: pytest.LogCaptureFixture
) -> None:
    """It keeps its content under another name, `latest` points at the good one, and the log has
    one line of it."""
    path = Path(two.path, DAMAGED, "arrays.safetensors")
    path.write_bytes(path.read_bytes()[:-1])
    before = contents(path.parent)
    loaded = restored(two, aside=True)
    assert loaded.stored.manifest.step == 1
    assert [fault.name for fault in loaded.faults] == [DAMAGED]
    assert loaded.aside == [f"{DAMAGED}.corrupt"]
    assert contents(Path(two.path, f"{DAMAGED}.corrupt")) == before
    assert os.readlink(Path(two.path, "latest")) == "checkpoint_1.ckpt"
    [line] = [r.getMessage() for r in caplog.records if r.levelno >= logging.WARNING]
    assert DAMAGED in line
    assert "checkpoint_1.ckpt is restored" in line
    save(two, 2)  # the run goes on, and comes to this step again
    assert restored(two).stored.manifest.step == 2


def test_nothing_is_set_aside_where_nothing_verifies(two: OpenDirectory) -> None:
    """Else the next start would find no checkpoint, and would begin from scratch."""
    for step in (1, 2):
        Path(two.path, f"checkpoint_{step}.ckpt", "state.json").write_bytes(b"{}")
    before = contents(Path(two.path))
    for _ in range(2):
        with pytest.raises(CheckpointError, match="verifies") as caught:
            load(two, run=RUN, set_aside=True)
        assert caught.value.corrupt
        assert "checkpoint_1.ckpt" in str(caught.value)
        assert contents(Path(two.path)) == before


def test_a_step_that_is_saved_again_replaces_a_damaged_one(
    two: OpenDirectory, caplog: pytest.LogCaptureFixture
) -> None:
    """The same content is only taken for there where it verifies."""
    path = Path(two.path, DAMAGED, "state.json")
    path.write_bytes(path.read_bytes().replace(b"2", b"3"))
    save(two, 2)
    assert restored(two).stored.manifest.step == 2
    assert Path(two.path, f"{DAMAGED}.corrupt").is_dir()
    assert "does not verify" in caplog.text
