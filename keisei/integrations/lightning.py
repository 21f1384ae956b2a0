"""Lightning: a logger for metrics, and a callback for checkpoints, resuming and preemption."""

from __future__ import annotations

import os
import sys
from argparse import Namespace
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from pathlib import Path
from typing import Any

from keisei import AppConfig, AsyncSessionManager, LaunchError, SessionManager, SessionMember
from keisei.integrations.attached import Attached, Session
from keisei.integrations.missing import missing
from keisei.integrations.restoring import Restores

try:
    if "pytorch_lightning" in sys.modules and "lightning.pytorch" not in sys.modules:
        from pytorch_lightning.callbacks import Callback, ModelCheckpoint
        from pytorch_lightning.loggers.logger import Logger
        from pytorch_lightning.utilities import rank_zero_only
    else:
        from lightning.pytorch.callbacks import Callback, ModelCheckpoint
        from lightning.pytorch.loggers.logger import Logger
        from lightning.pytorch.utilities import rank_zero_only
except ModuleNotFoundError as exc:
    raise missing("keisei.integrations.lightning", "lightning", "lightning") from exc

FILE = "lightning.ckpt"  # in a checkpoint of the run


@contextmanager
def rank_zero_session(
    config: AppConfig, args: object = None, run_name: str | None = None
) -> Iterator[SessionManager[AppConfig] | None]:
    """Enter a session on rank 0, and none in the processes that Lightning starts beside it.

    Lightning's `ddp` starts the program again for each further device: each of them would have a
    run of its own. Under torchrun, SLURM and the like all ranks come to one run by themselves, and
    each gets its session here.

    Args:
        config: as `SessionManager` takes it, and so are the others.
        args: the program's arguments.
        run_name: the run's name.

    Returns:
        The session; ``None`` in a process that Lightning has started.
    """
    if _is_started_by_lightning():
        yield None
        return
    with SessionManager(config, args, run_name) as session:
        yield session


def _is_started_by_lightning() -> bool:
    """Return whether Lightning has started this process, for a rank that its launcher knows."""
    return os.environ.get("LOCAL_RANK", "0") != "0" and "RANK" not in os.environ


def _as_interrupt(error: BaseException | None) -> BaseException | None:
    """Return an interrupt for SIGTERM, of which Lightning makes an exit without a code."""
    return KeyboardInterrupt() if type(error).__name__ == "SIGTERMException" else error


def _check_not_a_run_of_its_own(session: object) -> None:
    """Check that no process of Lightning's has a run of its own.

    Raises:
        LaunchError: it has one.
    """
    alone = isinstance(session, SessionManager | AsyncSessionManager) and session.world_size == 1
    if alone and _is_started_by_lightning():
        raise LaunchError(
            "Lightning has started this program again for another device, which would be another "
            "run: use `with keisei.integrations.lightning.rank_zero_session(config) as session:`, "
            "which is None here, or start the program by torchrun"
        )


class KeiseiLogger(Logger):
    """Logs what a `LightningModule` logs to a session; only rank 0 does.

    An interrupt, which Lightning catches, ends the run as `cancelled`, and so does SIGTERM.

    Args:
        session: the session, entered; ``None`` on a process that logs nothing.
    """

    def __init__(self, session: Session | SessionMember | None) -> None:
        super().__init__()
        _check_not_a_run_of_its_own(session)
        self._run = Attached(session, "lightning")

    @property
    def experiment(self) -> Session | SessionMember | None:
        """The session, for what only its own methods can do; ``None`` above rank 0."""
        return None if getattr(rank_zero_only, "rank", 0) else self._run.target

    @property
    def name(self) -> str:
        """The folder of the run's directory in which Lightning saves its files."""
        return "lightning"

    @property
    def version(self) -> str:
        """The folder in it of this attempt."""
        return f"attempt_{self._run.attempt}"

    @property
    def save_dir(self) -> str | None:
        """The run's directory."""
        return self._run.directory

    @rank_zero_only
    def log_metrics(self, metrics: Mapping[str, Any], step: int | None = None) -> None:
        """Log a row of metrics."""
        self._run.log(metrics, step)

    @rank_zero_only
    def log_hyperparams(
        self, params: Mapping[str, Any] | Namespace | None = None, *args: Any, **kwargs: Any
    ) -> None:
        """Log the hyper-parameters as an event."""
        self._run.hyperparameters(vars(params) if isinstance(params, Namespace) else params or {})

    @rank_zero_only
    def finalize(self, status: str) -> None:
        """Note how Lightning ends; the session's block says how the run does."""
        if status != "success":
            self._run.interrupted(_as_interrupt(sys.exc_info()[1]))


