"""Checkpoints of several ranks: each saves its shard, rank 0 commits when all of them are there."""

from __future__ import annotations

import os
import threading
import time
from functools import partial
from pathlib import Path
from typing import Any

import pytest

from keisei import CheckpointError, WorldSizeError
from keisei._io.directories import OpenDirectory
from keisei.checkpoints.choosing import awaited, choice_of, publish, read_chosen
from keisei.checkpoints.listing import found
from keisei.checkpoints.manifest import FORMAT, encode, parse
from keisei.checkpoints.meeting import Ranks
from keisei.checkpoints.mirror import Mirror
from keisei.checkpoints.restore import load
from keisei.checkpoints.shards import Reader, is_replicated
from keisei.checkpoints.verify import verify
from tests.support.checkpoints import RUN, is_of, keep, leftovers, save, unsound
from tests.support.saved_checkpoints import flip
from tests.support.shards import (
    WORLD,
    all_ranks,
    load_shard,
    save_all,
    save_shard,
    state_of_rank,
)


def saved(outcomes: dict[int, Any]) -> set[str]:
    """Return the paths of what all ranks have saved."""
    for outcome in outcomes.values():
        if isinstance(outcome, BaseException):
            raise outcome
    return {outcome.path for outcome in outcomes.values()}


@pytest.mark.requirement("RANK-7")
def test_each_rank_saves_its_shard_and_gets_it_back(models: OpenDirectory) -> None:
    """All ranks get one checkpoint, whose files are all of theirs, and each restores its own."""
    outcomes = save_all(models.path, 5)
    assert saved(outcomes) == {str(Path(models.path, "checkpoint_5.ckpt"))}
    assert len({outcome.digest for outcome in outcomes.values()}) == 1
    (stored,) = found(models, RUN).checkpoints
    names = {entry.name for entry in stored.manifest.files}
    assert {"state.json", "rank1/state.json", "rank2/manifest.json"} <= names
    assert stored.manifest.world_size == WORLD
    assert stored.manifest.format == FORMAT
    assert stored.checkpoint == outcomes[0] == outcomes[2]
    assert outcomes[2].metrics == {"rank": 0.0}
    for rank in range(WORLD):
        loaded = load_shard(models, Reader(rank, WORLD))
        assert loaded.random == {"random": [rank]}
        assert loaded.position is not None
        assert loaded.position.seq == rank
    assert leftovers(models) == []
    assert os.readlink(Path(models.path, "latest")) == "checkpoint_5.ckpt"


def test_one_process_saves_as_ever(models: OpenDirectory) -> None:
    """A world of one is no world: the format is the old one, which older versions read."""
    save_shard(models.path, 5, Ranks(0, 1))
    manifest = found(models, RUN).checkpoints[0].manifest
    assert (manifest.format, manifest.world_size) == (1, 1)
    assert b"world_size" not in Path(models.path, "checkpoint_5.ckpt/manifest.json").read_bytes()


@pytest.mark.requirement("RANK-7")
@pytest.mark.parametrize("missing", [(0,), (1,), (1, 2)])
def test_a_rank_that_does_not_come(models: OpenDirectory, missing: tuple[int, ...]) -> None:
    """It is an error on all the others, in time, which names it; nothing is visible, what stood
    there loads, and a later save sweeps what is left."""
    save_all(models.path, 1)
    begun = time.monotonic()
    ranks = partial(Ranks, world_size=WORLD, timeout=0.3)
    outcomes = all_ranks(lambda rank: save_shard(models.path, 2, ranks(rank)), but=missing)
    assert time.monotonic() - begun < 20
    for outcome in outcomes.values():
        assert isinstance(outcome, CheckpointError)
        assert str(missing[0]) in str(outcome)
    assert [stored.checkpoint.step for stored in found(models, RUN).checkpoints] == [1]
    for rank in range(WORLD):
        load_shard(models, Reader(rank, WORLD))
    late = all_ranks(lambda rank: save_shard(models.path, 2, ranks(rank)), but=(0,))
    assert all(isinstance(outcome, CheckpointError) for outcome in late.values())
    saved(save_all(models.path, 2, saves=2))
    saved(save_all(models.path, 3))
    assert leftovers(models) == []


@pytest.mark.parametrize("failing", [0, 1])
def test_what_fails_on_one_rank_is_known_to_all_at_once(
    models: OpenDirectory, failing: int
) -> None:
    """No rank waits for one that has failed, or that comes when it has, and its reason is said."""

    def broken(path: Path) -> None:
        raise OSError("the disk is full of eels")

    def one(rank: int, saves: int, failed: threading.Event | None) -> Any:
        if rank == 2 and failed is not None:
            failed.wait()
        content = broken if rank == failing else state_of_rank(1, rank)
        ranks = Ranks(rank, WORLD, saves=saves, timeout=60.0)
        try:
            return save_shard(models.path, 1, ranks, content=content)
        finally:
            if failed is not None:
                failed.set()

    begun = time.monotonic()
    for saves, failed in ((1, None), (2, threading.Event())):
        for rank, outcome in all_ranks(partial(one, saves=saves, failed=failed)).items():
            assert isinstance(outcome, CheckpointError), rank
            assert "eels" in str(outcome)
    assert time.monotonic() - begun < 30
    assert found(models, RUN).checkpoints == []
    saved(save_all(models.path, 1, saves=3))
    assert leftovers(models) == []


