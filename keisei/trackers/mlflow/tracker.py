"""MLflow: a tracking server, or a database that it keeps itself. Measured with MLflow 3.17.

keisei works on MLflow's stores, below its fluent API: no active run, no tracking URI, no
autologging and no other state of the process is touched, and MLflow's usage reports are not
started. A row's metrics are written with a tag that says how far it got, `keisei.position`, after
which the next attempt, or this one after an error, goes on.

For what only MLflow can do, a program uses MLflow itself, on the same run: its id is in the session
file and the summary (`trackers.mlflow.run_id`), and ``mlflow.start_run(run_id=...)`` or a client
with the same tracking URI logs artifacts to it.
"""

from __future__ import annotations

import getpass
import json
import os
import threading
import time
from collections.abc import Mapping, Sequence
from contextlib import AbstractContextManager, suppress
from dataclasses import dataclass, field
from typing import Any, Literal
from urllib.parse import urlsplit

from keisei._log import logger
from keisei.journal.records import Event, Row, as_float
from keisei.redaction import clean, secret_values
from keisei.run.status import FinalStatus
from keisei.trackers.base import Media, Position, Record, RunInfo, Tracker, TrackerRun
from keisei.trackers.mlflow.media import KINDS, TABLES_TAG, keep_artifact, tables_tag
from keisei.trackers.mlflow.replacing import (
    POSITION_TAG,
    REPLACES_TAG,
    SESSION_TAG,
    delete_replaced,
    replace,
    retire,
)
from keisei.trackers.mlflow.rows import LONGEST_VALUE, Progress, mlflow_name, params
from keisei.trackers.mlflow.store import (
    database_of,
    default_uri,
    errors,
    experiment_of,
    find_experiment,
    find_launched,
    open_store,
    turn_at,
)
from keisei.trackers.places import absolute_uri, working_directory

DEFAULT_EXPERIMENT = "keisei"

LAUNCHED_TAG = "keisei.launched"  # the run is a launcher's, which waits for it

_STATUSES: dict[FinalStatus, str] = {
    "completed": "FINISHED",
    "failed": "FAILED",
    "cancelled": "KILLED",
    "preempted": "KILLED",
}
# MLflow's limits for one request: 1,000 metrics, params and tags, 100 of the latter, and 1 MB.
_MOST_METRICS = 900
_MOST_TAGS = 90
_MOST_BYTES = 800_000
_taking = threading.Lock()  # of the run that a launcher has made: one session takes it


@dataclass
class MlflowRun(TrackerRun):
    """A run that `MlflowTracker` has started."""

    run_id: str
    store: Any = field(repr=False)
    turn: AbstractContextManager[object] = field(repr=False)
    known: tuple[str, ...] = field(repr=False)
    progress: Progress | None = field(repr=False)
    info: Any = field(repr=False)
    session_id: str
    url: str | None = None
    directory: str | None = None
    options: dict[str, object] = field(default_factory=dict)
    mode: Literal["online", "offline"] = "online"  # a local database, too, has what it was sent
    tracking_uri: str = field(default="", repr=False)
    media = KINDS
    replaced: bool = False  # whether it has taken the place of another run

    def send(self, records: Sequence[Record]) -> None:
        """Log the rows, and of each kind of event the last one, as a tag; may block.

        Raises:
            RuntimeError: MLflow has not taken all of it, or has not said so.
        """
        with errors(self.known), self.turn:
            progress = before = self._known_progress()
            self.progress = None  # unknown until all is well
            batch = _Batch(self.store, self.run_id)
            for record in records:
                if (record.attempt, record.seq) <= progress.position:
                    continue
                after, step = progress.after(record)
                if isinstance(record, Row):
                    batch.add_row(record, after.time, step, progress)
                elif isinstance(record, Media):
                    self._keep(record)
                else:
                    batch.add_event(record, progress)
                progress = after
            if progress != before:
                batch.flush(progress)
            self.progress = progress

    def _keep(self, media: Media) -> None:
        """Upload one as an artifact; a table is named where MLflow's page looks for it."""
        from mlflow.entities import RunTag

        path = keep_artifact(self.info.artifact_uri, self.tracking_uri, media)
        if path is None:
            self.media_left_out += 1
        elif media.kind == "table":
            before = self.store.get_run(self.run_id).data.tags.get(TABLES_TAG)
            self.store.log_batch(
                self.run_id, [], [], [RunTag(TABLES_TAG, tables_tag(before, path))]
            )

    def position(self) -> Position:
        """Return the position of the last record that MLflow has: what `keisei.position` says."""
        with errors(self.known), self.turn:
            self.progress = self._known_progress()
            return self.progress.position

    def rewind(self, after: Position) -> bool:
        """Go on in a new run, which gets what still holds; one that a launcher has made stays.

        Raises:
            RuntimeError: MLflow has not done it; it may be tried again.
        """
        with errors(self.known), self.turn:
            if self._known_progress().position <= after:
                return True
            if LAUNCHED_TAG in self.store.get_run(self.run_id).data.tags:
                return False
            old_id = self.run_id
            self.info = replace(self.store, old_id).info
            self.run_id = str(self.info.run_id)
            self.progress, self.replaced = None, True
            self.url = self.url and self.url.replace(old_id, self.run_id)
            return True

    def finish(self, status: FinalStatus) -> None:
        """End the run: as finished, failed or killed, with the very status as a tag."""
        from mlflow.entities import RunStatus, RunTag

        with errors(self.known), self.turn:
            self.store.log_batch(self.run_id, [], [], [RunTag("keisei.status", status)])
            ended = RunStatus.from_string(_STATUSES[status])
            self.store.update_run_info(self.run_id, ended, int(time.time() * 1000), None)
            if self.replaced:
                delete_replaced(self.store, self.info.experiment_id, self.session_id)

    def _known_progress(self) -> Progress:
        if self.progress is not None:
            return self.progress
        return Progress.parsed(self.store.get_run(self.run_id).data.tags.get(POSITION_TAG))


