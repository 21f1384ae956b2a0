"""Who am I: the launch that a process belongs to, found in its environment alone."""

from __future__ import annotations

import json
import pickle
from pathlib import Path
from typing import Any

import pytest

from keisei.distributed.launch import Given, find_launch
from keisei.distributed.launchers import Launch
from keisei.errors import LaunchError

TORCHRUN = {
    "RANK": "5",
    "WORLD_SIZE": "8",
    "LOCAL_RANK": "1",
    "LOCAL_WORLD_SIZE": "4",
    "GROUP_RANK": "1",
    "MASTER_ADDR": "node0",
    "MASTER_PORT": "29500",
    "TORCHELASTIC_RUN_ID": "abc",
    "TORCHELASTIC_RESTART_COUNT": "2",
}
SLURM = {
    "SLURM_CLUSTER_NAME": "cluster",
    "SLURM_JOB_ID": "71",
    "SLURM_STEP_ID": "0",
    "SLURM_PROCID": "5",
    "SLURM_NTASKS": "8",
    "SLURM_STEP_NUM_TASKS": "8",
    "SLURM_LOCALID": "1",
    "SLURM_NODEID": "1",
    "SLURM_TASK_PID": "4242",
    "SLURM_RESTART_COUNT": "1",
}
OPENMPI = {
    "OMPI_COMM_WORLD_RANK": "5",
    "OMPI_COMM_WORLD_SIZE": "8",
    "OMPI_COMM_WORLD_LOCAL_RANK": "1",
    "OMPI_COMM_WORLD_LOCAL_SIZE": "4",
    "PMIX_NAMESPACE": "1234.1",
}
MVAPICH = {
    "MV2_COMM_WORLD_RANK": "5",
    "MV2_COMM_WORLD_SIZE": "8",
    "MV2_COMM_WORLD_LOCAL_RANK": "1",
    "MV2_COMM_WORLD_LOCAL_SIZE": "4",
}
MPICH = {"PMI_RANK": "5", "PMI_SIZE": "8", "MPI_LOCALRANKID": "1", "MPI_LOCALNRANKS": "4"}
LSF = {
    "JSM_NAMESPACE_RANK": "5",
    "JSM_NAMESPACE_SIZE": "8",
    "JSM_NAMESPACE_LOCAL_RANK": "1",
    "JSM_NAMESPACE_LOCAL_SIZE": "4",
    "LSB_JOBID": "71",
}
RAY = {
    "RAY_JOB_ID": "01000000",
    "RANK": "5",
    "WORLD_SIZE": "8",
    "LOCAL_RANK": "1",
    "LOCAL_WORLD_SIZE": "4",
    "NODE_RANK": "1",
    "MASTER_ADDR": "node0",
    "MASTER_PORT": "29500",
}
DEEPSPEED = {
    "RANK": "5",
    "WORLD_SIZE": "8",
    "LOCAL_RANK": "1",
    "LOCAL_SIZE": "4",
    "CROSS_RANK": "1",
    "CROSS_SIZE": "2",
    "MASTER_ADDR": "node0",
    "MASTER_PORT": "29500",
}
BY_HAND = {"RANK": "5", "WORLD_SIZE": "8", "MASTER_ADDR": "node0", "MASTER_PORT": "29500"}
PTY = {"SLURM_PTY_PORT": "40000", "SLURM_PTY_WIN_COL": "80"}
LAUNCHERS = {
    "torchrun": TORCHRUN,
    "accelerate": {**TORCHRUN, "ACCELERATE_MIXED_PRECISION": "no"},
    "deepspeed": DEEPSPEED,
    "ray": RAY,
    "openmpi": OPENMPI,
    "mvapich": MVAPICH,
    "mpich": MPICH,
    "lsf": LSF,
    "slurm": SLURM,
}


@pytest.mark.requirement("RANK-1")
@pytest.mark.parametrize("launcher", LAUNCHERS)
def test_a_launch_is_found_in_the_environment(launcher: str) -> None:
    """Rank, world size, local rank and node come from the launcher's variables, which are named."""
    found = find_launch(LAUNCHERS[launcher])
    assert found is not None
    assert found.launcher == launcher
    assert (found.rank, found.world_size, found.local_rank, found.node) == (5, 8, 1, 1)
    assert found.decided_by
    assert all(name in LAUNCHERS[launcher] for name in _names(found))


def _names(found: Launch) -> list[str]:
    return found.decided_by.split(", ")


RECORDED = sorted((Path(__file__).parent / "environments").glob("*.json"))


