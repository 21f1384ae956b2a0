"""Which rank this process is, and of which launch: found in the environment of its launcher.

The innermost launcher decides: torchrun in a SLURM job is torchrun, and a process that was spawned
in an MPI task and has `RANK` and `WORLD_SIZE` of its own is what these say.
"""

from __future__ import annotations

import re
from collections.abc import Callable, Mapping
from typing import NamedTuple

from keisei.distributed.launchers import BY_HAND, LAUNCHERS, MASTER, Launcher
from keisei.errors import LaunchError, quoted

Environ = Mapping[str, str]

LARGEST = 2**31 - 1  # of a rank, a world size or a count
_BATCH_STEP, _INTERACTIVE_STEP = "4294967291", "4294967290"  # slurm.h: SLURM_BATCH_SCRIPT and next
_UUID = re.compile(r"[0-9a-f]{8}(-[0-9a-f]{4}){3}-[0-9a-f]{12}")
_PTY = ("SLURM_PTY_PORT", "SLURM_PTY_WIN_COL", "SLURM_PTY_WIN_ROW")


class Launch(NamedTuple):
    """One process of a launch: which it is, and what tells the launch from all others.

    Attributes:
        launcher: what has started it: `torchrun`, `accelerate`, `deepspeed`, `ray`, `openmpi`,
            `mvapich`, `mpich`, `lsf`, `slurm`, `environment` (`RANK`, `WORLD_SIZE`, `MASTER_ADDR`
            and `MASTER_PORT`) or `given` (by the program or the config).
        rank: which process of the launch, from 0.
        world_size: how many processes the launch has.
        local_rank: which process of its node, from 0; ``None`` where it is not known.
        node: which node, from 0; ``None`` where it is not known.
        identity: the same on all ranks, and another one for another launch.
        restart: how often the launcher has started its processes again.
        requeues: how often the scheduler has started the job again.
        decided_by: the variables, or the fields of the config, that say rank and world size.
        is_unique: whether no earlier launch can have had this identity, restart and requeues.
    """

    launcher: str
    rank: int
    world_size: int
    local_rank: int | None
    node: int | None
    identity: str
    restart: int = 0
    requeues: int = 0
    decided_by: str = ""
    is_unique: bool = False


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


# What a scheduler calls a job, and its array's index.
_JOBS = (
    ("SLURM_CLUSTER_NAME", "SLURM_JOB_ID"),
    ("LSB_JOBID", "LSB_JOBINDEX"),
    ("PBS_JOBID",),
    ("FLUX_JOB_ID",),
)


def find_launch(
    environ: Environ,
    given: Given = Given(),  # noqa: B008 - immutable
    *,
    pid: int = 0,
    parent: str | None = None,
    run_name: str | None = None,
) -> Launch | None:
    """Find the launch that this process belongs to.

    Args:
        environ: the environment's variables.
        given: what the program or the config says; it decides, where it says anything.
        pid: this process, to tell a task of SLURM from what was typed into an interactive one.
        parent: what names the process that has spawned this one, where that was Python's
            `multiprocessing`.
        run_name: the run's name, where one was chosen.

    Returns:
        The launch; ``None`` where there is none.

    Raises:
        LaunchError: what it says contradicts itself or what is given; the error has both values.
    """
    found = _found(environ, pid) if given.detect else None
    if given.rank is not None or given.world_size is not None:
        found = _given(environ, given, found, parent, run_name)
    if found is not None and given.identity is not None:
        found = found._replace(identity=f"named/{given.identity}", is_unique=False)
    return found


def _found(environ: Environ, pid: int) -> Launch | None:
    """Return what the environment says."""
    found = _slurm(environ, pid)
    for each in reversed(LAUNCHERS):
        inner = _of(each, environ)
        # srun's own PMI: the same processes, which SLURM names better.
        if inner is not None and not (inner.launcher == "mpich" and _are_same(inner, found)):
            found = inner
    by_hand = _by_hand(environ)
    if by_hand is None or found is None or found.launcher in _NAMED_LIKE_BY_HAND:
        return found or by_hand
    if by_hand.world_size > found.world_size:  # spawned in the launcher's tasks
        return by_hand
    if not _are_same(by_hand, found):
        raise _contradiction(by_hand, found, "unset RANK and WORLD_SIZE, or set them to the same")
    return found


_NAMED_LIKE_BY_HAND = {each.name for each in LAUNCHERS if each.rank == "RANK"}


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