class _Batch:
    """Metrics and tags on their way to a run, in requests that MLflow takes.

    Args:
        store: MLflow's store.
        run_id: the run.
    """

    def __init__(self, store: Any, run_id: str) -> None:
        self._store, self._run_id = store, run_id
        self._metrics: list[Any] = []
        self._tags: dict[str, str] = {}
        self._bytes = 0

    def add_row(self, row: Row, moment: int, step: int, progress: Progress) -> None:
        """Add a row's metrics; where they do not fit, what is there goes first."""
        from mlflow.entities import Metric

        for key, value in row.values.items():
            name = mlflow_name(key)
            size = 120 + (len(name) if name.isascii() else 12 * len(name))
            if len(self._metrics) >= _MOST_METRICS or self._bytes + size > _MOST_BYTES:
                self.flush(progress)
            self._metrics.append(Metric(name, as_float(value), moment, step))
            self._bytes += size

    def add_event(self, event: Event, progress: Progress) -> None:
        """Add an event, in place of an earlier one of its name."""
        if len(self._tags) >= _MOST_TAGS:
            self.flush(progress)
        said = {"time": event.time, "attempt": event.attempt, "data": clean(event.data)}
        text = json.dumps(said, ensure_ascii=False, default=repr)
        self._tags[mlflow_name(f"keisei.event.{clean(event.name)}")] = text[:LONGEST_VALUE]

    def flush(self, progress: Progress) -> None:
        """Write what is there, and how far the run is with it.

        MLflow's database store writes the tags after the metrics: a tag never says too much.
        """
        from mlflow.entities import RunTag

        tags = [RunTag(key, value) for key, value in self._tags.items()]
        tags.append(RunTag(POSITION_TAG, progress.text))
        self._store.log_batch(self._run_id, self._metrics, [], tags)
        self._metrics, self._tags, self._bytes = [], {}, 0


class MlflowTracker(Tracker):
    """Tracks runs with MLflow: one run per session, the same one for all its attempts.

    Args:
        tracking_uri: a server (``https://...``) or a database (``sqlite:///mlflow.db``); by
            default the one that MLflow itself would use, which ``MLFLOW_TRACKING_URI`` sets.
        experiment: the experiment's name; by default the one that ``MLFLOW_EXPERIMENT_NAME`` or
            ``MLFLOW_EXPERIMENT_ID`` names, else ``keisei``.
        tags: tags for the run.

    A run that a launcher has made (``MLFLOW_RUN_ID``) is taken by the first session that comes.
    A request takes ``MLFLOW_HTTP_REQUEST_TIMEOUT`` seconds at most (15 where it is not set), and
    is not tried again by MLflow's own client. A server has to keep its runs in a database, too.
    """

    name = "mlflow"

    def __init__(
        self,
        tracking_uri: str | None = None,
        experiment: str | None = None,
        tags: Mapping[str, str] | None = None,
    ) -> None:
        self._tracking_uri, self.experiment, self.tags = tracking_uri, experiment, dict(tags or {})

    def start(self, run: RunInfo) -> MlflowRun:
        """Start a run, or resume the one that an earlier attempt has started; blocks.

        Raises:
            MissingExtraError: MLflow is not installed.
            TrackerError: it cannot be done in a way that keeps each row once.
            RuntimeError: MLflow has not done it; it may be tried again.
        """
        known = secret_values({"": self._tracking_uri or ""})
        with errors(known):
            directory = run.working_directory or working_directory()
            uri = absolute_uri(self._tracking_uri or default_uri(), directory)
            known, turn = secret_values({"": uri}), turn_at(uri)
        with errors(known), turn:
            store = open_store(uri)
            launched = find_launched(store)
            experiment = self._find_experiment(store, launched)
            experiment_id = str(experiment.experiment_id)
            found = _find(store, experiment_id, run)
            if launched is not None:
                found = _take(store, launched, found, run)
            found = found or _create(store, experiment_id, run)
            _describe(store, found, run, self.tags)
            run_id = str(found.info.run_id)
            progress = Progress.parsed(found.data.tags.get(POSITION_TAG))
            url = _url(uri, experiment_id, run_id)
            started = MlflowRun(
                run_id, store, turn, known, progress, found.info, run.session_id, url
            )
            started.replaced = REPLACES_TAG in found.data.tags
            started.directory, started.tracking_uri = database_of(uri), uri
            started.options = {"experiment": experiment.name}
            if clean(uri) == uri:  # what a shell of another day has to be told by its environment
                started.options["tracking_uri"] = uri
            return started

    def _find_experiment(self, store: Any, launched: Any) -> Any:
        """Return the experiment: the launched run's, the one that is named, or the default."""
        wanted = os.environ.get("MLFLOW_EXPERIMENT_ID")
        if launched is not None:
            return experiment_of(store, launched.info.experiment_id)
        name = self.experiment or os.environ.get("MLFLOW_EXPERIMENT_NAME")
        if wanted and not name:
            return experiment_of(store, wanted)
        return find_experiment(store, clean(name or DEFAULT_EXPERIMENT))