class KeiseiCallback(Restores, Callback):
    """Commits what `ModelCheckpoint` saves as checkpoints of the run, and resumes and ends it.

    Lightning decides when to save, the config's section `checkpoints` what the run keeps. A run
    that is preempted is saved before its next batch. Each rank has it.

    Args:
        session: the session, entered; ``None`` on a process that has none.
    """

    _restored_file = FILE

    def __init__(self, session: Session | None) -> None:
        super().__init__()
        _check_not_a_run_of_its_own(session)
        self._run = Attached(session, "lightning")
        self._saved: dict[int, tuple[str, int]] = {}
        self._steps: set[int] = set()

    def on_fit_start(self, trainer: Any, pl_module: Any) -> None:
        """Take over what the config keeps."""
        self._run.keep()

    def on_train_start(self, trainer: Any, pl_module: Any) -> None:
        """Note where the training begins."""
        self._run.began(trainer.global_step)
        for number, each in enumerate(self._checkpoints_of(trainer)):
            self._saved[number] = _last_of(each, trainer)

    def on_train_batch_start(
        self, trainer: Any, pl_module: Any, batch: Any, batch_idx: int
    ) -> None:
        """Commit what was saved after the last batch; save and end a run that is preempted.

        `ModelCheckpoint` and the loggers are called behind the end of a batch.
        """
        self._commit_new(trainer)
        if self._run.is_preempted:
            with self._run.staging() as directory:
                trainer.save_checkpoint(directory / FILE)
                self._run.end_preempted(directory / FILE, trainer.global_step, FILE)

    def on_train_epoch_start(self, trainer: Any, pl_module: Any) -> None:
        """Commit what was saved at the end of an epoch."""
        self._commit_new(trainer)

    def teardown(self, trainer: Any, pl_module: Any, stage: str) -> None:
        """Commit what was saved last."""
        self._commit_new(trainer)

    def on_exception(self, trainer: Any, pl_module: Any, exception: BaseException) -> None:
        """Commit what was saved last; an interrupt ends the run as `cancelled`, and so SIGTERM."""
        self._commit_new(trainer)
        self._run.interrupted(_as_interrupt(exception))

    def _checkpoints_of(self, trainer: Any) -> list[Any]:
        return [each for each in trainer.checkpoint_callbacks if isinstance(each, ModelCheckpoint)]

    def _commit_new(self, trainer: Any) -> None:
        for number, each in enumerate(self._checkpoints_of(trainer)):
            path, step = last = _last_of(each, trainer)
            if not path or self._saved.get(number) == last:
                continue
            self._saved[number] = last
            if step not in self._steps:  # of several that save at one step, the first
                self._steps.add(step)
                self._run.commit(Path(path), step, trainer.callback_metrics, FILE)


def _last_of(each: Any, trainer: Any) -> tuple[str, int]:
    """Return the file that a `ModelCheckpoint` has saved last, and at which step."""
    path = getattr(each, "_last_checkpoint_saved", "") or each.last_model_path
    step = getattr(each, "_last_global_step_saved", trainer.global_step)
    return str(path or each.best_model_path), int(step)
