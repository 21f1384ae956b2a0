"""W&B's set-up step: whether W&B tracks a run at all, where its SDK runs, and the wait for it."""

from __future__ import annotations

import os
import time
from collections.abc import Mapping

import anyio
from pydantic import ValidationError

from keisei._io import files
from keisei._log import logger
from keisei.config.schema import AppConfig, WandbConfig, wants_wandb
from keisei.trackers.base import RunInfo, Tracker
from keisei.trackers.group import WorkerGroup
from keisei.trackers.state import WorkerHandle
from keisei.trackers.wandb.mode import NAME, requested_mode, unknown_value
from keisei.trackers.wandb.settings_files import mode_in_files


def is_wanted(config: AppConfig) -> bool:
    """Return whether a run is to be tracked with W&B, unless the SDK's settings files forbid it."""
    return wants_wandb(config) and requested_mode(config.wandb, os.environ) != "disabled"


async def open_wandb(
    config: AppConfig, run: RunInfo, group: WorkerGroup, options: Mapping[str, object] | None = None
) -> WorkerHandle | None:
    """Start W&B's worker: in a host process, or in the program with ``wandb.in_process``.

    Args:
        config: the run's config.
        run: what W&B is told of the run.
        group: the session's workers.
        options: fields of the section `wandb`, in place of the config's.

    Returns:
        The worker; ``None`` where W&B is disabled.
    """
    kept = dict(options or {})
    wanted = {**config.wandb.model_dump(), **kept}
    try:
        section = WandbConfig.model_validate(wanted)
    except ValidationError:  # the tracker, which gets them, says what is wrong with them
        section = config.wandb.model_copy(update={"in_process": False})
    start_by = time.monotonic() + section.init_timeout
    mode = requested_mode(section, os.environ)
    if mode is None:
        mode = await files.in_thread(mode_in_files, os.environ)
    if mode == "disabled":
        return None
    if unknown := unknown_value(section, os.environ):
        text = "%s is no mode of W&B's: run %s is tracked offline, and nothing is uploaded"
        logger.warning(text, unknown, run.run_name)
    wanted["mode"] = mode
    if not section.in_process:
        return group.open_named(
            NAME,
            run,
            wanted,
            kept=kept,
            start_by=start_by,
            finish_timeout=section.finish_timeout,
        )

    def make() -> Tracker:
        from keisei.trackers.wandb.in_process import InProcessWandbTracker

        return InProcessWandbTracker(section.model_copy(update={"mode": mode}))

    return group.open_here(NAME, run, make, kept, start_by, section.finish_timeout)


async def setup_wandb(config: AppConfig, run: RunInfo, group: WorkerGroup) -> bool:
    """Start tracking a run with W&B, and wait for it at most ``wandb.init_timeout`` seconds.

    Args:
        config: the run's config.
        run: what W&B is told of the run.
        group: the session's workers.

    Returns:
        Whether W&B tracks the run; ``False`` where it is disabled (then nothing is started), has
        failed, or has not started yet.
    """
    worker = group.workers.get(NAME)
    if worker is None:
        if not is_wanted(config):
            return False
        worker = await open_wandb(config, run, group)
        if worker is None:
            return False
    try:
        with anyio.fail_after(config.wandb.init_timeout):
            await worker.attempted.wait()
    except TimeoutError:
        if not worker.attempted.is_set():  # else the loop was held past the deadline
            group.warn_late(worker)
    return worker.live
