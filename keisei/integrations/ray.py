"""Ray: a callback of Tune's that makes each trial a run, and a session for the workers of Train."""

from __future__ import annotations

import os
import pickle
import sys
from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager
from pathlib import Path
from typing import Any

from keisei import AppConfig, LaunchError, SessionManager
from keisei._log import logger
from keisei.checkpoints import random_states
from keisei.errors import describe
from keisei.integrations.attached import Attached
from keisei.integrations.missing import missing
from keisei.integrations.restoring import Restores

try:
    from ray import train, tune
    from ray.exceptions import RayTaskError, TaskCancelledError
    from ray.tune.result import AUTO_RESULT_KEYS
except (ModuleNotFoundError, ImportError) as exc:
    raise missing("keisei.integrations.ray", "ray[train,tune]", "ray") from exc

_STEP = "training_iteration"  # what Tune counts the results of a trial by
_OWN = {*AUTO_RESULT_KEYS, "checkpoint_dir_name", "done", "should_checkpoint", "__duplicate__"}

# Writes what a rank 0 saves into a directory.
Save = Callable[[Path], object]


class KeiseiCallback(tune.Callback):
    """Makes each trial of a Tune experiment a run, with a session in the process of the tuner.

    A trial that comes to its end, or that a scheduler or a stopper ends, is `completed`; one that
    raises, or whose process dies, is `failed`; one that an interrupt leaves unfinished is
    `cancelled`. A trial that is tried again, or goes on in a restored experiment, is the next
    attempt of its run.

    Args:
        config: the config of all the runs. Its `env.seed` seeds no generator here: the trials
            train in other processes.
        run_name: what the runs' names begin with, before the trial's id; without it, the
            experiment's name.
    """

    def __init__(self, config: AppConfig, run_name: str | None = None) -> None:
        self._config, self._run_name = config, run_name
        self._trials: dict[str, _Trial] = {}
        self._has_failed = False  # a trial, in this step of the tuner's

    def __getstate__(self) -> dict[str, Any]:
        """Return what the tuner saves, and gives a restored experiment: no sessions."""
        return {
            "_config": self._config,
            "_run_name": self._run_name,
            "_trials": {},
            "_has_failed": False,
        }

    def on_trial_start(self, iteration: int, trials: list[Any], trial: Any, **info: Any) -> None:
        """Enter the trial's session; a trial that was paused still has it."""
        if (running := self._trials.get(trial.trial_id)) is None:
            name = f"{self._run_name or trial.experiment_dir_name}-{trial.trial_id}"
            running = self._trials[trial.trial_id] = _Trial(self._config, name, _begin_of(trial))
        running.configure(trial.config)

    def on_trial_result(
        self, iteration: int, trials: list[Any], trial: Any, result: Mapping[str, Any], **info: Any
    ) -> None:
        """Log what the trial has reported, under the count of its results."""
        if (running := self._trials.get(trial.trial_id)) is not None:
            values = {name: value for name, value in result.items() if name not in _OWN}
            running.log(values, int(result[_STEP]))

    def on_checkpoint(
        self, iteration: int, trials: list[Any], trial: Any, checkpoint: Any, **info: Any
    ) -> None:
        """Commit what the trial has saved as a checkpoint of its run."""
        if (running := self._trials.get(trial.trial_id)) is not None:
            running.commit(checkpoint)

    def on_trial_complete(self, iteration: int, trials: list[Any], trial: Any, **info: Any) -> None:
        """End the run as `completed`: also where a scheduler or a stopper has ended the trial."""
        self._end(trial)

    def on_trial_recover(self, iteration: int, trials: list[Any], trial: Any, **info: Any) -> None:
        """End the attempt as `failed`: the trial is tried again."""
        self._end(trial, _error_of(trial))

    def on_trial_error(self, iteration: int, trials: list[Any], trial: Any, **info: Any) -> None:
        """End the run as `failed`, with the trial's error."""
        self._has_failed = True
        self._end(trial, _error_of(trial))

    def on_step_end(self, iteration: int, trials: list[Any], **info: Any) -> None:
        """End what was stopped with all: by a stopper as `completed`, by a failure as `cancelled`.

        With `fail_fast` Tune stops all trials in the step in which one has failed.
        """
        has_failed, self._has_failed = self._has_failed, False
        for trial in trials:
            if trial.status == "TERMINATED":
                self._end(trial, KeyboardInterrupt() if has_failed else None)

    def on_experiment_end(self, trials: list[Any], **info: Any) -> None:
        """End what is unfinished: as `failed` where the tuner raises, else as `cancelled`.

        An interrupt makes the tuner end early; with ``fail_fast="raise"`` it raises what a trial
        has raised.
        """
        error = sys.exc_info()[1]
        for trial in trials:
            self._end(trial, KeyboardInterrupt() if error is None else _cause_of(error))

    def _end(self, trial: Any, error: BaseException | None = None) -> None:
        if (running := self._trials.pop(trial.trial_id, None)) is not None:
            running.end(error)


