"""Which rank this process is, and of which launch: found in the environment of its launcher.

The innermost launcher decides: torchrun in a SLURM job is torchrun, and a process that was spawned
in an MPI task and has `RANK` and `WORLD_SIZE` of its own is what these say.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import NamedTuple

from keisei.distributed.launchers import (
    BY_HAND,
    LAUNCHERS,
    MASTER,
    Environ,
    Launch,
    Launcher,
    requeues,
    whole,
)
from keisei.errors import LaunchError


class Given(NamedTuple):
    """What the program, or the config, says of the launch; ``None`` where it says nothing.

    Attributes:
        rank: which process of the launch.
        world_size: how many processes it has.
        identity: what tells it from all others.
        detect: whether the environment counts.
        said_by: who says so, for messages.
    """

    rank: int | None = None
    world_size: int | None = None
    identity: str | None = None
    detect: bool = True
    said_by: str = "distributed.rank and distributed.world_size"


def find_launch(
    environ: Environ,
    given: Given = Given(),  # noqa: B008 - immutable
    *,
    pid: int = 0,
    parent: str | None = None,
    run_name: str | None = None,
    named: Sequence[Launcher] = (),
) -> Launch | None:
    """Find the launch that this process belongs to.

    Args:
        environ: the environment's variables.
        given: what the program or the config says; it decides, where it says anything.
        pid: this process, to tell a task of SLURM from what was typed into an interactive one.
        parent: what names the process that has spawned this one, where that was Python's
            `multiprocessing`.
        run_name: the run's name, where one was chosen.
        named: launchers that the config names, which are asked before keisei's own.

    Returns:
        The launch; ``None`` where there is none.

    Raises:
        LaunchError: what it says contradicts itself or what is given; the error has both values.
    """
    found = _found(environ, pid, named) if given.detect else None
    if given.rank is not None or given.world_size is not None:
        found = _given(environ, given, found, parent, run_name)
    if found is not None and given.identity is not None:
        found = found._replace(identity=f"named/{given.identity}", is_unique=False)
    return found


def _found(environ: Environ, pid: int, named: Sequence[Launcher]) -> Launch | None:
    """Return what the environment says."""
    answers = (each.find(environ, pid) for each in named)
    found = next((answer for answer in answers if answer is not None), None)
    for each in () if found is not None else reversed(LAUNCHERS):
        inner = each.find(environ, pid)
        # srun's own PMI: the same processes, which SLURM names better.
        if inner is not None and not (inner.launcher == "mpich" and _are_same(inner, found)):
            found = inner
    by_hand = _by_hand(environ)
    if by_hand is None or found is None or found.decided_by == BY_HAND.decides:
        return found or by_hand
    if by_hand.world_size > found.world_size:  # spawned in the launcher's tasks
        return by_hand
    if not _are_same(by_hand, found):
        raise _contradiction(by_hand, found, "unset RANK and WORLD_SIZE, or set them to the same")
    return found


def _are_same(one: Launch, other: Launch | None) -> bool:
    """Return whether two launchers say the same of this process."""
    return other is not None and (one.rank, one.world_size) == (other.rank, other.world_size)


def _contradiction(one: Launch, other: Launch, way_out: str) -> LaunchError:
    values = {
        f"{one.launcher} ({one.decided_by})": f"rank {one.rank} of {one.world_size}",
        f"{other.launcher} ({other.decided_by})": f"rank {other.rank} of {other.world_size}",
    }
    said = ", but ".join(f"{value} by {name}" for name, value in values.items())
    return LaunchError(f"this process is {said}: {way_out}", values=values)


def _by_hand(environ: Environ) -> Launch | None:
    """Return what `RANK` and its like say, which no launcher vouches for: nothing where they err.

    Other tools have a variable `RANK`, too.
    """
    values = [whole(environ.get(name)) for name in ("RANK", "WORLD_SIZE", "MASTER_PORT")]
    if None in values:
        return None
    return BY_HAND.find_by(environ, lambda environ, name: whole(environ.get(name)) or 0)


def _given(
    environ: Environ,
    given: Given,
    found: Launch | None,
    parent: str | None,
    run_name: str | None,
) -> Launch:
    """Return what the program or the config says; what it leaves out, the launcher has to say."""
    rank, world_size = given.rank, given.world_size
    if rank is None or world_size is None:
        if found is None:
            missing = "rank" if rank is None else "world_size"
            if world_size == 1:
                return Launch("given", 0, 1, None, None, "alone", decided_by=given.said_by)
            raise LaunchError(
                f"{missing} is not known: {given.said_by} do not say it, and no launcher is found "
                "in the environment. Give both, or start the processes with a launcher",
                values={"distributed.rank": str(rank), "distributed.world_size": str(world_size)},
            )
        rank = found.rank if rank is None else rank
        world_size = found.world_size if world_size is None else world_size
        if (rank, world_size) != (found.rank, found.world_size):
            told = Launch("given", rank, world_size, None, None, "", decided_by=given.said_by)
            raise _contradiction(told, found, f"mend {given.said_by}, or how it was started")
        return found
    if rank >= world_size or rank < 0:
        raise LaunchError(
            f"rank {rank} of {world_size} ({given.said_by}): ranks are counted from 0",
            values={"rank": str(rank), "world_size": str(world_size)},
        )
    told = Launch("given", rank, world_size, None, None, "", decided_by=given.said_by)
    if found is not None and found.world_size == world_size:
        if found.rank != rank:
            raise _contradiction(told, found, f"mend {given.said_by}, or how it was started")
        return found._replace(launcher="given", decided_by=given.said_by)
    identity = _identity_given(environ, given, parent, run_name)
    if identity is None and world_size > 1:
        raise LaunchError(
            "nothing tells this launch from others, so that its ranks could not find each other: "
            "give an identity that is the same on all of them (distributed.identity), or a run "
            "name",
            values={"rank": str(rank), "world_size": str(world_size)},
        )
    return told._replace(
        identity=identity or "alone",
        requeues=requeues(environ),
        is_unique=parent is not None and identity == f"given/{parent}",
    )


def _identity_given(
    environ: Environ, given: Given, parent: str | None, run_name: str | None
) -> str | None:
    if given.identity is not None:
        return given.identity
    master = [environ[name] for name in MASTER if environ.get(name)]
    if len(master) == len(MASTER):
        return "/".join(["given", *master])
    told = parent or run_name
    return f"given/{told}" if told else None
