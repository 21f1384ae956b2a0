"""The run's paths: planned from root and name, frozen, and confined to their root."""

from __future__ import annotations

import os.path
from typing import NamedTuple

from keisei._text import as_utf8
from keisei.run.names import check_run_name

CONFIG_FILE = "effective_config.json"
ORIGINS_FILE = "config_origins.json"
TRAINING_LOG = "training.log"
EVALUATION_LOG = "evaluation.log"
SUPERSEDED_EVALUATIONS = "evaluation.superseded.log"
RECORD_FILE = "session.json"
LABELS_FILE = "labels.json"
STOP_FILE = "stop.json"
MODELS = "models"
PARTS = "parts"


class RunPaths(NamedTuple):
    """Where a run's things are: absolute paths, as text.

    Attributes:
        run_artifact_dir: the run's own directory, `{root}/{run_name}`.
        model_dir: where its models live.
        log_file_path: the training log.
        eval_log_file_path: the evaluation log.
    """

    run_artifact_dir: str
    model_dir: str
    log_file_path: str
    eval_log_file_path: str

    @property
    def config_path(self) -> str:
        """The effective config's file."""
        return os.path.join(self.run_artifact_dir, CONFIG_FILE)

    def as_dict(self) -> dict[str, str]:
        """Return the four documented paths by name."""
        return self._asdict()

    def as_text(self) -> dict[str, str]:
        """Return the same as text that a file of UTF-8 can hold: other bytes are escaped."""
        return {name: as_utf8(path) for name, path in self._asdict().items()}


def plan_paths(root: str, model_root: str | None, run_name: str) -> RunPaths:
    """Plan a run's paths, touching nothing.

    Args:
        root: the directory under which runs live, absolute.
        model_root: the directory under which models live, absolute; ``None`` keeps them with
            their run.
        run_name: the run's name.

    Raises:
        InvalidRunNameError: the name is not a safe one, and could lead out of the root.
    """
    directory = os.path.join(root, check_run_name(run_name))
    models = os.path.join(directory, MODELS)
    return RunPaths(
        run_artifact_dir=directory,
        model_dir=models if model_root is None else os.path.join(model_root, run_name),
        log_file_path=os.path.join(directory, TRAINING_LOG),
        eval_log_file_path=os.path.join(directory, EVALUATION_LOG),
    )


def log_file(name: str, part: str | None) -> str:
    """Return the name that a log has for a part of the run: ``training.rank3.log``.

    Args:
        name: `TRAINING_LOG` or `EVALUATION_LOG`.
        part: the part; ``None`` for the owner's own.
    """
    return name if part is None else name.replace(".log", f".{part}.log")
