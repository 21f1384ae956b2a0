"""The lifecycle as a table: which step needs which, and how a run can end.

    step          needs         twice                    sets
    directories   -             the same result          directories_setup
    wandb         directories   the same result          wandb_initialized
    trackers      directories   the same result          -
    config        directories   written again            config_saved
    seeding       -             seeded again             seeding_setup
    start         directories   nothing                  session_active
    signals       -             nothing                  -
    a preemption  -             nothing                  -
    a save        directories   nothing                  -
    a restore     directories   restored again           -
    (the end)     -             the same result          session_active is false again

A session is `created`, then `running` from the moment it owns its directory, then has one of the
four ends. No step may come after the end. An end is the truth about the body: an exception that
ends it decides, unless the caller names another status.
"""

from __future__ import annotations

import asyncio
import concurrent.futures
import sys
from collections.abc import Set
from enum import StrEnum
from typing import Literal, TypedDict, get_args

from keisei.errors import (
    InvalidStatusError,
    NotReadyError,
    RunCancelledError,
    SessionEndedError,
    quoted,
)

FinalStatus = Literal["completed", "failed", "cancelled", "preempted"]
Status = Literal["created", "running", "completed", "failed", "cancelled", "preempted"]

FINAL: tuple[FinalStatus, ...] = get_args(FinalStatus)


class SessionState(TypedDict):
    """Which steps a session has taken, and whether it is between its start and its end."""

    directories_setup: bool
    wandb_initialized: bool
    config_saved: bool
    seeding_setup: bool
    session_active: bool


class Step(StrEnum):
    """The steps of a session; the value is the name of the method that takes the step."""

    DIRECTORIES = "setup_directories"
    WANDB = "setup_wandb"
    TRACKERS = "setup_trackers"
    REMOTE = "setup_remote_logging"
    CONFIG = "save_effective_config"
    SEEDING = "setup_seeding"
    START = "log_session_start"
    SIGNALS = "handle_signals"
    PREEMPT = "preempt"
    AUTO = "setup_auto_checkpointing"
    SAVE = "save_checkpoint"
    FINAL_MODEL = "save_final_model"
    IF_DUE = "checkpoint_if_due"
    RESTORE = "restore_checkpoint"


_NEEDS: dict[Step, Step | None] = {
    Step.DIRECTORIES: None,
    Step.WANDB: Step.DIRECTORIES,
    Step.TRACKERS: Step.DIRECTORIES,
    Step.REMOTE: Step.DIRECTORIES,
    Step.CONFIG: Step.DIRECTORIES,
    Step.SEEDING: None,
    Step.START: Step.DIRECTORIES,
    Step.SIGNALS: None,
    Step.PREEMPT: None,
    Step.AUTO: None,
    Step.SAVE: Step.DIRECTORIES,
    Step.FINAL_MODEL: Step.DIRECTORIES,
    Step.IF_DUE: Step.DIRECTORIES,
    Step.RESTORE: Step.DIRECTORIES,
}


def require(step: Step, done: Set[Step], status: Status) -> None:
    """Check that a step may be taken now.

    Raises:
        NotReadyError: a step that it needs is missing.
        SessionEndedError: the session has ended.
    """
    if status in FINAL:
        raise too_late(f"{step}()", status)
    needed = _NEEDS[step]
    if needed is not None and needed not in done:
        raise NotReadyError(f"{step}() needs the run's directories: call {needed}() first")


def too_late(step: str, status: Status) -> SessionEndedError:
    """Return the error that a step came after the session's end."""
    return SessionEndedError(
        f"{step} comes too late: the session has ended as {status}. Call it before the block is "
        "left or finalize_session() is called; or make a new session, which is the run's next "
        "attempt where it has the same run name."
    )


def session_state(done: Set[Step], status: Status) -> SessionState:
    """Derive the documented state from the steps that are done and the status."""
    return SessionState(
        directories_setup=Step.DIRECTORIES in done,
        wandb_initialized=Step.WANDB in done,
        config_saved=Step.CONFIG in done,
        seeding_setup=Step.SEEDING in done,
        session_active=Step.START in done and status not in FINAL,
    )


def check_final(status: str) -> FinalStatus:
    """Return the status if a run can end with it.

    Raises:
        InvalidStatusError: it cannot.
    """
    if status not in FINAL:
        raise InvalidStatusError(
            f"a run cannot end as {quoted(status)}: use one of {', '.join(FINAL)}"
        )
    return status


def status_after(exc: BaseException | None) -> FinalStatus:
    """Return the status of a run from the exception that left its body.

    Args:
        exc: the exception, or ``None`` where the body came to its end. A group is a failure as
            soon as one of its leaves is.
    """
    if exc is None:
        return "completed"
    if isinstance(exc, BaseExceptionGroup):
        ends = {status_after(inner) for inner in exc.exceptions}
        return next(end for end in ("failed", "cancelled", "completed") if end in ends)
    if isinstance(exc, SystemExit):
        return "completed" if exc.code in (None, 0) else "failed"
    if isinstance(exc, (KeyboardInterrupt, GeneratorExit, RunCancelledError, *_cancellations())):
        return "cancelled"
    return "failed"


def _cancellations() -> tuple[type[BaseException], ...]:
    known = [asyncio.CancelledError, concurrent.futures.CancelledError]
    # trio is not imported for its sake: without it, nothing can have raised its Cancelled.
    trio = sys.modules.get("trio")
    return (*known, trio.Cancelled) if trio is not None else tuple(known)
