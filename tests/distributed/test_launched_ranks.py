"""Under each launcher that is installed, a process finds its rank, and which launch it is of."""

from __future__ import annotations

import json
import sys
from pathlib import Path
from typing import Any

import pytest

from tests.support.launchers import launched, no_module, no_program, no_torch, torchrun
from tests.support.slurm import Slurm

pytestmark = pytest.mark.launchers

# It notes what it finds, in a file of its own.
PROGRAM = """
import json, os, sys
from keisei.distributed.launch import find_launch

found = find_launch(os.environ, pid=os.getpid())
with open(f"{sys.argv[1]}/{os.getpid()}", "w") as file:
    json.dump(found and found._asdict(), file)
"""
PYTHON = sys.executable

HERE = {
    "torchrun": (no_torch(), [*torchrun("--standalone", "--nproc-per-node=3")]),
    "accelerate": (
        no_module("accelerate") or no_torch(),
        [PYTHON, *"-m accelerate.commands.launch --multi_gpu --num_processes=3".split()],
    ),
    "openmpi": (
        no_program("mpirun.openmpi", "openmpi-bin"),
        ["mpirun.openmpi", "--allow-run-as-root", "--oversubscribe", "-n", "3", PYTHON],
    ),
    "mpich": (
        no_program("mpirun.mpich", "mpich"),
        ["mpirun.mpich", "-n", "3", PYTHON],
    ),
}


@pytest.fixture
def program(tmp_path: Path) -> Path:
    """The program's file."""
    path = tmp_path / "which.py"
    path.write_text(PROGRAM)
    return path


def found_in(directory: Path) -> list[dict[str, Any]]:
    """Return what the processes have found, by rank."""
    found = [json.loads(path.read_text()) for path in directory.iterdir()]
    return sorted(found, key=lambda launch: launch["rank"])


def check_one_launch(found: list[dict[str, Any]], launcher: str, nodes: int = 1) -> str:
    """Check that these are all ranks of one launch, and return its identity."""
    size = len(found)
    each = size // nodes
    assert [launch["rank"] for launch in found] == list(range(size))
    assert {(launch["launcher"], launch["world_size"]) for launch in found} == {(launcher, size)}
    assert [launch["local_rank"] for launch in found] == [rank % each for rank in range(size)]
    assert [launch["node"] for launch in found] == [rank // each for rank in range(size)]
    (identity,) = {launch["identity"] for launch in found}
    assert isinstance(identity, str)
    return identity


@pytest.mark.requirement("RANK-1")
@pytest.mark.parametrize("launcher", HERE)
def test_on_this_machine(launcher: str, program: Path, tmp_path: Path) -> None:
    """Three processes are ranks 0 to 2 of one launch."""
    missing, command = HERE[launcher]
    if missing:
        pytest.skip(missing)
    found = tmp_path / "found"
    found.mkdir()
    with launched([*command, str(program), str(found)], tmp_path, tmp_path) as running:
        running.succeed()
    check_one_launch(found_in(found), launcher)


@pytest.mark.requirement("RANK-1")
@pytest.mark.xdist_group("slurm")
def test_in_a_job_of_slurm(slurm: Slurm, program: Path, tmp_path: Path) -> None:
    """Each step of a job is a launch of its own, over both nodes; the script itself is one process;
    what a launcher starts inside is that launcher's."""
    commands = {
        "first": f"srun {PYTHON}",
        "second": f"srun {PYTHON}",
        "script": PYTHON,
    }
    if no_torch() is None:
        commands["torchrun"] = " ".join(torchrun("--standalone", "--nproc-per-node=2"))
    lines = [f"{command} {program} {tmp_path}/{name}" for name, command in commands.items()]
    for name in commands:
        (tmp_path / name).mkdir()
    script = "\n".join(["#!/bin/bash", "set -e", *lines, ""])
    job = slurm.submit(script, "--nodes=2", "--ntasks-per-node=2")
    assert slurm.wait_for(job, "COMPLETED", "FAILED") == "COMPLETED", slurm.output(job)
    first, second = (
        check_one_launch(found_in(tmp_path / name), "slurm", nodes=2)
        for name in ("first", "second")
    )
    assert first != second
    (alone,) = found_in(tmp_path / "script")
    assert (alone["rank"], alone["world_size"]) == (0, 1)
    if "torchrun" in commands:
        check_one_launch(found_in(tmp_path / "torchrun"), "torchrun")


@pytest.mark.requirement("RANK-1")
@pytest.mark.xdist_group("slurm")
def test_a_shell_that_slurm_has_opened_is_no_launch(
    slurm: Slurm, program: Path, tmp_path: Path
) -> None:
    """What is typed into the shell of an allocation is nobody's rank."""
    found = tmp_path / "found"
    found.mkdir()
    slurm.run("salloc", "-n", "4", "sh", "-c", f"{PYTHON} {program} {found}; true")
    assert [path.read_text() for path in found.iterdir()] == ["null"]
