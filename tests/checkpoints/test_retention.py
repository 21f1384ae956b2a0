"""Removing: never the last one that verifies, never one that is being read, and all of it."""

from __future__ import annotations

import os
import subprocess
import sys
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

import pytest

from keisei import CheckpointError
from keisei._io.directories import OpenDirectory
from keisei.checkpoints.commit import commit
from keisei.checkpoints.listing import found
from keisei.checkpoints.opening import opened
from keisei.checkpoints.pointers import point, pointed
from keisei.checkpoints.restore import load
from keisei.checkpoints.retention import remove, supersede
from tests.support.checkpoints import (
    RUN,
    contents,
    facts_of,
    leftovers,
    restored,
    save,
    unsound,
)

READER = """
import sys
from keisei._io.directories import OpenDirectory
from keisei.checkpoints.opening import opened
with OpenDirectory(sys.argv[1]) as models, opened(models, sys.argv[2]):
    print("reading", flush=True)
    sys.stdin.readline()
"""


@pytest.fixture
def three(models: OpenDirectory) -> OpenDirectory:
    """A models directory with three checkpoints."""
    for step in (1, 2, 3):
        save(models, step)
    return models


def name_of(*steps: int) -> list[str]:
    """Return the names of these steps' checkpoints."""
    return [f"checkpoint_{step}.ckpt" for step in steps]


def damage(models: OpenDirectory, *steps: int) -> None:
    """Flip a bit in each of these steps' states."""
    for name in name_of(*steps):
        path = Path(models.path, name, "state.json")
        data = path.read_bytes()
        path.write_bytes(data[:-1] + bytes([data[-1] ^ 1]))


@contextmanager
def read_by_another(models: OpenDirectory, name: str) -> Iterator[None]:
    """Have another process read a checkpoint."""
    command = [sys.executable, "-c", READER, models.path, name]
    pipe = subprocess.PIPE
    with subprocess.Popen(command, stdin=pipe, stdout=pipe, text=True) as process:
        assert process.stdout is not None
        assert process.stdout.readline().strip() == "reading"
        yield
        process.communicate("\n")


@pytest.mark.requirement("CKPT-3")
def test_what_is_asked_for_is_removed_and_nothing_else(three: OpenDirectory) -> None:
    """The others stay as they are, and no file is left over."""
    before = contents(Path(three.path))
    removed = remove(three, name_of(1, 2), newest=name_of(3)[0])
    assert removed == (name_of(1, 2), [], [])
    after = contents(Path(three.path))
    assert after == {k: v for k, v in before.items() if k.startswith(("checkpoint_3", "latest"))}
    assert leftovers(three) == []
    assert remove(three, name_of(1)) == ([], [], [])  # gone already


@pytest.mark.requirement("CKPT-3")
@pytest.mark.parametrize("damaged", [(), (3,), (2, 3), (1, 3), (1, 2)])
def test_the_last_one_that_verifies_is_never_removed(
    three: OpenDirectory, damaged: tuple[int, ...]
) -> None:
    """Whichever is damaged and whichever is asked for, the newest that verifies stays."""
    damage(three, *damaged)
    good = max({1, 2, 3} - set(damaged))
    removed = remove(three, name_of(1, 2, 3))
    assert removed.needed == name_of(good)
    assert restored(three).stored.manifest.step == good


def test_a_damaged_one_that_stays_does_not_count(three: OpenDirectory) -> None:
    """What the policy keeps may not verify: then the newest of the others stays with it."""
    damage(three, 1)
    assert remove(three, name_of(2, 3)).needed == name_of(3)
    assert restored(three).stored.manifest.step == 3


def test_where_nothing_verifies_nothing_is_removed(three: OpenDirectory) -> None:
    """A person may still save something of them."""
    damage(three, 1, 2, 3)
    assert remove(three, name_of(1, 2)).needed == name_of(2, 1)
    assert unsound(three) != []
    assert len(found(three).checkpoints) == 3


