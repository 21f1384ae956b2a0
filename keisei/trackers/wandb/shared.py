"""One run of W&B's that several processes write to: rank 0, and each other rank for its own part.

The SDK has a mode for that (`shared`, experimental in 0.31): all start the run under one id, and
one of them, the primary, ends it. A run that gets rows after its end goes on, as far as W&B can
tell: so a rank starts once rank 0 has, and rank 0 ends the run once no rank sends any more.
"""

from __future__ import annotations

import os
import time
from contextlib import suppress
from dataclasses import replace

from keisei._io.files import OpenDirectory
from keisei.errors import TrackerError
from keisei.trackers import cursor
from keisei.trackers.base import RunInfo
from keisei.trackers.wandb.mode import NAME

PATIENCE = 5.0  # seconds of one try; the worker tries again
PARTS = os.path.join("wandb", "parts")
_POLL = 0.05


def is_shared(run: RunInfo) -> bool:
    """Return whether several processes send the run, or one part of it is sent by itself."""
    return run.shared or run.part is not None


def settings(run: RunInfo) -> dict[str, object]:
    """Return what the SDK is told of a process that shares a run; nothing where none does.

    Args:
        run: the run, and the part of it that the process sends.
    """
    if not is_shared(run):
        return {}
    told: dict[str, object] = {"x_label": run.part or "rank0", "x_primary": run.part is None}
    # A part that is sent when the run has ended opens it again on W&B, and nobody else ends it.
    told["x_update_finish_state"] = run.part is None or not run.shared
    if run.part is not None:
        told["x_server_side_derived_summary"] = True  # or a rank's would replace rank 0's
    return told


def directory_of(run: RunInfo) -> str:
    """Return the directory in which the SDK keeps its files of a run, or of one of its parts.

    They are named by the second and the run's id, which all parts have alike.
    """
    return run.directory if run.part is None else os.path.join(run.directory, PARTS, run.part)


def make_directory(run: RunInfo) -> str:
    """Make the directory in which the SDK keeps its files, and return its path; it holds no link.

    Args:
        run: the run, and the part of it that the process sends.

    Raises:
        OSError: it cannot be made, or a link stands in its place.
    """
    home, above = directory_of(run), run.directory
    for name in os.path.relpath(os.path.join(home, "wandb"), above).split(os.sep):
        with OpenDirectory(above) as directory:
            directory.make(name)
        above = os.path.join(above, name)
    with OpenDirectory(above):  # no link out of the run
        return home


def owners_id(directory: str, timeout: float) -> str:
    """Wait until rank 0 has started the run on W&B, and return the id that it has there; blocks.

    Args:
        directory: the run's directory.
        timeout: how long to wait, in seconds.

    Raises:
        TrackerError: rank 0 tracks the run offline.
        TimeoutError: it has not started it in time.
        OSError: its cursor cannot be read.
    """
    give_up = time.monotonic() + timeout
    while True:
        known = cursor.load(directory, NAME).known
        with OpenDirectory(directory) as opened:
            delivers = cursor.is_delivered(opened, NAME) is not False
        if delivers and known.state == "live" and known.run_id is not None:
            if known.mode == "offline":
                raise offline()
            return known.run_id
        if time.monotonic() > give_up:
            raise TimeoutError("rank 0 has not started the run on W&B yet")
        time.sleep(_POLL)


def alone(run: RunInfo) -> RunInfo:
    """Return a run as rank 0 sends it by itself, with a release that cannot share one: before 0.31.

    Their files lag, and tell no part how far W&B has got with it: rows would be sent again.

    Raises:
        TrackerError: it is a part of a run.
    """
    if run.part is not None:
        raise TrackerError(
            "to share a run (distributed.track: shared) needs wandb>=0.31: this part's rows wait "
            "in its journal for `keisei sync` with that"
        )
    return replace(run, shared=False)


def offline() -> TrackerError:
    """Return the error that a run which is tracked offline cannot be shared."""
    return TrackerError(
        "W&B shares a run (distributed.track: shared) only while it is online: this rank's rows "
        "wait in its journal for `keisei sync`"
    )


def wait_for_parts(directory: str, timeout: float) -> None:
    """Wait until no rank sends its rows to W&B any more, as rank 0; blocks.

    Args:
        directory: the run's directory.
        timeout: the longest wait, in seconds.
    """
    give_up = time.monotonic() + timeout
    with suppress(OSError), OpenDirectory(directory) as opened:
        for part in cursor.parts(directory, NAME):
            while cursor.is_delivered(opened, NAME, part) and time.monotonic() < give_up:
                time.sleep(_POLL)
