"""Checkpoints of several ranks: each rank a thread or a process; one of them dies.

Started as `python -m tests.support.shards`, it serves deaths as `tests.support.crashes` does.
"""

from __future__ import annotations

import os
from collections.abc import Callable, Mapping
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from functools import partial
from typing import Any, Literal

from keisei import CheckpointError
from keisei._io.directories import OpenDirectory
from keisei.checkpoints.commit import commit
from keisei.checkpoints.content import Content, Facts
from keisei.checkpoints.meeting import Ranks
from keisei.checkpoints.packing import pack
from keisei.checkpoints.reading import Loaded
from keisei.checkpoints.restore import load
from keisei.checkpoints.shards import Reader
from keisei.checkpoints.values import Checkpoint
from keisei.journal.records import Position
from tests.support.checkpoints import RUN, is_of, keep, state_of
from tests.support.crashes import serve, tell
from tests.support.file_faults import FileFaults

WORLD = 3
TIMEOUT = 20.0


def state_of_rank(step: int | None, rank: int) -> dict[str, Any]:
    """Return a state that tells of its step and its rank."""
    return state_of((step or 0) * 1000 + rank)


def facts_of_rank(step: int | None, rank: int, attempt: int = 1, run: str = RUN) -> Facts:
    """Return what a shard's manifest says of it."""
    position = Position(attempt, rank)
    return Facts(run, step, attempt, position, {"rank": float(rank)}, {"random": [rank]})


def save_shard(
    models: str,
    step: int | None,
    ranks: Ranks,
    *,
    content: Content | Mapping[str, Any] | Literal["its own"] = "its own",
    attempt: int = 1,
    run: str = RUN,
    before: Callable[[], object] = lambda: None,
) -> Checkpoint:
    """Save as one rank, in a directory of its own opening."""
    if content == "its own":
        content = state_of_rank(step, ranks.rank)
    packed = pack(content, copy=True) if isinstance(content, Mapping) else content
    facts = facts_of_rank(step, ranks.rank, attempt, run)
    with OpenDirectory(models) as directory:
        return commit(directory, packed, facts, before_rename=before, ranks=ranks)


def all_ranks(
    func: Callable[[int], Any], world_size: int = WORLD, *, but: tuple[int, ...] = ()
) -> dict[int, Any]:
    """Call a function on a thread for each rank, and return what it returns, or its error."""

    def call(rank: int) -> Any:
        try:
            return func(rank)
        except Exception as exc:
            return exc

    ranks = [rank for rank in range(world_size) if rank not in but]
    with ThreadPoolExecutor(world_size) as pool:
        return dict(zip(ranks, pool.map(call, ranks), strict=True))


def save_all(
    models: str, step: int | None, world_size: int = WORLD, **facts: Any
) -> dict[int, Any]:
    """Save a checkpoint as all ranks, each on a thread; return what each has got."""
    saves = facts.pop("saves", 1)
    timeout = facts.pop("timeout", TIMEOUT)
    ranks = partial(Ranks, world_size=world_size, saves=saves, timeout=timeout)
    return all_ranks(lambda rank: save_shard(models, step, ranks(rank), **facts), world_size)


def load_shard(
    models: OpenDirectory, reader: Reader, which: str | int = "latest", *, aside: bool = False
) -> Loaded:
    """Load a rank's shard of a checkpoint that is there, and check that it is its own."""
    loaded = load(models, which, run=RUN, set_aside=aside, reader=reader)
    assert loaded is not None
    step = loaded.stored.manifest.step
    assert step is not None
    rank = reader.rank if reader.shard is None else reader.shard
    assert is_of(loaded.state, step * 1000 + rank)
    return loaded


@dataclass(frozen=True)
class RankDeath:
    """A rank that dies while all of them save.

    Attributes:
        models: the models directory.
        step: the step that is saved first.
        rank: which rank dies.
        before: it dies just before this call that touches a file (from 1), in its first save.
        after: or all save step after step, and it is killed when so much was told.
        later: how many seconds later than that.
    """

    models: str
    step: int
    rank: int
    before: int | None = None
    after: int | None = None
    later: float = 0.0


class Alone(CheckpointError):
    """The rank that was to die is dead."""


def live(death: RankDeath, rank: int, parent: int, pipe: int) -> None:
    """Save as a rank, and tell what has come of it, as long as the one that dies lives."""

    def check() -> None:
        if rank != death.rank and os.getppid() != parent:
            raise Alone("the other one is dead")

    step = death.step
    while True:
        ranks = Ranks(rank, WORLD, timeout=TIMEOUT, check=check)
        try:
            save_shard(death.models, step, ranks)
            tell(pipe, "saved", step, rank)
        except CheckpointError as exc:
            tell(pipe, "failed", step, rank, str(exc))
            return
        if rank == 0:
            with OpenDirectory(death.models) as models:
                keep(models, step)
        step += 1
        if death.after is None:
            return


def child(death: RankDeath, pipe: int) -> None:
    """Be the one that dies, with the others as children."""
    parent = os.getpid()
    others = [rank for rank in range(WORLD) if rank != death.rank]
    pids = []
    for rank in others:
        pid = os.fork()
        if pid == 0:
            try:
                live(death, rank, parent, pipe)
            finally:
                os._exit(0)
        pids.append(pid)
    faults = FileFaults(die_before=death.before)
    if death.after is None:
        faults.install()
    live(death, death.rank, parent, pipe)
    for pid in pids:
        os.waitpid(pid, 0)
    tell(pipe, "calls", len(faults.calls))


if __name__ == "__main__":
    with_everything = pack(state_of(0), copy=True)  # imports what each child would import anew
    serve(RankDeath, child)
