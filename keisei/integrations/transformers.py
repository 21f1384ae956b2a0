"""Hugging Face transformers: a callback for the `Trainer`'s metrics, checkpoints and preemption."""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path
from typing import Any

from keisei.integrations.attached import Attached, Session
from keisei.integrations.missing import missing
from keisei.integrations.restoring import Restores

try:
    from transformers.trainer_callback import TrainerCallback
except ModuleNotFoundError as exc:
    raise missing("keisei.integrations.transformers", "transformers", "transformers") from exc

_PREFIXES = {"eval_": "eval/", "test_": "test/"}


class KeiseiCallback(Restores, TrainerCallback):
    """Connects a `Trainer` to a session: each rank's `Trainer` has one.

    The `Trainer` decides when to save, the config's section `checkpoints` what the run keeps. A
    run that is preempted is saved after its step.

    Args:
        session: the session, entered; ``None`` on a process that has none.
    """

    def __init__(self, session: Session | None) -> None:
        self._run = Attached(session, "transformers")
        self._metrics: dict[str, Any] = {}

    def on_train_begin(self, args: Any, state: Any, control: Any, **kwargs: Any) -> None:
        """Log the arguments and the model's config, and note where the training begins."""
        if state.is_world_process_zero:
            config: Any = getattr(kwargs.get("model"), "config", None)
            of_model = config.to_dict() if hasattr(config, "to_dict") else config
            self._run.hyperparameters({"training": args.to_sanitized_dict(), "model": of_model})
        self._run.keep()
        self._run.began(state.global_step)

    def on_log(
        self,
        args: Any,
        state: Any,
        control: Any,
        logs: Mapping[str, Any] | None = None,
        **kwargs: Any,
    ) -> None:
        """Log a row of metrics, named as transformers' other callbacks name them."""
        if not state.is_world_process_zero or not logs:
            return
        row = renamed(logs)
        self._metrics.update({name: row[name] for name in row if not name.startswith("train/")})
        self._run.log(row, state.global_step)

    def on_step_end(self, args: Any, state: Any, control: Any, **kwargs: Any) -> None:
        """Ask the `Trainer` to save, where the run is preempted."""
        if self._run.is_preempted:
            control.should_save = True

    def on_save(self, args: Any, state: Any, control: Any, **kwargs: Any) -> None:
        """Commit what the `Trainer` has saved, and end a run that is preempted."""
        saved = Path(args.output_dir) / f"checkpoint-{state.global_step}"
        if self._run.is_preempted:
            self._run.end_preempted(saved, state.global_step)
        else:
            self._run.commit(saved, state.global_step, self._metrics)


def renamed(logs: Mapping[str, Any]) -> dict[str, Any]:
    """Return metrics by the names `train/...`, `eval/...` and `test/...`.

    Args:
        logs: as the `Trainer` names them: `loss`, `eval_loss`.
    """
    row = {}
    for name, value in logs.items():
        for prefix, folder in _PREFIXES.items():
            if name.startswith(prefix):
                row[folder + name.removeprefix(prefix)] = value
                break
        else:
            row[f"train/{name}"] = value
    return row