def test_the_same_again(models: OpenDirectory) -> None:
    """A step with the same content is what stands there, on every rank; with another on one rank
    alone it is an error on every rank."""
    first = save_all(models.path, 4)
    again = save_all(models.path, 4, saves=2)
    assert saved(again) == saved(first)
    assert again[2] == first[0]
    ranks = partial(Ranks, world_size=WORLD, saves=3)
    other = all_ranks(
        lambda rank: save_shard(
            models.path,
            4,
            ranks(rank),
            content={"other": 1} if rank == 1 else state_of_rank(4, rank),
        )
    )
    for outcome in other.values():
        assert isinstance(outcome, CheckpointError)
        assert "other content" in str(outcome)
    for rank in range(WORLD):
        load_shard(models, Reader(rank, WORLD))


def test_a_final_model_is_replaced(models: OpenDirectory) -> None:
    """That of several ranks, too: nothing of the earlier one is left, and each rank has its new."""
    saved(save_all(models.path, None))
    text = {"new": 1}
    saved(save_all(models.path, None, saves=2, content=text))
    assert leftovers(models) == []
    path = Path(models.path, "final_model")
    for rank in range(WORLD):
        loaded = load(models, path, run=RUN, set_aside=False, reader=Reader(rank, WORLD))
        assert loaded is not None
        assert loaded.state == text
    assert unsound(models) == []


def test_files_of_a_function(models: OpenDirectory) -> None:
    """Each rank's function writes into a directory of its own, and gets that back."""

    def write(rank: int, path: Path) -> None:
        (path / "deep").mkdir()
        (path / "deep" / "weights").write_text(f"of rank {rank}")

    outcomes = all_ranks(
        lambda rank: save_shard(models.path, 1, Ranks(rank, WORLD), content=partial(write, rank))
    )
    saved(outcomes)
    for rank in range(WORLD):
        loaded = load(models, run=RUN, set_aside=False, reader=Reader(rank, WORLD))
        assert loaded is not None
        assert loaded.directory is not None
        assert (loaded.directory / "deep" / "weights").read_text() == f"of rank {rank}"
        loaded.release()


@pytest.mark.requirement("RANK-7")
def test_another_number_of_ranks(models: OpenDirectory) -> None:
    """It is an error with both numbers and the way out, which works."""
    saved(save_all(models.path, 7))
    for rank, world_size in ((0, 1), (1, 2), (3, 4)):
        with pytest.raises(WorldSizeError, match=f"3 ranks.*{world_size} rank.*shard=r") as caught:
            load(models, run=RUN, set_aside=True, reader=Reader(rank, world_size))
        assert (caught.value.saved, caught.value.world_size) == (3, world_size)
        for shard in range(WORLD):
            loaded = load_shard(models, Reader(rank, world_size, shard))
            assert (loaded.random is None) == (shard != rank)
    with pytest.raises(WorldSizeError, match="no shard 3.*0 to 2"):
        load(models, run=RUN, set_aside=True, reader=Reader(0, 1, 3))
    assert unsound(models) == []


@pytest.mark.requirement("RANK-7")
def test_what_rank_0_has_alone_suits_any_number_of_ranks(models: OpenDirectory) -> None:
    """Ranks that have given nothing get rank 0's state, with their own random states where there
    are as many as then; so do all ranks from a checkpoint of one process."""
    outcomes = all_ranks(
        lambda rank: save_shard(
            models.path,
            3,
            Ranks(rank, WORLD),
            content=state_of_rank(3, 0) if rank == 0 else None,
        )
    )
    saved(outcomes)
    (stored,) = found(models, RUN).checkpoints
    assert is_replicated(stored.manifest)
    for world_size in (1, 3, 5):
        for rank in range(world_size):
            loaded = load(models, run=RUN, set_aside=False, reader=Reader(rank, world_size))
            assert loaded is not None
            assert is_of(loaded.state, 3000)
            own = rank == 0 or world_size == WORLD
            assert loaded.random == ({"random": [rank]} if own else None)
            assert (loaded.position is None) == (not own)
    save(models, 9)
    for rank in range(2):
        loaded = load(models, run=RUN, set_aside=False, reader=Reader(rank, 2))
        assert loaded is not None
        assert is_of(loaded.state, 9)


