"""How each launcher says rank, world size and the like in the environment of what it starts."""

from __future__ import annotations

import re
from collections.abc import Callable, Mapping
from typing import NamedTuple, Protocol

from keisei.errors import LaunchError, quoted

Environ = Mapping[str, str]

LARGEST = 2**31 - 1  # of a rank, a world size or a count
MASTER = ("MASTER_ADDR", "MASTER_PORT")
_BATCH_STEP, _INTERACTIVE_STEP = "4294967291", "4294967290"  # slurm.h: SLURM_BATCH_SCRIPT and next
_UUID = re.compile(r"[0-9a-f]{8}(-[0-9a-f]{4}){3}-[0-9a-f]{12}")
_PTY = ("SLURM_PTY_PORT", "SLURM_PTY_WIN_COL", "SLURM_PTY_WIN_ROW")

# What a scheduler calls a job, and its array's index.
_JOBS = (
    ("SLURM_CLUSTER_NAME", "SLURM_JOB_ID"),
    ("LSB_JOBID", "LSB_JOBINDEX"),
    ("PBS_JOBID",),
    ("FLUX_JOB_ID",),
)


class Launch(NamedTuple):
    """One process of a launch: which it is, and what tells the launch from all others.

    Attributes:
        launcher: what has started it: `torchrun`, `accelerate`, `deepspeed`, `ray`, `openmpi`,
            `mvapich`, `mpich`, `lsf`, `slurm`, the name of a plug-in, `environment` (`RANK`,
            `WORLD_SIZE`, `MASTER_ADDR` and `MASTER_PORT`) or `given` (by the program or the
            config).
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


class Launcher(Protocol):
    """What starts the processes of a launch, and says in their environment which is which.

    `ByVariables` is one for launchers that set a variable for each thing.
    """

    @property
    def name(self) -> str:
        """What it is called."""
        ...

    def find(self, environ: Environ, pid: int) -> Launch | None:
        """Return the launch that a process belongs to; ``None`` where this has not started it.

        It decides by its arguments alone, and at once.

        Args:
            environ: the process's environment.
            pid: the process's id.

        Raises:
            LaunchError: what the environment says contradicts itself.
        """
        ...


class ByVariables(NamedTuple):
    """A launcher that is known by how it names things: for each, the variables where it may stand.

    Attributes:
        name: the launcher.
        marks: the variables that are all set where it is at work.
        rank: the variable of the rank.
        world_size: the variable of the world size.
        local_rank: those of the rank on its node.
        local_size: those of how many ranks the node has.
        node: those of the node's number.
        identity: those that tell the launch from others; all that are set count.
        restart: those of how often it has started its processes again.
        has_own_ids: whether it makes up the identity itself, another one for each launch.
    """

    name: str
    marks: tuple[str, ...]
    rank: str
    world_size: str
    local_rank: tuple[str, ...] = ()
    local_size: tuple[str, ...] = ()
    node: tuple[str, ...] = ()
    identity: tuple[str, ...] = ()
    restart: tuple[str, ...] = ()
    has_own_ids: bool = False

    @property
    def decides(self) -> str:
        """The variables that say rank and world size, for messages."""
        return f"{self.rank}, {self.world_size}"

    def find(self, environ: Environ, pid: int) -> Launch | None:
        """Return what the launcher says of a process; see `Launcher`."""
        return self.find_by(environ, _number)

    def find_by(self, environ: Environ, number: Callable[[Environ, str], int]) -> Launch | None:
        """Return what the launcher says of a process; ``None`` where it has not started it.

        Args:
            environ: the process's environment.
            number: reads the number that a variable holds.

        Raises:
            LaunchError: the rank is none of the launch's.
        """
        if not all(environ.get(mark) for mark in self.marks):
            return None
        rank, world_size = number(environ, self.rank), number(environ, self.world_size)
        if rank >= world_size:
            values = {name: environ[name] for name in (self.rank, self.world_size)}
            raise LaunchError(
                f"{self.rank} is {rank} and {self.world_size} is {world_size}, and ranks are "
                "counted from 0: mend what sets them, or set distributed.detect to false",
                values=values,
            )

        def first(names: tuple[str, ...]) -> int | None:
            return next((number(environ, name) for name in names if environ.get(name)), None)

        local_rank, local_size = first(self.local_rank), first(self.local_size)
        node = first(self.node)
        if node is None and local_rank is not None and local_size and world_size % local_size == 0:
            # Whole nodes, one after the other, unless this rank says otherwise.
            node = rank // local_size if rank % local_size == local_rank else None
        return Launch(
            self.name,
            rank,
            world_size,
            local_rank,
            node,
            self._identity(environ, world_size),
            first(self.restart) or 0,
            requeues(environ),
            self.decides,
            is_unique=self._is_unique(environ),
        )

    def _identity(self, environ: Environ, world_size: int) -> str:
        """Return what tells a launch from others, as far as the launcher says it."""
        said = [environ[name] for name in self.identity if environ.get(name)]
        if said == ["none"]:  # torchrun's, where none was chosen
            said += [environ.get(name, "") for name in MASTER]
        jobs = [names for names in _JOBS if environ.get(names[-1])] or [
            names for names in _JOBS if environ.get(names[0])
        ]
        job = [environ[name] for name in (jobs[0] if jobs else ()) if environ.get(name)]
        return "/".join([self.name, *job, *(said or [f"of {world_size}"])])

    def _is_unique(self, environ: Environ) -> bool:
        """Return whether the launcher itself has made up the identity, and not the user."""
        said = [environ.get(name, "") for name in self.identity]
        return all(said) and (self.has_own_ids or any(map(_UUID.fullmatch, said)))


class Slurm:
    """SLURM: the tasks of a step, and the script of a job."""

    name = "slurm"

    def find(self, environ: Environ, pid: int) -> Launch | None:
        """Return what SLURM says; ``None`` in a shell that it has opened to type in."""
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
            again = requeues(environ)
            return Launch(self.name, 0, 1, 0, 0, identity, again, again, "SLURM_JOB_ID")
        tasks = ("SLURM_STEP_NUM_TASKS", "SLURM_NTASKS", "SLURM_NPROCS")
        world_size = next((name for name in tasks if environ.get(name)), tasks[0])
        tasks_of_step = ByVariables(
            self.name,
            (),
            "SLURM_PROCID",
            world_size,
            ("SLURM_LOCALID",),
            (),
            ("SLURM_NODEID",),
        )
        found = tasks_of_step.find(environ, pid)
        assert found is not None
        identity = "/".join(["slurm", *where, step])
        return found._replace(identity=identity, restart=found.requeues, is_unique=True)


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


def requeues(environ: Environ) -> int:
    """Return how often SLURM has started this job again."""
    return whole(environ.get("SLURM_RESTART_COUNT")) or 0


_TORCH = ByVariables(
    "torchrun",
    ("TORCHELASTIC_RUN_ID", "RANK"),
    "RANK",
    "WORLD_SIZE",
    ("LOCAL_RANK",),
    ("LOCAL_WORLD_SIZE",),
    ("GROUP_RANK",),
    ("TORCHELASTIC_RUN_ID",),
    ("TORCHELASTIC_RESTART_COUNT",),
)
# keisei's own, the innermost first.
LAUNCHERS: tuple[Launcher, ...] = (
    _TORCH._replace(
        name="accelerate", marks=("ACCELERATE_MIXED_PRECISION", "TORCHELASTIC_RUN_ID", "RANK")
    ),
    _TORCH,
    ByVariables(
        "accelerate",
        ("ACCELERATE_MIXED_PRECISION", "RANK", "WORLD_SIZE", *MASTER),
        "RANK",
        "WORLD_SIZE",
        ("LOCAL_RANK",),
        identity=MASTER,
    ),
    ByVariables(
        "deepspeed",
        ("CROSS_RANK", "CROSS_SIZE", "RANK", "WORLD_SIZE"),
        "RANK",
        "WORLD_SIZE",
        ("LOCAL_RANK",),
        ("LOCAL_SIZE",),
        ("CROSS_RANK",),
        MASTER,
    ),
    ByVariables(
        "ray",
        ("RAY_JOB_ID", "RANK", "WORLD_SIZE"),
        "RANK",
        "WORLD_SIZE",
        ("LOCAL_RANK",),
        ("LOCAL_WORLD_SIZE",),
        ("NODE_RANK",),
        ("RAY_JOB_ID", *MASTER),
    ),
    # Before Open MPI, whose variables jsrun sets, too.
    ByVariables(
        "lsf",
        ("JSM_NAMESPACE_RANK",),
        "JSM_NAMESPACE_RANK",
        "JSM_NAMESPACE_SIZE",
        ("JSM_NAMESPACE_LOCAL_RANK",),
        ("JSM_NAMESPACE_LOCAL_SIZE",),
        identity=("PMIX_NAMESPACE",),
    ),
    ByVariables(
        "openmpi",
        ("OMPI_COMM_WORLD_RANK",),
        "OMPI_COMM_WORLD_RANK",
        "OMPI_COMM_WORLD_SIZE",
        ("OMPI_COMM_WORLD_LOCAL_RANK",),
        ("OMPI_COMM_WORLD_LOCAL_SIZE",),
        identity=("PMIX_NAMESPACE", "OMPI_MCA_orte_precondition_transports"),
        has_own_ids=True,
    ),
    ByVariables(
        "mvapich",
        ("MV2_COMM_WORLD_RANK",),
        "MV2_COMM_WORLD_RANK",
        "MV2_COMM_WORLD_SIZE",
        ("MV2_COMM_WORLD_LOCAL_RANK",),
        ("MV2_COMM_WORLD_LOCAL_SIZE",),
        identity=("PMIX_NAMESPACE",),
    ),
    ByVariables(
        "mpich",
        ("PMI_RANK", "PMI_SIZE"),
        "PMI_RANK",
        "PMI_SIZE",
        ("MPI_LOCALRANKID",),
        ("MPI_LOCALNRANKS",),
        identity=("PMIX_NAMESPACE",),
    ),
    Slurm(),
)
BY_HAND = ByVariables(
    "environment",
    ("RANK", "WORLD_SIZE", *MASTER),
    "RANK",
    "WORLD_SIZE",
    ("LOCAL_RANK",),
    ("LOCAL_WORLD_SIZE",),
    ("NODE_RANK", "GROUP_RANK"),
    MASTER,
)
