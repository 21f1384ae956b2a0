"""Under each launcher that is installed, its processes are one run, with a true end."""

from __future__ import annotations

import sys
from pathlib import Path

import pytest

from keisei.journal.reader import read_run
from keisei.run.find import find_runs
from tests.support.launched_programs import GLOO, RANKS, Ranks, parts_in
from tests.support.launchers import (
    free_ports,
    launched,
    no_program,
    no_torch,
    the_run,
    torchrun,
)

pytestmark = pytest.mark.launchers

PYTHON = sys.executable
SIZE = 4
OPEN_MPI = "mpirun.openmpi --allow-run-as-root --oversubscribe --tag-output -n 4".split()

# The launcher, why it is not here, and the program that it starts.
HERE = {
    "torchrun": (no_torch(), torchrun("--standalone", f"--nproc-per-node={SIZE}"), GLOO),
    "openmpi": (no_program("mpirun.openmpi", "openmpi-bin"), [*OPEN_MPI, PYTHON], RANKS),
    "mpich": (
        no_program("mpirun.mpich", "mpich"),
        ["mpirun.mpich", "-n", str(SIZE), PYTHON],
        RANKS,
    ),
}


@pytest.mark.requirement("RANK-2", "RANK-3")
@pytest.mark.parametrize("launcher", HERE)
def test_four_processes_are_one_run(launcher: str, tmp_path: Path) -> None:
    """They share a name that none of them was given; each has logged rows of its own; it ends as
    completed; and so does the next launch, which is another run."""
    missing, command, text = HERE[launcher]
    if missing:
        pytest.skip(missing)
    root = tmp_path / "runs"
    ranks = Ranks(tmp_path, text)
    with launched([*command, *ranks.arguments()], root, tmp_path) as running:
        ranks.wait_for(SIZE, running.output)
        ranks.stop()
        running.succeed()
    run = the_run(root)
    assert run.record is not None
    assert (run.state, run.record.attempt) == ("completed", 1)
    assert parts_in(run.directory) == {f"rank{rank}": "completed" for rank in range(1, SIZE)}
    journal = read_run(run.directory)
    for rank in range(SIZE):
        steps = [row.step for row in journal.rows(rank=rank)]
        assert steps == list(range(1, len(steps) + 1))
        assert len(steps) >= 5


@pytest.mark.requirement("RANK-2")
@pytest.mark.parametrize("launcher", ["torchrun", "mpich"])
def test_launches_that_nothing_tells_apart_are_runs_of_their_own(
    launcher: str, tmp_path: Path
) -> None:
    """torchrun without an id, and MPICH, set the same variables at each launch: a launch after one
    that has ended is another run, with all of its ranks."""
    missing, command, _ = HERE[launcher]
    if missing:
        pytest.skip(missing)
    if launcher == "torchrun":
        port = free_ports(1)[0]
        command = torchrun(f"--nproc-per-node={SIZE}", f"--master-port={port}")
    root = tmp_path / "runs"
    for number in range(3):
        directory = tmp_path / str(number)
        directory.mkdir()
        ranks = Ranks(directory)
        with launched([*command, *ranks.arguments()], root, directory) as running:
            ranks.wait_for(SIZE, running.output)
            ranks.stop()
            running.succeed()
    runs = find_runs(str(root))
    assert [run.state for run in runs] == ["completed"] * 3
    for run in runs:
        assert parts_in(run.directory) == {f"rank{rank}": "completed" for rank in range(1, SIZE)}


@pytest.mark.requirement("RANK-4")
@pytest.mark.parametrize("rank", [0, 2])
@pytest.mark.parametrize("launcher", HERE)
def test_a_killed_rank_is_how_the_run_ends(launcher: str, rank: int, tmp_path: Path) -> None:
    """torchrun and Open MPI end the others with SIGTERM: the run has failed all the same, as one of
    its ranks was killed. Nothing of it is left to say so where it was rank 0, or where MPICH kills
    the others: the run is one that has died."""
    missing, command, text = HERE[launcher]
    if missing:
        pytest.skip(missing)
    root = tmp_path / "runs"
    ranks = Ranks(tmp_path, text)
    arguments = ranks.arguments("signals.handle=true")
    with launched([*command, *arguments], root, tmp_path) as running:
        ranks.wait_for(SIZE, running.output)
        ranks.kill(rank)
        assert running.wait() != 0
    run = the_run(root)
    known = rank != 0 and launcher != "mpich"
    assert run.state == ("failed" if known else "died"), running.output()


@pytest.mark.requirement("RANK-2")
def test_a_restart_of_torchrun_is_the_next_attempt(tmp_path: Path) -> None:
    """torchrun starts all ranks again where one was killed: the same run goes on, and completes.

    They have no process group: gloo's does not come up again after a restart, also without keisei.
    """
    if missing := no_torch():
        pytest.skip(missing)
    root = tmp_path / "runs"
    ranks = Ranks(tmp_path)
    command = torchrun("--standalone", f"--nproc-per-node={SIZE}", "--max-restarts=1")
    with launched([*command, *ranks.arguments()], root, tmp_path) as running:
        ranks.wait_for(SIZE, running.output)
        ranks.kill(2)
        ranks.wait_for(SIZE, running.output, attempt=2)
        ranks.stop()
        running.succeed()
    run = the_run(root)
    assert run.record is not None
    assert (run.state, run.record.attempt) == ("completed", 2)
    assert parts_in(run.directory) == {f"rank{rank}": "completed" for rank in range(1, SIZE)}


@pytest.mark.requirement("RANK-8")
def test_a_cancel_from_elsewhere_ends_all_ranks(tmp_path: Path) -> None:
    """`keisei cancel` ends every process of torchrun's, and the run as cancelled."""
    if missing := no_torch():
        pytest.skip(missing)
    root = tmp_path / "runs"
    ranks = Ranks(tmp_path)
    command = torchrun("--standalone", f"--nproc-per-node={SIZE}")
    with launched([*command, *ranks.arguments()], root, tmp_path) as running:
        ranks.wait_for(SIZE, running.output)
        cancel = [PYTHON, "-m", "keisei", "cancel", the_run(root).name, "--wait", "60"]
        with launched(cancel, root, tmp_path) as cancelling:
            assert cancelling.wait() == 0, cancelling.output()
        running.wait()
    run = the_run(root)
    assert run.state == "cancelled", running.output()
    assert parts_in(run.directory) == {f"rank{rank}": "cancelled" for rank in range(1, SIZE)}