@pytest.mark.requirement("RANK-7")
@pytest.mark.parametrize("whose", ["state.json", "rank1/state.json", "rank2/manifest.json"])
def test_a_shard_that_does_not_verify(models: OpenDirectory, whose: str) -> None:
    """Rank 0 finds it, whosever it is, and all ranks go on from the older one."""
    saved(save_all(models.path, 1))
    saved(save_all(models.path, 2))
    flip(Path(models.path, "checkpoint_2.ckpt", whose))
    assert verify(models, "checkpoint_2.ckpt")
    loaded = load_shard(models, Reader(0, WORLD), aside=True)
    assert loaded.stored.manifest.step == 1
    publish(models, 2, 1, choice_of(loaded, resumes=True))
    for rank in (1, 2):
        choice = awaited(models, 2, 1, Ranks(rank, WORLD, timeout=1.0))
        assert choice.resumes
        mine = read_chosen(models, "latest", choice, Reader(rank, WORLD))
        assert mine is not None
        assert is_of(mine.state, 1000 + rank)


def test_a_choice_that_does_not_come_or_is_none(models: OpenDirectory) -> None:
    """A rank waits for rank 0 within its time, and learns that there is nothing, or why."""
    ranks = Ranks(1, WORLD, timeout=0.05)
    with pytest.raises(CheckpointError, match="every rank has to call"):
        awaited(models, 1, 1, ranks)
    publish(models, 1, 1, choice_of(None, resumes=False))
    choice = awaited(models, 1, 1, ranks)
    assert read_chosen(models, "latest", choice, Reader(1, WORLD)) is None
    publish(models, 1, 2, choice._replace(error="none verifies"))
    with pytest.raises(CheckpointError, match="none verifies"):
        awaited(models, 1, 2, ranks)
    publish(models, 2, 1, choice)
    assert leftovers(models) == [".chosen-2-1.json"]


def test_two_processes_of_one_rank(models: OpenDirectory) -> None:
    """It is an error that says so, on every rank."""
    ranks = partial(Ranks, world_size=WORLD, timeout=30.0)
    outcomes = all_ranks(lambda rank: save_shard(models.path, 1, ranks(min(rank, 1))), WORLD)
    assert any("rank of its own" in str(outcome) for outcome in outcomes.values())
    assert all(isinstance(outcome, CheckpointError) for outcome in outcomes.values())
    assert found(models, RUN).checkpoints == []


def test_a_rank_that_gives_up_is_not_in_it(models: OpenDirectory) -> None:
    """Who withdraws its shard before rank 0 takes it knows that there is no checkpoint of it."""
    has_given_up = threading.Event()

    def give_up() -> None:
        raise CheckpointError("given up")

    def one(rank: int) -> Any:
        if rank == 0:
            has_given_up.wait(30)
        ranks = Ranks(rank, WORLD, check=give_up if rank == 1 else lambda: None)
        try:
            return save_shard(models.path, 1, ranks)
        finally:
            if rank == 1:
                has_given_up.set()

    for outcome in all_ranks(one).values():
        assert isinstance(outcome, CheckpointError)
        assert "given up" in str(outcome)
    assert found(models, RUN).checkpoints == []


def test_retention_sees_whole_checkpoints(models: OpenDirectory) -> None:
    """The policy removes all shards of what it does not keep."""
    for step in range(4):
        saved(save_all(models.path, step))
        keep(models, step)
    assert [stored.checkpoint.step for stored in found(models, RUN).checkpoints] == [2, 3]
    assert sorted(os.listdir(models.path)) == ["checkpoint_2.ckpt", "checkpoint_3.ckpt", "latest"]


def test_copies_at_a_url_have_all_shards(models: OpenDirectory, tmp_path: Path) -> None:
    """A run whose disk is gone goes on from them, each rank from its own."""
    saved(save_all(models.path, 1))
    mirror = Mirror((tmp_path / "there").as_uri(), "walker", models.path)
    mirror.follow()
    assert mirror.finish(20.0)
    models.remove_tree("checkpoint_1.ckpt")
    name, faults = mirror.fetch(models, RUN, 2)
    assert (name, faults) == ("checkpoint_1.ckpt", [])
    assert unsound(models) == []
    for rank in range(WORLD):
        load_shard(models, Reader(rank, WORLD))


def test_a_manifest_that_promises_too_much(models: OpenDirectory) -> None:
    """One with more ranks than shards, from whomever, is damaged for those ranks; nothing of it is
    read that it does not name, and its number of ranks costs nothing."""
    saved(save_all(models.path, 1))
    path = Path(models.path, "checkpoint_1.ckpt", "manifest.json")
    manifest = parse(path.read_bytes())
    many = 2**31 - 1
    files = [entry for entry in manifest.files if not entry.name.startswith("rank2/")]
    forged = manifest.model_copy(update={"world_size": many, "files": files})
    path.write_bytes(encode(forged))
    assert load_shard(models, Reader(0, many)).stored.manifest.world_size == many
    load_shard(models, Reader(1, many))
    for rank in (2, 3):
        with pytest.raises(CheckpointError, match=f"no shard of rank {rank}"):
            load(models, run=RUN, set_aside=False, reader=Reader(rank, many))
