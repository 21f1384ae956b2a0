"""How each launcher names rank, world size and the like in the environment of what it starts."""

from __future__ import annotations

from typing import NamedTuple


class Launcher(NamedTuple):
    """How a launcher names things: for each, the variables in which it may stand.

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


_TORCH = Launcher(
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
MASTER = ("MASTER_ADDR", "MASTER_PORT")

# The innermost first.
LAUNCHERS = (
    _TORCH._replace(
        name="accelerate", marks=("ACCELERATE_MIXED_PRECISION", "TORCHELASTIC_RUN_ID", "RANK")
    ),
    _TORCH,
    Launcher(
        "accelerate",
        ("ACCELERATE_MIXED_PRECISION", "RANK", "WORLD_SIZE", *MASTER),
        "RANK",
        "WORLD_SIZE",
        ("LOCAL_RANK",),
        identity=MASTER,
    ),
    Launcher(
        "deepspeed",
        ("CROSS_RANK", "CROSS_SIZE", "RANK", "WORLD_SIZE"),
        "RANK",
        "WORLD_SIZE",
        ("LOCAL_RANK",),
        ("LOCAL_SIZE",),
        ("CROSS_RANK",),
        MASTER,
    ),
    Launcher(
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
    Launcher(
        "lsf",
        ("JSM_NAMESPACE_RANK",),
        "JSM_NAMESPACE_RANK",
        "JSM_NAMESPACE_SIZE",
        ("JSM_NAMESPACE_LOCAL_RANK",),
        ("JSM_NAMESPACE_LOCAL_SIZE",),
        identity=("PMIX_NAMESPACE",),
    ),
    Launcher(
        "openmpi",
        ("OMPI_COMM_WORLD_RANK",),
        "OMPI_COMM_WORLD_RANK",
        "OMPI_COMM_WORLD_SIZE",
        ("OMPI_COMM_WORLD_LOCAL_RANK",),
        ("OMPI_COMM_WORLD_LOCAL_SIZE",),
        identity=("PMIX_NAMESPACE", "OMPI_MCA_orte_precondition_transports"),
        has_own_ids=True,
    ),
    Launcher(
        "mvapich",
        ("MV2_COMM_WORLD_RANK",),
        "MV2_COMM_WORLD_RANK",
        "MV2_COMM_WORLD_SIZE",
        ("MV2_COMM_WORLD_LOCAL_RANK",),
        ("MV2_COMM_WORLD_LOCAL_SIZE",),
        identity=("PMIX_NAMESPACE",),
    ),
    Launcher(
        "mpich",
        ("PMI_RANK", "PMI_SIZE"),
        "PMI_RANK",
        "PMI_SIZE",
        ("MPI_LOCALRANKID",),
        ("MPI_LOCALNRANKS",),
        identity=("PMIX_NAMESPACE",),
    ),
)
BY_HAND = Launcher(
    "environment",
    ("RANK", "WORLD_SIZE", *MASTER),
    "RANK",
    "WORLD_SIZE",
    ("LOCAL_RANK",),
    ("LOCAL_WORLD_SIZE",),
    ("NODE_RANK", "GROUP_RANK"),
    MASTER,
)