def _of(
    launcher: Launcher, environ: Environ, number: Callable[[Environ, str], int] | None = None
) -> Launch | None:
    """Return what a launcher says of this process; ``None`` where it has not started it."""
    number = number or _number
    if not all(environ.get(mark) for mark in launcher.marks):
        return None
    rank, world_size = number(environ, launcher.rank), number(environ, launcher.world_size)
    if rank >= world_size:
        values = {name: environ[name] for name in (launcher.rank, launcher.world_size)}
        raise LaunchError(
            f"{launcher.rank} is {rank} and {launcher.world_size} is {world_size}, and ranks are "
            "counted from 0: mend what sets them, or set distributed.detect to false",
            values=values,
        )

    def first(names: tuple[str, ...]) -> int | None:
        return next((number(environ, name) for name in names if environ.get(name)), None)

    local_rank, local_size = first(launcher.local_rank), first(launcher.local_size)
    node = first(launcher.node)
    if node is None and local_rank is not None and local_size and world_size % local_size == 0:
        # Whole nodes, one after the other, unless this rank says otherwise.
        node = rank // local_size if rank % local_size == local_rank else None
    return Launch(
        launcher.name,
        rank,
        world_size,
        local_rank,
        node,
        _identity(launcher, environ, world_size),
        first(launcher.restart) or 0,
        _requeues(environ),
        f"{launcher.rank}, {launcher.world_size}",
        is_unique=_is_unique(launcher, environ),
    )


def _identity(launcher: Launcher, environ: Environ, world_size: int) -> str:
    """Return what tells a launch from others, as far as the launcher says it."""
    said = [environ[name] for name in launcher.identity if environ.get(name)]
    if said == ["none"]:  # torchrun's, where none was chosen
        said += [environ.get(name, "") for name in MASTER]
    jobs = [names for names in _JOBS if environ.get(names[-1])] or [
        names for names in _JOBS if environ.get(names[0])
    ]
    job = [environ[name] for name in (jobs[0] if jobs else ()) if environ.get(name)]
    return "/".join([launcher.name, *job, *(said or [f"of {world_size}"])])


def _is_unique(launcher: Launcher, environ: Environ) -> bool:
    """Return whether the launcher itself has made up the identity, and not the user."""
    said = [environ.get(name, "") for name in launcher.identity]
    return all(said) and (launcher.has_own_ids or any(map(_UUID.fullmatch, said)))


def _number(environ: Environ, name: str) -> int:
    """Return a variable's number.

    Raises:
        LaunchError: it is none.
    """
    text = environ.get(name)
    number = whole(text)
    if number is None:
        what = "is not set" if text is None else f"is {quoted(text)}, which is no count"
        raise LaunchError(
            f"{name} {what}, although its launcher has set others: mend what starts this process, "
            "give distributed.rank and distributed.world_size, or set distributed.detect to false",
            values={name: str(text)},
        )
    return number


def whole(text: str | None) -> int | None:
    """Return the number that a text of digits is; ``None`` where it is none."""
    if text is None or not (text.isascii() and text.isdecimal()) or len(text) > 10:
        return None
    return number if (number := int(text)) <= LARGEST else None


def _by_hand(environ: Environ) -> Launch | None:
    """Return what `RANK` and its like say, which no launcher vouches for: nothing where they err.

    Other tools have a variable `RANK`, too.
    """
    values = [whole(environ.get(name)) for name in ("RANK", "WORLD_SIZE", "MASTER_PORT")]
    if None in values:
        return None
    return _of(BY_HAND, environ, lambda environ, name: whole(environ.get(name)) or 0)


def _slurm(environ: Environ, pid: int) -> Launch | None:
    """Return what SLURM says; ``None`` in a shell that it has opened for somebody to type in."""
    job = environ.get("SLURM_JOB_ID") or environ.get("SLURM_JOBID")
    step = environ.get("SLURM_STEP_ID") or environ.get("SLURM_STEPID")
    if not job or not environ.get("SLURM_PROCID"):
        return None
    is_task = environ.get("SLURM_TASK_PID") == str(pid)
    if step == _INTERACTIVE_STEP or (any(environ.get(name) for name in _PTY) and not is_task):
        return None
    where = [part for part in (environ.get("SLURM_CLUSTER_NAME"), job) if part]
    if step is None or step == _BATCH_STEP:  # the script itself: of its tasks, none is this one
        identity = "/".join(["slurm", *where, "batch"])
        requeues = _requeues(environ)
        return Launch("slurm", 0, 1, 0, 0, identity, requeues, requeues, "SLURM_JOB_ID")
    tasks = ("SLURM_STEP_NUM_TASKS", "SLURM_NTASKS", "SLURM_NPROCS")
    world_size = next((name for name in tasks if environ.get(name)), tasks[0])
    launcher = Launcher(
        "slurm",
        (),
        "SLURM_PROCID",
        world_size,
        ("SLURM_LOCALID",),
        (),
        ("SLURM_NODEID",),
    )
    found = _of(launcher, environ)
    assert found is not None
    identity = "/".join(["slurm", *where, step])
    return found._replace(identity=identity, restart=found.requeues, is_unique=True)


def _requeues(environ: Environ) -> int:
    """Return how often SLURM has started this job again."""
    return whole(environ.get("SLURM_RESTART_COUNT")) or 0


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
        requeues=_requeues(environ),
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
