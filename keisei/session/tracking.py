"""How a session's trackers are started and ended: W&B, those that the config names, and others."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

from keisei._io import files
from keisei._io.offload import Work
from keisei._log import logger
from keisei.distributed.rank import OwnedRank
from keisei.errors import TrackerError
from keisei.run.session_file import TrackerRecord
from keisei.run.status import FINAL, FinalStatus, Step
from keisei.session.callbacks import config_text
from keisei.session.facts import SessionFacts
from keisei.store.tracker import FINISH_TIMEOUT as REGISTRY_TIMEOUT
from keisei.store.tracker import NAME as REGISTRY
from keisei.trackers.answers import name_of
from keisei.trackers.base import RunInfo, Tracker
from keisei.trackers.group import WorkerGroup
from keisei.trackers.loading import KIND
from keisei.trackers.places import working_directory
from keisei.trackers.state import WorkerHandle
from keisei.trackers.wandb.mode import NAME as WANDB
from keisei.trackers.wandb.setup import is_wanted, open_wandb, setup_wandb
from keisei.trackers.worker import Worker
from keisei.training import utils


class Tracking:
    """Starts the trackers of one session, and ends them.

    Args:
        facts: what is known of the session.
        logged: returns how many records this attempt has logged.
    """

    def __init__(self, facts: SessionFacts[Any], logged: Callable[[], int]) -> None:
        self._facts = facts
        self._last_record: Work[None] | None = None
        self._made_of: dict[str, object] = {}
        self._answer: bool | None = None  # of W&B's step
        tracking = facts.config.tracking
        self._group = WorkerGroup(tracking.linger, tracking.finish_timeout, logged)

    @property
    def wanted(self) -> bool:
        """Whether the config asks for any tracker, or W&B's step is not keisei's own."""
        return bool(self._named) or self._wants_wandb

    @property
    def _named(self) -> dict[str, dict[str, Any]]:
        """The trackers that the config names: of a launch, they are rank 0's."""
        return {} if self._facts.rank else self._facts.config.tracking.trackers

    @property
    def _wants_wandb(self) -> bool:
        """Whether W&B's step has anything to do: one that is replaced decides it by itself."""
        if self._facts.rank:
            return self._shares and is_wanted(self._facts.config)
        return utils.setup_wandb is not setup_wandb or is_wanted(self._facts.config)

    @property
    def _shares(self) -> bool:
        """Whether each rank sends its own rows to W&B."""
        facts = self._facts
        return facts.shared is not None and facts.config.distributed.track == "shared"

    async def wandb(self) -> bool:
        """Start W&B, and wait for it; return whether it tracks the run."""
        worker = self._group.workers.get(WANDB)
        if worker is not None and worker.attempted.is_set():
            active = worker.live
        elif worker is None and (self._answer is not None or not self._wants_wandb):
            active = bool(self._answer)
        else:
            self._made_of.setdefault(WANDB, {})
            active = await utils.setup_wandb(self._facts.config, await self._info(), self._group)
            self._answer = bool(active)
            await self._record()
        self._facts.done.add(Step.WANDB)
        return active

    async def add(self, backend: str | Tracker, options: dict[str, object]) -> WorkerHandle | None:
        """Start one more tracker, and return its worker; ``None`` where it is not started."""
        if isinstance(backend, type) or not (isinstance(backend, str) or hasattr(backend, "start")):
            given = backend.__name__ if isinstance(backend, type) else type(backend).__name__
            what = (
                f"the class {given}: call it, to make one" if isinstance(backend, type) else given
            )
            raise TypeError(f"backend must be a tracker's name or a tracker, not {what}")
        try:
            name = backend if isinstance(backend, str) else name_of(backend)
        except TrackerError as exc:
            logger.warning("%s: run %s goes on without it", exc, self._facts.run_name)
            return None
        if self._facts.rank:
            return None
        known = self._group.workers.get(name)
        made_of = options if isinstance(backend, str) else backend
        if known is not None and known.done.is_set() and not known.live:
            known = None  # it has failed for good: with other options it may not
        if (known is not None and self._made_of.get(name, made_of) != made_of) or (
            name != WANDB and options.get(KIND) == WANDB
        ):
            text = (
                "%s tracks run %s already, with other options: this one is not started. Give it a "
                "name of its own and say which tracker it is, as in "
                'setup_remote_logging("boards", tracker="tensorboard", ...); W&B tracks a run once.'
            )
            logger.warning(
                text, WANDB if options.get(KIND) == WANDB else name, self._facts.run_name
            )
            return None
        worker = known or await self._open(name, backend, options)
        if worker is None:
            text = "W&B is disabled, by the config, the environment or its settings: run %s is not"
            logger.warning(f"{text} tracked there", self._facts.run_name)
            return None
        if name == WANDB:
            self._facts.done.add(Step.WANDB)
        return worker

    async def wait_for(self, worker: WorkerHandle) -> bool:
        """Wait for a tracker that was added; return whether it tracks the run."""
        if not worker.live:
            await self._group.started(worker)
        if self._facts.status not in FINAL:
            await self._record()
        return worker.live

    async def named(self) -> dict[str, bool]:
        """Start those that the config names, and wait for them; return which track the run."""
        workers = await self._open_named()
        for worker in workers:
            if not worker.live:
                await self._group.started(worker)
        if workers:
            await self._record()
        return {worker.name: worker.live for worker in workers}

    async def begin(self) -> None:
        """Start those that the config names, and wait for none; W&B where nobody will wait for it.

        Otherwise `wandb` starts it, through the documented function, beside the others.
        """
        config = self._facts.config
        if (
            not config.tracking.wait
            and self._wants_wandb
            and is_wanted(config)
            and WANDB not in self._group.workers
        ):
            await self._open(WANDB, WANDB, {})
        await self._open_named()

    def begun(self) -> None:
        """Note that W&B's step is over, although nobody has waited for it."""
        self._facts.done.add(Step.WANDB)

    def open_registry(self) -> None:
        """Start the registry, where one is named, on the run; blocks, and waits for nothing."""
        facts = self._facts
        url = facts.registry
        if url is not None and facts.paths is not None:
            info = RunInfo(
                session_id=facts.session_id,
                run_name=facts.run_name,
                attempt=facts.attempt,
                directory=facts.paths.run_artifact_dir,
                config_text="",  # the registry reads what stands in the directory
                working_directory=working_directory(),
            )
            # The cursor does not keep the URL: it may hold a password.
            self._group.open_named(
                REGISTRY,
                info,
                {"url": url},
                kept={},
                finish_timeout=REGISTRY_TIMEOUT,
                known_away=None if facts.leases is None else facts.leases.known_away,
            )

    def wake(self) -> None:
        """Note that the journal has grown; never waits."""
        self._group.wake()

    def stop_waiting(self) -> None:
        """Release whoever waits for a tracker that is still starting."""
        self._group.stop_waiting()

    def records(self) -> dict[str, TrackerRecord]:
        """Return what is known of each tracker by now."""
        return self._group.records()

    @property
    def wandb_active(self) -> bool | None:
        """Whether W&B tracks the run; ``None`` before its step."""
        if Step.WANDB not in self._facts.done:
            return None
        worker = self._group.workers.get(WANDB)
        return bool(self._answer) if worker is None else worker.live

    def wandb_run(self) -> Any:
        """Return the SDK's run, where it is in the program; ``None`` where W&B is not active.

        Raises:
            TrackerError: W&B is active in a process of its own.
        """
        worker = self._group.workers.get(WANDB)
        if worker is None or not self.wandb_active:
            return None
        if isinstance(worker, Worker):
            return getattr(worker.run, "native", None)
        raise TrackerError(
            "W&B's SDK runs in a process of its own, and its run object with it. Log metrics, "
            "events and evaluations with the session's own log_metrics(), log_event() and "
            "log_evaluation(), or set wandb.in_process to true to have the SDK in the program."
        )

    @property
    def longest_finish(self) -> float:
        """How long `finish` may take, in seconds."""
        return max(map(self._group.timeout_of, self._group.workers), default=0.0)

    async def finish(self, status: FinalStatus) -> None:
        """End all trackers at once, wait for each within its own timeout, and record their states.

        Called again after a cancellation, it goes on with the wait.

        Args:
            status: how the run ended.
        """
        if self._group.workers:
            await self._group.finish(status)
            if self._last_record is None:
                self._last_record = Work(self._write_record)
            await self._last_record.result()

    async def _open_named(self) -> list[WorkerHandle]:
        workers, named = self._group.workers, self._named
        names = [name for name in named if name != WANDB]
        info = await self._info() if set(names) - set(workers) else None  # one hop for all
        opened = [
            workers.get(name) or await self._open(name, name, named[name], info) for name in names
        ]
        return [worker for worker in opened if worker is not None]

    async def _open(
        self,
        name: str,
        backend: str | Tracker,
        options: dict[str, object],
        info: RunInfo | None = None,
    ) -> WorkerHandle | None:
        info = info or await self._info()
        self._made_of[name] = options if isinstance(backend, str) else backend
        if not isinstance(backend, str):
            return self._group.open_here(name, info, lambda: backend)
        if name == WANDB:
            return await open_wandb(self._facts.config, info, self._group, options)
        return self._group.open_named(name, info, options)

    async def _info(self) -> RunInfo:
        facts, directory = self._facts, await files.in_thread(working_directory)
        assert facts.paths is not None
        return RunInfo(
            session_id=facts.session_id,
            run_name=facts.run_name,
            attempt=facts.attempt,
            directory=facts.paths.run_artifact_dir,
            config_text=await config_text(facts),
            working_directory=directory,
            part=facts.owned.part if isinstance(facts.owned, OwnedRank) else None,
            shared=self._shares,
        )

    async def _record(self) -> None:
        """Write what is known of the trackers into the session file."""
        try:
            await files.in_thread(self._write_record)
        except (TimeoutError, RuntimeError) as exc:
            self._unwritten(exc)

    def _write_record(self) -> None:
        try:
            if self._facts.owned is not None:
                self._facts.owned.update(trackers=self.records())
        except (OSError, RuntimeError) as exc:
            self._unwritten(exc)

    def _unwritten(self, exc: Exception) -> None:
        text = "the session file of run %s cannot be written: %s"
        logger.warning(text, self._facts.run_name, exc)
