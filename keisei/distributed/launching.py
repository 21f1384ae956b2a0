"""The launch of this process: what its environment, and the process that has made it, say."""

from __future__ import annotations

import os
import sys
from collections.abc import Sequence
from typing import Any

from keisei._io import process
from keisei.distributed import slurm
from keisei.distributed.launch import Given, find_launch
from keisei.distributed.launchers import Launch, Launcher
from keisei.run.session_file import LaunchRecord


def launch_here(
    given: Given, run_name: str | None, named: Sequence[Launcher] = ()
) -> Launch | None:
    """Return the launch that this process belongs to; ``None`` where it was started alone.

    Args:
        given: what the program or the config says.
        run_name: the run's name, where one was chosen.
        named: the launchers that the config names.

    Raises:
        LaunchError: what is said of it contradicts itself.
    """
    return find_launch(
        os.environ, given, pid=os.getpid(), parent=_parent(), run_name=run_name, named=named
    )


def start_of_job(found: Launch | None, identity: str | None) -> Launch | None:
    """Return what tells the starts of a job's only process from those of other processes.

    A process that `multiprocessing` has made has the command line of the one that has made it, and
    so the same: nothing tells it from that one.

    Args:
        found: the launch that the process belongs to, where there is one.
        identity: what tells it from others, where the config says it.

    Returns:
        A launch of one process; ``None`` outside of SLURM's jobs.
    """
    return None if _parent() else slurm.start_of_job(os.environ, found, sys.argv, identity)


def _parent() -> str | None:
    """Return what names the process that has spawned this one by `multiprocessing`."""
    multiprocessing: Any = sys.modules.get("multiprocessing.process")
    parent = None if multiprocessing is None else multiprocessing.parent_process()
    if parent is None:
        return None
    return f"{process.host_name()}/{parent.pid}/{process.process_start(parent.pid)}"


def record_of(launch: Launch) -> LaunchRecord:
    """Return a launch as the session file has it."""
    return LaunchRecord(
        launcher=launch.launcher,
        identity=launch.identity,
        restart=launch.restart,
        requeues=launch.requeues,
        world_size=launch.world_size,
        decided_by=launch.decided_by,
    )
