"""Rows of runs from their directories alone, without any registry."""

from __future__ import annotations

import json
import os
from collections.abc import Collection, Iterable, Iterator, Mapping
from contextlib import suppress
from dataclasses import replace
from datetime import datetime
from functools import partial

from keisei._io import files
from keisei.checkpoints.counted import counted
from keisei.journal.reader import RunJournal
from keisei.monitoring.money import texts
from keisei.monitoring.node_time import number_in
from keisei.monitoring.run_events import ledger_of
from keisei.run import find
from keisei.run.find import FoundRun
from keisei.run.labels import Labels, read_labels
from keisei.run.layout import CONFIG_FILE, LABELS_FILE, MODELS
from keisei.store.rows import Lazily, MetricSummary, RunRow
from keisei.store.summaries import Summaries


def rows(root: str, wanted: Iterable[str] = (), gone: Collection[str] = ()) -> Iterator[RunRow]:
    """Yield a row for each run under a root, sorted by name, or for those that are wanted.

    Args:
        root: the absolute path of the directory under which runs live.
        wanted: names of runs under the root, or paths of their directories; all where empty.
        gone: other hosts that are known to be gone.

    Raises:
        FileNotFoundError: a wanted run is not there, or the root is not.
        OSError: the root, or a wanted run, cannot be read.
    """
    return map(row_of, find.find_runs(root, wanted, gone))


def row_of(run: FoundRun) -> RunRow:
    """Return the row of a run that was found; what of it cannot be read is left out.

    Its config, metrics, checkpoints and cost are read when they are first asked for.

    Args:
        run: the run.
    """
    record, directory = run.record, run.directory
    owner = record.owner if record is not None else run.live_owner
    labels = _labels(directory)
    config = Lazily(partial(_config, directory))
    row = RunRow(
        run.name,
        directory,
        status=run.state,
        host=owner.host if owner else None,
        pid=owner.pid if owner else None,
        tags=labels.tags,
        note=labels.note,
        config=config,
        metrics=Lazily(partial(metrics_of, directory, config)),
        checkpoints=Lazily(partial(_checkpoints, directory)),
        cost=Lazily(lambda: ledger_of(directory).in_short()),
    )
    if record is None:
        return row
    return replace(
        row,
        session_id=record.session_id,
        attempt=record.attempt,
        started=timestamp(record.started_at),
        ended=timestamp(record.ended_at),
        duration_s=record.duration_s,
        failure=None if record.failure is None else str(record.failure),
        trackers={name: known.state for name, known in record.trackers.items()},
    )


def metrics_of(directory: str, config: Mapping[str, object]) -> dict[str, MetricSummary]:
    """Return what a run's metrics have come to, without what was superseded.

    Args:
        directory: the run's directory.
        config: its effective config, which says what is best (`checkpoints.keep_best`).
    """
    summaries = Summaries()
    with suppress(OSError):
        for _, superseded, _, keys, raw in RunJournal(directory).merged():
            if not superseded:
                summaries.add(keys, raw[1:-1], raw[-1])  # type: ignore[arg-type]
    return summaries.metrics(best_in(config))


def cost_in(said: object) -> dict[str, object]:
    """Return what the run has cost as an event `usage.cost` says it; empty where it does not.

    Args:
        said: the event's data.
    """
    totals = said.get("run") if isinstance(said, Mapping) else None
    if not isinstance(said, Mapping) or not isinstance(totals, Mapping):
        return {}
    more: dict[str, object] = {}
    if (energy := number_in(said.get("energy_kwh"))) is not None:
        more["energy_kwh"] = float(energy)
    if type(unpriced := said.get("unpriced")) is int and unpriced > 0:
        more["unpriced"] = unpriced
    if not totals and not more:
        return {}
    currency = said.get("currency")
    found = {str(name): number_in(total) for name, total in totals.items()}
    known = {name: number for name, number in found.items() if number is not None}
    own = known.get(str(currency)) if len(known) != 1 else next(iter(known.values()))
    total = None if own is None else float(own)
    return {"total": total, "currency": currency, "totals": texts(known), **more}


def best_in(config: Mapping[str, object]) -> dict[str, str]:
    """Return of which metric `min` or `max` is the best, as a config says."""
    checkpoints = config.get("checkpoints")
    best = checkpoints.get("keep_best") if isinstance(checkpoints, Mapping) else None
    if isinstance(best, Mapping) and isinstance(best.get("metric"), str):
        return {str(best["metric"]): str(best.get("mode"))}
    return {}


def models_of(directory: str) -> str:
    """Return the directory of a run's models: in its own one, else under `KEISEI_MODEL_DIR`.

    A run's own files do not say it: they may come from somebody else.

    Args:
        directory: the run's directory.
    """
    own = os.path.join(directory, MODELS)
    root = os.environ.get("KEISEI_MODEL_DIR")
    if root and not os.path.lexists(own):
        return os.path.join(find.absolute_path(root), os.path.basename(directory))
    return own


def timestamp(text: str | None) -> float | None:
    """Return the seconds since the epoch of a time in ISO 8601; ``None`` where it is none."""
    with suppress(ValueError, TypeError, OverflowError, OSError):
        return datetime.fromisoformat(text or "").timestamp()
    return None


def _labels(path: str) -> Labels:
    # Most runs have none: of thousands, each directory is opened only where it has to be.
    if os.path.lexists(os.path.join(path, LABELS_FILE)):
        with suppress(OSError), files.OpenDirectory(path) as directory:
            return read_labels(directory)
    return Labels()


def _checkpoints(directory: str) -> dict[str, object]:
    try:
        return counted(models_of(directory))
    except OSError:  # no directory can have the path of KEISEI_MODEL_DIR
        return {}


def _config(path: str) -> dict[str, object]:
    try:
        with files.OpenDirectory(path) as directory:
            data = json.loads(find.read_file(directory, CONFIG_FILE))
    except (OSError, ValueError, RecursionError):
        return {}
    return data if isinstance(data, dict) else {}