@pytest.mark.requirement("RANK-1")
@pytest.mark.parametrize("path", RECORDED, ids=lambda path: path.stem)
def test_recorded_launches_are_found(path: Path) -> None:
    """In the environments of real launchers each process finds out what it is, and its launch."""
    recorded = json.loads(path.read_text())
    launches = set()
    for process in recorded["processes"]:
        environ = process["environment"]
        is_typed = recorded["launcher"] is None
        pid = -1 if is_typed else int(environ.get("SLURM_TASK_PID", 0))
        found = find_launch(environ, pid=pid)
        if is_typed:
            assert found is None or found.world_size == 1
            continue
        assert found is not None
        assert found.launcher == recorded["launcher"]
        own = {name: value for name, value in process.items() if name != "environment"}
        assert own == {name: getattr(found, name) for name in own}
        launches.add((found.rank, found.identity, found.restart, found.requeues))
    assert len(launches) == (0 if recorded["launcher"] is None else len(recorded["processes"]))


@pytest.mark.parametrize("launcher", LAUNCHERS)
def test_the_identity_is_one_for_all_ranks(launcher: str) -> None:
    """All ranks of a launch have one identity, whatever is of a rank's own."""
    environ = LAUNCHERS[launcher]
    own = {
        name: "0"
        for name in environ
        if name.endswith(("RANK", "PROCID", "RANKID", "LOCALID", "NODEID"))
    }
    first, other = find_launch({**environ, **own}), find_launch(environ)
    assert first is not None
    assert other is not None
    assert (first.rank, other.rank) == (0, 5)
    assert (first.identity, first.restart) == (other.identity, other.restart)


@pytest.mark.requirement("RANK-1")
def test_no_launcher_is_no_launch() -> None:
    """A program that was started alone belongs to no launch."""
    assert find_launch({"PATH": "/bin", "HOME": "/"}) is None


@pytest.mark.requirement("RANK-1")
@pytest.mark.parametrize(
    "environ",
    [
        {"RANK": "3"},
        {"RANK": "gold", "WORLD_SIZE": "large"},
        {"RANK": "3", "WORLD_SIZE": "8"},
        {**BY_HAND, "RANK": "gold"},
        {**BY_HAND, "MASTER_PORT": "/dev/tty"},
        {"LOCAL_RANK": "3"},
        {"TORCHELASTIC_RUN_ID": "abc"},
        {"PMI_RANK": "3"},
        {"RAY_JOB_ID": "01000000"},
    ],
    ids=str,
)
def test_another_tools_variable_is_no_launch(environ: dict[str, str]) -> None:
    """A `RANK` of an unrelated tool, or half of what a launcher sets, means nothing."""
    assert find_launch(environ) is None


def test_variables_set_by_hand_are_a_launch() -> None:
    """`RANK`, `WORLD_SIZE` and the master's address are what torch itself goes by."""
    found = find_launch(BY_HAND)
    assert found is not None
    assert (found.launcher, found.rank, found.world_size) == ("environment", 5, 8)


@pytest.mark.requirement("RANK-1")
def test_torchrun_in_a_slurm_job_is_torchrun() -> None:
    """The innermost launcher decides, and its identity knows the job that it ran in."""
    found = find_launch({**SLURM, "SLURM_PROCID": "0", "SLURM_STEP_NUM_TASKS": "2", **TORCHRUN})
    assert found is not None
    assert (found.launcher, found.rank, found.world_size) == ("torchrun", 5, 8)
    assert (found.restart, found.requeues) == (2, 1)
    assert found.identity == "torchrun/cluster/71/abc"


@pytest.mark.requirement("RANK-1")
@pytest.mark.parametrize(
    "environ",
    [
        {key: SLURM[key] for key in ("SLURM_JOB_ID", "SLURM_NTASKS")},
        {**SLURM, **PTY, "SLURM_PROCID": "0"},
        {**SLURM, **PTY, "SLURM_STEP_ID": "4294967290"},
        {**SLURM, "SLURM_STEP_ID": "4294967290"},
    ],
    ids=["salloc", "srun --pty bash", "an interactive step", "an interactive step without pty"],
)
def test_an_interactive_shells_variables_are_no_launch(environ: dict[str, str]) -> None:
    """What is typed into a shell of SLURM's inherits its variables, and is none of its tasks."""
    assert find_launch(environ, pid=5151) is None


def test_a_task_that_was_started_from_an_interactive_shell_is_one() -> None:
    """`srun` in an interactive shell hands the shell's own variables down to real tasks."""
    found = find_launch({**SLURM, **PTY}, pid=4242)
    assert found is not None
    assert (found.rank, found.world_size) == (5, 8)


@pytest.mark.parametrize("step", [{}, {"SLURM_STEP_ID": "4294967291"}])
def test_a_batch_script_is_one_process(step: dict[str, str]) -> None:
    """The script of `sbatch` is no task, however many the job may have; its requeues are known."""
    environ = {key: value for key, value in SLURM.items() if "STEP" not in key}
    found = find_launch({**environ, "SLURM_PROCID": "0", **step})
    assert found is not None
    assert (found.rank, found.world_size, found.requeues) == (0, 1, 1)


