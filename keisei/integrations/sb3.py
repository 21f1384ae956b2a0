"""stable-baselines3: an output format for its logger, and a callback that saves and resumes."""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path
from typing import Any

from keisei import SessionMember
from keisei.integrations.attached import Attached, Session
from keisei.integrations.missing import missing
from keisei.integrations.restoring import Restores

try:
    from stable_baselines3.common.callbacks import BaseCallback
    from stable_baselines3.common.logger import KVWriter
except ModuleNotFoundError as exc:
    raise missing("keisei.integrations.sb3", "stable-baselines3", "sb3") from exc

# The files of a checkpoint.
MODEL, REPLAY_BUFFER, NORMALIZATION = "model.zip", "replay_buffer.pkl", "vecnormalize.pkl"


class KeiseiOutputFormat(KVWriter):
    """Logs what stable-baselines3's logger dumps to a session.

    `KeiseiCallback` brings one along; use it by itself for a logger of your own,
    ``Logger(folder=None, output_formats=[KeiseiOutputFormat(session)])``.

    Args:
        session: the session, entered; ``None`` where nothing is to be logged.
    """

    def __init__(self, session: Session | SessionMember | None) -> None:
        self._run = Attached(session, "stable-baselines3")

    def write(
        self, key_values: Mapping[str, Any], key_excluded: Mapping[str, Any], step: int = 0
    ) -> None:
        """Log a row, under the number of timesteps."""
        excluded = ("keisei", "json")  # what is no text, such as a video, is not for `json` either
        row = {
            name: value
            for name, value in key_values.items()
            if not any(each in (key_excluded.get(name) or ()) for each in excluded)
        }
        self._run.log(row, step)

    def close(self) -> None:
        """Close nothing: the session's block ends the run."""


class KeiseiCallback(Restores, BaseCallback):
    """Logs a training, saves it every so many timesteps, and ends it where it is preempted.

    Args:
        session: the session, entered; ``None`` where nothing is to be logged.
        save_every: after how many timesteps the model is saved, with its replay buffer and what
            normalizes its observations, if it has them; ``None`` for not at all.
        verbose: as stable-baselines3 has it.

    Beside the file that `restore` returns, for ``PPO.load(path, env)``, are `replay_buffer.pkl` and
    `vecnormalize.pkl`, where the training had them. Go on with
    ``model.learn(..., reset_num_timesteps=False)``.
    """

    _restored_file = MODEL

    def __init__(
        self, session: Session | None, save_every: int | None = None, verbose: int = 0
    ) -> None:
        super().__init__(verbose)
        self._run = Attached(session, "stable-baselines3")
        self._session, self._save_every, self._next = session, save_every, 0
        self._format: KeiseiOutputFormat | None = None

    def _on_training_start(self) -> None:
        formats = self.model.logger.output_formats
        if not any(isinstance(each, KeiseiOutputFormat) for each in formats):
            self._format = KeiseiOutputFormat(self._session)
            formats.append(self._format)
        known = {
            name: value
            for name, value in vars(self.model).items()
            if isinstance(value, (bool, int, float, str)) and not name.startswith("_")
        }
        self._run.hyperparameters({"algorithm": type(self.model).__name__, **known})
        self._run.keep()
        self._run.began(self.num_timesteps)
        if self._save_every is not None:
            self._next = self._after(self.num_timesteps, self._save_every)

    @staticmethod
    def _after(step: int, every: int) -> int:
        return (step // every + 1) * every

    def _on_step(self) -> bool:
        preempted = self._run.is_preempted
        is_due = self._save_every is not None and self.num_timesteps >= self._next
        if preempted or is_due:
            with self._run.staging() as directory:
                self._save(directory)
                if preempted:
                    self._run.end_preempted(directory, self.num_timesteps)
                else:
                    self._run.commit(directory, self.num_timesteps)
        if is_due and self._save_every is not None:
            self._next = self._after(self.num_timesteps, self._save_every)
        return True

    def _save(self, directory: Path) -> None:
        self.model.save(directory / MODEL)
        if getattr(self.model, "replay_buffer", None) is not None:
            self.model.save_replay_buffer(directory / REPLAY_BUFFER)
        if (normalizes := self.model.get_vec_normalize_env()) is not None:
            normalizes.save(str(directory / NORMALIZATION))

    def _on_training_end(self) -> None:
        formats = self.model.logger.output_formats
        if self._format in formats:
            formats.remove(self._format)