def _find(store: Any, experiment_id: str, run: RunInfo) -> Any:
    """Return the session's run, if any; of several, which a lost answer leaves, the one in use."""
    from mlflow.entities import RunStatus, ViewType

    wanted = f"tags.`{SESSION_TAG}` = '{run.session_id}'"
    found = store.search_runs([experiment_id], wanted, ViewType.ACTIVE_ONLY)
    if not found:
        return None
    by_id = {it.info.run_id: it for it in found}
    for it in found:  # where a kill came between
        old = by_id.pop(it.data.tags.get(REPLACES_TAG), None)
        if old is not None:
            retire(store, old, it.info.run_id)
    found = list(by_id.values())
    taken = min(found, key=lambda it: (POSITION_TAG not in it.data.tags, it.info.start_time))
    store.update_run_info(taken.info.run_id, RunStatus.RUNNING, None, None)
    return taken


def _take(store: Any, launched: Any, found: Any, run: RunInfo) -> Any:
    """Return the run that a launcher has made for this program, unless it is taken."""
    from mlflow.entities import RunStatus, RunTag

    run_id = launched.info.run_id
    if found is not None and found.info.run_id == run_id:
        return found
    with _taking:
        taken_by = store.get_run(run_id).data.tags.get(SESSION_TAG)
        if found is None and taken_by is None:
            tags = [RunTag(SESSION_TAG, run.session_id), RunTag(LAUNCHED_TAG, "true")]
            store.log_batch(run_id, [], [], tags)
            store.update_run_info(run_id, RunStatus.RUNNING, None, None)
            return store.get_run(run_id)
    logger.warning(
        "MLFLOW_RUN_ID names a run that is %s: run %s is tracked as %s.",
        "another session's" if found is None else "not the one of its earlier attempts",
        run.run_name,
        "one of its own" if found is None else "that one",
    )
    return found


def _create(store: Any, experiment_id: str, run: RunInfo) -> Any:
    from mlflow.entities import RunTag

    user = "unknown"
    with suppress(Exception):  # no user by this number
        user = getpass.getuser()
    tags = [RunTag(SESSION_TAG, run.session_id), RunTag("mlflow.user", user)]
    return store.create_run(experiment_id, user, int(time.time() * 1000), tags, run.run_name)


def _describe(store: Any, found: Any, run: RunInfo, tags: Mapping[str, str]) -> None:
    """Log the config as params, and tags. A param stays; what an attempt changes is a tag."""
    from mlflow.entities import Param, RunTag

    wanted, there = params(run.config_text), found.data.params
    new = [Param(key, value) for key, value in wanted.items() if key not in there]
    for start in range(0, len(new), _MOST_TAGS):
        store.log_batch(found.info.run_id, [], new[start : start + _MOST_TAGS], [])
    said = {
        **{mlflow_name(key): str(value) for key, value in clean(dict(tags)).items()},
        "keisei.attempt": str(run.attempt),
        "keisei.directory": clean(run.directory),
        "keisei.status": "running",
    }
    changed = {key: value for key, value in wanted.items() if there.get(key, value) != value}
    if changed:
        said[f"keisei.changed_config.{run.attempt}"] = json.dumps(changed, ensure_ascii=False)
    all_tags = [RunTag(key, value[:LONGEST_VALUE]) for key, value in said.items()]
    for start in range(0, len(all_tags), _MOST_TAGS):
        store.log_batch(found.info.run_id, [], [], all_tags[start : start + _MOST_TAGS])


def _url(uri: str, experiment_id: str, run_id: str) -> str | None:
    """Return where people look at a server's run."""
    parts = urlsplit(uri)
    if parts.scheme not in ("http", "https"):
        return None
    host, path = parts.netloc.rpartition("@")[2], parts.path.rstrip("/")
    url = f"{parts.scheme}://{host}{path}/#/experiments/{experiment_id}/runs/{run_id}"
    return clean(url)
