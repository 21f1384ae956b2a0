"""What four trackers hold of a run, each read with its own reader."""

from __future__ import annotations

import importlib
from collections.abc import Iterable
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from keisei.journal.reader import read_run
from tests.support.wandb_file import find_run_files, read_run_file

NAME = "n"  # the metric that numbers the rows


@dataclass(frozen=True)
class Held:
    """What a tracker holds of a run.

    Attributes:
        rows: the numbers of its rows.
        end: how it says that the run has ended; ``None`` where it says nothing.
    """

    rows: list[int]
    end: str | None = None


def journal(directory: Path) -> list[int]:
    """Return the numbers of the rows in a run's journals."""
    return [int(row.values[NAME]) for row in read_run(directory).rows(True)]


def tensorboard(directory: Path) -> Held:
    """Read TensorBoard's event files below a run's directory; they have no end."""
    reading: Any = importlib.import_module("tensorboard.backend.event_processing.event_accumulator")
    guidance = reading.STORE_EVERYTHING_SIZE_GUIDANCE
    events = reading.EventAccumulator(str(directory / "tensorboard"), guidance).Reload()
    if NAME not in events.Tags()["scalars"]:
        return Held([])
    return Held(_whole(event.value for event in events.Scalars(NAME)))


def mlflow(place: Path, run_name: str) -> Held:
    """Read a run of MLflow's from the database in a directory."""
    client: Any = importlib.import_module("mlflow").MlflowClient(f"sqlite:///{place}/mlflow.db")
    experiments = [experiment.experiment_id for experiment in client.search_experiments()]
    by_name = f"attributes.run_name = '{run_name}'"
    found = client.search_runs(experiments, filter_string=by_name)
    if len(found) != 1:
        return Held([], f"{len(found)} runs")
    info = found[0].info
    history = client.get_metric_history(info.run_id, NAME)
    return Held(_whole(metric.value for metric in history), info.status)


def trackio(run_id: str) -> Held:
    """Read a run of Trackio's from its own store (``TRACKIO_DIR``)."""
    storage: Any = importlib.import_module("trackio.sqlite_storage").SQLiteStorage
    rows = storage.get_logs("keisei", run_id=run_id)
    alerts = [alert["title"] for alert in storage.get_alerts("keisei", run_id=run_id)]
    ends = [title for title in alerts if str(title).startswith("run ")]
    return Held(_whole(row[NAME] for row in rows if NAME in row), ends[-1] if ends else None)


def wandb_files(directory: Path) -> Held:
    """Read the files that W&B's SDK keeps below a run's directory."""
    files = [path for path in find_run_files(directory) if not path.parent.is_symlink()]
    runs = [read_run_file(path) for path in files]
    ends = [run.exit_code for run in runs if run.exit_code is not None]
    rows = _whole(row[NAME] for run in runs for row in run.history if NAME in row)
    return Held(rows, str(ends[-1]) if ends else None)


def _whole(values: Iterable[float]) -> list[int]:
    return [int(value) for value in values]