@pytest.mark.skipif(os.name == "nt", reason="Windows has no locks on directories")
@pytest.mark.requirement("CKPT-3")
def test_one_that_another_process_reads_stays_until_it_is_read(three: OpenDirectory) -> None:
    """It is named, and the next removal takes it."""
    with read_by_another(three, name_of(1)[0]):
        removed = remove(three, name_of(1, 2), newest=name_of(3)[0])
        assert removed == (name_of(2), name_of(1), [])
        assert restored(three, 1).faults == []
    assert remove(three, name_of(1), newest=name_of(3)[0]).removed == name_of(1)


@pytest.mark.skipif(os.name == "nt", reason="Windows has no locks on directories")
def test_files_that_were_restored_stay_until_they_are_released(models: OpenDirectory) -> None:
    """The program reads them after the restore has returned."""

    def write(into: Path) -> None:
        (into / "weights").write_bytes(b"1")

    commit(models, write, facts_of(1))
    loaded = load(models, run=RUN, set_aside=False)
    save(models, 2)
    assert loaded is not None
    assert remove(models, name_of(1), newest=name_of(2)[0]).in_use == name_of(1)
    loaded.release()
    assert remove(models, name_of(1), newest=name_of(2)[0]).removed == name_of(1)


@pytest.mark.skipif(os.name == "nt", reason="Windows has no locks on directories")
def test_two_readers_do_not_see_each_other(three: OpenDirectory) -> None:
    """One more reads what is being read."""
    with opened(three, name_of(3)[0]), read_by_another(three, name_of(3)[0]):
        assert restored(three).stored.manifest.step == 3


def test_the_pointers_do_not_name_what_is_removed(three: OpenDirectory) -> None:
    """`latest` names the newest that stays, and `best` nothing."""
    point(three, "best", name_of(3)[0])
    remove(three, name_of(3))
    assert pointed(three, "latest") == name_of(2)[0]
    assert pointed(three, "best") is None


def test_only_checkpoints_are_removed(three: OpenDirectory) -> None:
    """A name that leads elsewhere, or is something else's, is refused before anything is done."""
    outside = Path(three.path).parent / "outside"
    outside.mkdir()
    for name in ("../outside", "final_model", ".", "latest", "notes"):
        with pytest.raises(CheckpointError, match="no checkpoint's name"):
            remove(three, [*name_of(1), name])
    assert outside.is_dir()
    assert len(found(three).checkpoints) == 3


@pytest.mark.skipif(os.name == "nt", reason="Windows has other links")
def test_a_link_inside_a_checkpoint_is_removed_and_not_followed(three: OpenDirectory) -> None:
    """What it leads to stays."""
    outside = Path(three.path).parent / "outside"
    outside.mkdir()
    (outside / "theirs").write_bytes(b"theirs")
    Path(three.path, name_of(1)[0], "link").symlink_to(outside)
    Path(three.path, name_of(1)[0], "deep").mkdir()
    Path(three.path, name_of(1)[0], "deep", "link").symlink_to(outside / "theirs")
    assert remove(three, name_of(1), newest=name_of(3)[0]).removed == name_of(1)
    assert contents(outside) == {"theirs": b"theirs"}


@pytest.mark.requirement("CKPT-7")
def test_what_a_resumed_run_leaves_behind_is_superseded(three: OpenDirectory) -> None:
    """What was committed later gets another name, and its steps can be saved again."""
    point(three, "best", name_of(2)[0])
    number = restored(three, 1).stored.manifest.number
    assert supersede(three, number, run=RUN) == [
        "checkpoint_3.ckpt.superseded",
        "checkpoint_2.ckpt.superseded",
    ]
    assert pointed(three, "latest") == name_of(1)[0]
    assert pointed(three, "best") is None
    assert restored(three).stored.manifest.step == 1
    save(three, 2)
    assert supersede(three, number, run=RUN) == ["checkpoint_2.ckpt.superseded-2"]
    superseded = found(three).superseded
    assert len(superseded) == 3
    assert remove(three, superseded).removed == superseded
    assert [stored.name for stored in found(three).checkpoints] == name_of(1)


def test_superseding_takes_a_lower_step_that_was_committed_later(models: OpenDirectory) -> None:
    """The order of the commits decides, and not that of the steps."""
    for step in (10, 5, 7):
        save(models, step)
    number = restored(models, 5).stored.manifest.number
    supersede(models, number, run=RUN)
    assert [stored.manifest.step for stored in found(models).checkpoints] == [10, 5]