@pytest.mark.requirement("RANK-1")
@pytest.mark.parametrize(
    ("environ", "values"),
    [
        ({**TORCHRUN, "RANK": "8"}, ["8", "8"]),
        ({**TORCHRUN, "WORLD_SIZE": "many"}, ["many"]),
        ({**OPENMPI, "OMPI_COMM_WORLD_SIZE": ""}, [""]),
        ({**SLURM, **BY_HAND, "RANK": "0"}, ["rank 0 of 8", "rank 5 of 8"]),
        ({**OPENMPI, **BY_HAND, "RANK": "0", "WORLD_SIZE": "1"}, ["rank 0 of 1", "rank 5 of 8"]),
    ],
    ids=["rank above the size", "no number", "no size", "another rank", "another size"],
)
def test_contradictions_are_an_error_with_both_values(
    environ: dict[str, str], values: list[str]
) -> None:
    """What cannot be true is refused, and the message and the error have both values."""
    with pytest.raises(LaunchError) as caught:
        find_launch(environ)
    assert list(caught.value.values.values()) == values
    assert all(value in str(caught.value) for value in values)
    assert pickle.loads(pickle.dumps(caught.value)).values == caught.value.values


def test_processes_that_a_task_has_spawned_are_the_launch() -> None:
    """One task on each node that spawns its workers, each with `RANK`, is a launch of workers."""
    found = find_launch({**SLURM, **BY_HAND, "RANK": "17", "WORLD_SIZE": "64"})
    assert found is not None
    assert (found.launcher, found.rank, found.world_size) == ("environment", 17, 64)


@pytest.mark.requirement("RANK-1")
def test_what_is_given_decides() -> None:
    """Rank and world size of the program or the config come before what is found."""
    found = find_launch(SLURM, Given(3, 16, "mine"))
    assert found is not None
    assert (found.launcher, found.rank, found.world_size) == ("given", 3, 16)
    assert found.identity == "named/mine"


@pytest.mark.parametrize(
    ("environ", "given"),
    [
        (TORCHRUN, Given(4, 8)),
        (TORCHRUN, Given(world_size=4)),
        (TORCHRUN, Given(rank=4)),
        ({}, Given(rank=4)),
        ({}, Given(world_size=4)),
        ({}, Given(4, 4, "mine")),
        ({}, Given(-1, 4, "mine")),
        ({}, Given(1, 4)),
    ],
    ids=str,
)
def test_what_is_given_has_to_fit(environ: dict[str, str], given: Given) -> None:
    """What is given and contradicts the launcher, or does not suffice, is an error."""
    with pytest.raises(LaunchError) as caught:
        find_launch(environ, given)
    assert caught.value.values


def test_what_is_given_may_be_what_is_found() -> None:
    """A world size in the config is checked against the launcher's, and the launch is the same."""
    assert find_launch(TORCHRUN, Given(world_size=8)) == find_launch(TORCHRUN)
    alone = find_launch({}, Given(world_size=1))
    assert alone is not None
    assert (alone.rank, alone.world_size) == (0, 1)


@pytest.mark.parametrize(
    ("environ", "more"),
    [(BY_HAND, {}), ({}, {"parent": "host/12"}), ({}, {"run_name": "name"})],
    ids=["the master's address", "the spawning process", "the run's name"],
)
def test_given_ranks_meet_by_what_they_share(environ: dict[str, str], more: dict[str, Any]) -> None:
    """Without an identity, the master's address, the spawning process or the name is taken."""
    launches = [find_launch(environ, Given(rank, 16), **more) for rank in (0, 1)]
    identities = {found.identity for found in launches if found is not None}
    assert len(identities) == 1


def test_nothing_is_detected_where_that_is_switched_off() -> None:
    """`distributed.detect: false` leaves the environment alone."""
    assert find_launch(TORCHRUN, Given(detect=False)) is None


def test_two_launches_have_two_identities() -> None:
    """Each launcher's identity is another one for the next launch."""
    changes = {
        "torchrun": {"TORCHELASTIC_RUN_ID": "abd"},
        "openmpi": {"PMIX_NAMESPACE": "1234.2"},
        "ray": {"MASTER_PORT": "29501"},
        "deepspeed": {"MASTER_PORT": "29501"},
        "lsf": {"LSB_JOBID": "72"},
        "slurm": {"SLURM_STEP_ID": "1"},
    }
    for launcher, change in changes.items():
        one, other = find_launch(LAUNCHERS[launcher]), find_launch(LAUNCHERS[launcher] | change)
        assert one is not None
        assert other is not None
        assert one.identity != other.identity
    unnamed = {**TORCHRUN, "TORCHELASTIC_RUN_ID": "none"}
    one, other = find_launch(unnamed), find_launch({**unnamed, "MASTER_PORT": "29501"})
    assert one is not None
    assert other is not None
    assert one.identity != other.identity