class _Trial:
    """A trial's session.

    Args:
        config: the run's config.
        name: the run's name.
        begin: how many results the trial goes on after; 0 where it begins.
    """

    def __init__(self, config: AppConfig, name: str, begin: int) -> None:
        self._session = SessionManager(config, run_name=name)
        states = random_states.take()  # the tuner draws from them what it tries
        self._session.__enter__()
        random_states.put_back(states)
        self._run, self._step = Attached(self._session, "ray"), begin
        self._known: object = None
        self._metrics: dict[str, Any] = {}
        if self._run.attempt > 1:
            self._session.resume_at(begin)
        self._run.keep()

    def configure(self, values: Mapping[str, Any]) -> None:
        """Log the trial's config, if it is another one than before."""
        if values != self._known:
            self._known = dict(values)
            self._run.hyperparameters(values)

    def log(self, values: dict[str, Any], step: int) -> None:
        """Log a result; one that is no later than the last supersedes what was logged since."""
        if step <= self._step:
            self._session.resume_at(step - 1)
        self._step, self._metrics = step, values
        self._run.log(values, step)

    def commit(self, checkpoint: Any) -> None:
        """Commit a checkpoint of the trial's, wherever it is stored."""
        try:
            with checkpoint.as_directory() as directory:
                self._run.commit(directory, self._step, self._metrics)
        except Exception as exc:  # noqa: BLE001 - its storage may be another host's
            logger.error("not kept as a checkpoint of the run: %s", describe(exc))

    def end(self, error: BaseException | None) -> None:
        """End the session as its trial has."""
        kind = None if error is None else type(error)
        self._session.__exit__(kind, error, None)


def _begin_of(trial: Any) -> int:
    """Return how many results were reported at the checkpoint that a trial starts from."""
    found = getattr(trial, "latest_checkpoint_result", None)
    return 0 if found is None else int((found.metrics or {}).get(_STEP, 0))


def _error_of(trial: Any) -> BaseException:
    """Return the error of a trial that has failed, as it was raised."""
    try:
        error = pickle.loads(Path(trial.pickled_error_file).read_bytes())
    except Exception as exc:  # noqa: BLE001 - an error of the user's own need not be picklable
        logger.debug("no error of %s: %s", trial, describe(exc))
        return RuntimeError(f"the trial {trial} has failed")
    return _cause_of(error)


def _cause_of(error: BaseException) -> BaseException:
    """Return what was raised in another process; a task cancelled there is an interrupt."""
    cause: BaseException = error.cause if isinstance(error, RayTaskError) else error
    return KeyboardInterrupt() if isinstance(cause, TaskCancelledError) else cause


@contextmanager
def worker_session(
    config: AppConfig, settings: Mapping[str, Any] | None = None, run_name: str | None = None
) -> Iterator[Worker]:
    """Enter the session of a worker of Ray Train: all workers of a trainer are ranks of one run.

    Call it in the training loop of each worker. Workers that Ray starts again, after one of them
    has failed, are the next attempt of the run.

    Args:
        config: as `SessionManager` takes it. Its root has to be an absolute path: Ray moves each
            worker to a directory of its own.
        settings: the trainer's `train_loop_config`, logged as the hyper-parameters.
        run_name: the run's name; without it the config's, and then that of Ray's `RunConfig`.

    Raises:
        LaunchError: the root is a relative path.
    """
    root = os.environ.get("KEISEI_LOG_DIR") or config.logging.log_dir
    if root is None or not os.path.isabs(root):
        raise LaunchError(
            "Ray moves each worker to a directory of its own, and the workers of a run share its: "
            "name an absolute path in logging.log_dir or KEISEI_LOG_DIR"
        )
    context = train.get_context()
    name = run_name or config.logging.run_name or context.get_experiment_name()
    session = SessionManager(config, run_name=name)
    rank, world_size = context.get_world_rank(), context.get_world_size()
    if world_size > 1:
        session.enable_distributed_session(rank, world_size, identity=f"ray/{name}")
    with session:
        yield Worker(session, settings or {})


class Worker(Restores):
    """One worker of Ray Train, which `worker_session` makes.

    Args:
        session: its session, entered.
        settings: the hyper-parameters.

    Attributes:
        session: the session, for what only its own methods can do.
    """

    def __init__(self, session: SessionManager[AppConfig], settings: Mapping[str, Any]) -> None:
        self.session, self._run = session, Attached(session, "ray")
        self._run.hyperparameters(settings)
        self._run.keep()

    def report(self, metrics: Mapping[str, Any], step: int, save: Save | None = None) -> None:
        """Report to Ray as `ray.train.report` does, and log the row; each worker calls it.

        What is saved is a checkpoint of Ray's and of the run's. A run that is preempted is saved
        by it, and ends here.

        Args:
            metrics: numbers by name; rank 0's are the run's.
            step: the training step that is done.
            save: called on rank 0 with a directory, into which it writes a checkpoint; ``None``
                where nothing is to be saved. All workers have to say the same.

        Raises:
            SystemExit: the run is preempted; it leaves the session's block.
        """
        self._run.log(metrics, step)
        if save is None:
            train.report(dict(metrics))
            return
        with self._run.staging() as directory:
            if self.session.rank == 0:
                save(directory)
            if self._run.is_preempted:
                self._run.end_preempted(directory, step)
            self._run.commit(directory, step, metrics)
            saved = train.Checkpoint.from_directory(directory) if self.session.rank == 0 else None
            train.report(dict(metrics), checkpoint=saved)

    def save_if_preempted(self, step: int, save: Save) -> None:
        """Save and end a run that is preempted; call it after each step.

        Args:
            step: the training step that is done.
            save: as in `report`.

        Raises:
            SystemExit: the run is preempted; it leaves the session's block.
        """
        if self._run.is_preempted:
            with self._run.staging() as directory:
                save(directory)
                self._run.end_preempted(directory, step)
