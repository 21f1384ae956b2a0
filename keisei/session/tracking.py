"""How a session's trackers are started: W&B, those that the config names, and those added later."""

from __future__ import annotations

import os
from collections.abc import Awaitable, Callable
from functools import partial
from typing import Any

import anyio

from keisei._log import logger
from keisei.config.schema import AppConfig, wants_wandb
from keisei.run.claim import OwnedRun
from keisei.run.status import FINAL, Step
from keisei.session.view import SessionFacts
from keisei.trackers.base import RunInfo, Tracker, TrackerRun
from keisei.trackers.group import Trackers, starting
from keisei.trackers.loading import describe
from keisei.trackers.wandb.tracker import requested_mode
from keisei.trackers.worker import Lane
from keisei.training import utils

WANDB = "wandb"


class Tracking:
    """Starts the trackers of one session.

    Args:
        facts: what is known of the session.
        trackers: their lanes.
        owned: gives the run's directories, once they are claimed.
        config_text: gives the effective config as text.
    """

    def __init__(
        self,
        facts: SessionFacts[Any],
        trackers: Trackers,
        owned: Callable[[], OwnedRun | None],
        config_text: Callable[[], Awaitable[str]],
    ) -> None:
        self._facts, self._trackers = facts, trackers
        self._owned, self._config_text = owned, config_text
        self._starting: anyio.CancelScope | None = None

    async def wandb(self) -> bool:
        """Start W&B, and wait for it; tell whether it tracks the run."""
        facts = self._facts
        lane = self._trackers.lanes.get(WANDB)
        if lane is not None:
            return bool(facts.wandb_active) or await self._trackers.started(lane)
        if facts.wandb_active is None:
            run = await self._started_wandb()
            facts.wandb_active = run is not None
            facts.done.add(Step.WANDB)
            if run is not None:
                lane = self._trackers.open(
                    WANDB,
                    await self._info(),
                    lambda lane: run,
                    options={},
                    on_live=self._wandb_lives,
                )
                self._wandb_lives(run)
                await lane.attempted.wait()
                await self._record()
        return facts.wandb_active

    async def add(self, backend: str | Tracker, options: dict[str, object]) -> bool:
        """Start one more tracker, and wait for it; tell whether it tracks the run."""
        name = backend if isinstance(backend, str) else backend.name
        known = self._trackers.lanes.get(name)
        lane = known or await self._open(name, backend, options)
        if not lane.live:
            await self._trackers.started(lane)
        if known is None:
            await self._record()
        return lane.live

    async def named(self) -> dict[str, bool]:
        """Start those that the config names, and wait for them; tell which track the run."""
        lanes = await self._open_named()
        for lane in lanes:
            if not lane.live:
                await self._trackers.started(lane)
        if lanes:
            await self._record()
        return {lane.name: lane.live for lane in lanes}

    async def begin(self) -> None:
        """Start W&B and those that the config names, and wait for none."""
        facts = self._facts
        if facts.wandb_active is None:
            facts.wandb_active = False
            facts.done.add(Step.WANDB)
            mode = requested_mode(facts.config.wandb, os.environ)
            if wants_wandb(facts.config) and mode != "disabled":
                info = await self._info()
                self._trackers.open(
                    WANDB,
                    info,
                    partial(_start_wandb, facts.config, info),
                    options={},
                    on_live=self._wandb_lives,
                    retry=False,
                )
        await self._open_named()

    def stop_starting(self) -> None:
        """Let nobody wait any longer for a tracker that is still starting."""
        if self._starting is not None:
            self._starting.cancel()
        self._trackers.stop_starting()

    async def _open_named(self) -> list[Lane]:
        lanes = self._trackers.lanes
        named = self._facts.config.tracking.trackers
        return [
            lanes.get(name) or await self._open(name, name, named[name])
            for name in named
            if name != WANDB
        ]

    async def _open(self, name: str, backend: str | Tracker, options: dict[str, object]) -> Lane:
        info = await self._info()
        kept = options if isinstance(backend, str) else None
        return self._trackers.open(name, info, starting(backend, options, info), options=kept)

    async def _started_wandb(self) -> TrackerRun | None:
        """Start W&B in the caller's own task: what it does is the documented step, and no more."""
        run_name = self._facts.run_name
        try:
            with anyio.CancelScope() as self._starting:
                return await utils.setup_wandb(self._facts.config, await self._info())
        except TimeoutError:
            logger.warning(
                "%s did not start in time: run %s goes on without it. Its server may be slow or "
                "away; give it longer, or use an offline mode.",
                WANDB,
                run_name,
            )
        except Exception as exc:  # noqa: BLE001 - foreign code: no tracker may stop the training
            text = "%s did not start (%s): run %s goes on without it."
            logger.warning(text, WANDB, describe(exc), run_name)
        return None

    def _wandb_lives(self, run: TrackerRun) -> None:
        if self._facts.status not in FINAL:
            native: Any = run.native
            self._facts.wandb_run = native
            self._facts.wandb_active = True

    async def _info(self) -> RunInfo:
        facts = self._facts
        assert facts.paths is not None
        return RunInfo(
            session_id=facts.session_id,
            run_name=facts.run_name,
            attempt=facts.attempt,
            directory=facts.paths.run_artifact_dir,
            config_text=await self._config_text(),
        )

    async def _record(self) -> None:
        """Note the trackers in the session's record."""
        owned = self._owned()
        try:
            if owned is not None:
                await owned.update(trackers=self._trackers.records())
        except (OSError, RuntimeError) as exc:
            text = "the record of run %s cannot be written: %s"
            logger.warning(text, self._facts.run_name, exc)


def _start_wandb(config: AppConfig, info: RunInfo, lane: Lane) -> TrackerRun | None:
    """Start W&B on its lane's thread, in a loop of that thread's own."""
    lane.ready(config.wandb.init_timeout)
    return anyio.run(utils.setup_wandb, config, info)
