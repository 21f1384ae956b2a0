"""Hugging Face accelerate: a tracker, and an accelerator's states as checkpoints of the run."""

from __future__ import annotations

import shutil
from collections.abc import Mapping
from pathlib import Path
from typing import Any

from keisei import SessionMember
from keisei.integrations.attached import Attached, Session
from keisei.integrations.missing import missing
from keisei.integrations.restoring import Restores

try:
    from accelerate.tracking import GeneralTracker, on_main_process
except ModuleNotFoundError as exc:
    raise missing("keisei.integrations.accelerate", "accelerate", "accelerate") from exc


class KeiseiTracker(Restores, GeneralTracker):
    """Logs what `accelerator.log` is given to a session, and keeps what `save_state` saves.

    ``accelerator.end_training()`` ends no run: the session's block does.

    Args:
        session: the session, entered; ``None`` on a process that has none.
    """

    name = "keisei"
    requires_logging_directory = False
    main_process_only = True

    def __init__(self, session: Session | SessionMember | None) -> None:
        self._run = Attached(session, "accelerate")
        super().__init__()

    @property
    def tracker(self) -> Session | SessionMember | None:
        """The session, for what only its own methods can do."""
        return self._run.target

    @on_main_process
    def store_init_configuration(self, values: Mapping[str, Any]) -> None:
        """Log the hyper-parameters, which `init_trackers` is given, as an event."""
        self._run.hyperparameters(values)

    @on_main_process
    def log(self, values: Mapping[str, Any], step: int | None = None, **kwargs: Any) -> None:
        """Log a row of metrics."""
        self._run.log(values, step)

    def finish(self) -> None:
        """Wait until what was logged is in the journal; the run goes on."""
        self._run.flush()

    def save_state(
        self, accelerator: Any, step: int, metrics: Mapping[str, Any] | None = None
    ) -> None:
        """Save by `accelerator.save_state`, and commit that as a checkpoint; each rank calls it.

        A run that is preempted ends here.

        Args:
            accelerator: the `Accelerator`.
            step: the training step that the run goes on after when it is restored.
            metrics: numbers by name to keep with it.

        Raises:
            SystemExit: the run is preempted; it leaves the session's block.
        """
        self._run.keep()
        directory = self._run.directory
        if directory is None:
            return
        saved = Path(directory) / f".saving-{step}"  # the same on all ranks
        try:
            accelerator.save_state(str(saved))
            accelerator.wait_for_everyone()
            if self._run.is_preempted:
                self._run.end_preempted(saved, step)
            else:
                self._run.commit(saved, step, metrics)
            accelerator.wait_for_everyone()
        finally:
            if accelerator.is_main_process:
                shutil.rmtree(saved, ignore_errors=True)

    def save_state_if_preempted(self, accelerator: Any, step: int) -> None:
        """Save and end a run that is preempted; call it after each step.

        Args:
            accelerator: the `Accelerator`.
            step: the training step that is done.

        Raises:
            SystemExit: the run is preempted; it leaves the session's block.
        """
        self._run.keep()
        if self._run.is_preempted:
            self.save_state(accelerator, step)
