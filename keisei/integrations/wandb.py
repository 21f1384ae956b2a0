"""For libraries that log to W&B's global run: the session in its place."""

from __future__ import annotations

import math
from collections.abc import Iterator, Mapping
from contextlib import contextmanager, suppress
from pathlib import Path
from typing import Any

from keisei import SessionEndedError, SessionMember
from keisei._log import logger
from keisei.errors import describe, quoted
from keisei.integrations.attached import Attached, Session
from keisei.integrations.watching import Counted, Watched
from keisei.trackers.wandb import sdk

CONFIG, SUMMARY, ALERT = "wandb.config", "wandb.summary", "wandb.alert"  # the events
# What libraries call on the module; `init` returns the run that there is, `finish` ends nothing.
# What Lightning's logger counts the steps by; it names it to no run but W&B's own.
_STEP_METRIC = "trainer/global_step"
_BY_HISTOGRAM = "log what you watch by session.log_histogram()"
_CALLS = ("log", "save", "watch", "unwatch", "define_metric", "alert", "log_artifact", "finish")


class Values(dict[str, Any]):
    """`wandb.config` or `wandb.summary`: a mapping whose items are attributes, too."""

    def __getattr__(self, name: str) -> Any:
        """Return an item."""
        try:
            return self[name]
        except KeyError:
            raise AttributeError(name) from None

    def __setattr__(self, name: str, value: Any) -> None:
        """Set an item."""
        self[name] = value

    def update(self, *values: Any, allow_val_change: bool | None = None, **more: Any) -> None:
        """Set items."""
        super().update(*values, **more)

    def setdefaults(self, values: Mapping[str, Any]) -> None:
        """Set items that are not set yet."""
        for name, value in dict(values).items():
            self.setdefault(name, value)

    def as_dict(self) -> dict[str, Any]:
        """Return the items."""
        return dict(self)


class GlobalRun:
    """What stands for `wandb.run`: what is logged to it goes into the session's journal.

    Args:
        session: the session, entered.

    Attributes:
        config: what libraries set of it; the event `wandb.config` at the end.
        summary: the same, the event `wandb.summary`.
    """

    def __init__(self, session: Session | SessionMember) -> None:
        self._run, self._session = Attached(session, "wandb"), session
        self._row: dict[str, Any] = {}
        self._media: dict[str, Any] = {}  # of the same row
        self._step_metric = _STEP_METRIC
        self._watched = Watched(self._media.__setitem__, self._fails_to_watch)
        self._warned: set[str] = set()
        self.config, self.summary = Values(), Values()
        self.id, self.name = session.session_id, session.run_name
        self.dir = session.run_artifact_dir
        self.project = self.entity = self.group = self.job_type = self.url = None
        self.disabled, self.resumed, self.step = False, self._run.attempt > 1, 0

    def log(
        self,
        data: Mapping[str, Any],
        step: int | None = None,
        commit: bool | None = None,
        sync: bool | None = None,
    ) -> None:
        """Log a row: numbers, texts, and what W&B has made an image, a histogram or a table of.

        Args:
            data: as `wandb.log` takes it.
            step: the step; a row without one has that of the metric which `define_metric` has
                named as the steps, where it has it, and else none.
            commit: `False` keeps the row for the next call.
            sync: takes no effect, as in W&B.
        """
        for name, value in data.items():
            (self._media if _is_media(value) else self._row)[name] = value
        if step is not None:
            self.step = int(step)
        if commit is not False:
            self._commit(step)

    def _commit(self, step: int | None) -> None:
        row, media = dict(self._row), dict(self._media)
        self._row.clear()
        self._media.clear()
        if step is None:
            step = _whole(row.get(self._step_metric))
        if row:
            self._run.log(row, step)
        for name, value in media.items():
            several = value if isinstance(value, (list, tuple)) else [value]
            for at, each in enumerate(several):
                self._log_medium(name if len(several) == 1 else f"{name}/{at}", each, step)

    def _log_medium(self, name: str, value: Any, step: int | None) -> None:
        target, kind = self._run.target, type(value).__name__
        if target is None or not self._run._logs(target):
            return
        with suppress(SessionEndedError):
            if isinstance(value, Counted):
                target.log_histogram(name, step=step, counts=value.counts, edges=value.edges)
            elif kind == "Histogram":
                target.log_histogram(name, step=step, counts=value.histogram, edges=value.bins)
            elif kind == "Table":
                rows = [[_cell(cell) for cell in row] for row in value.data]
                target.log_table(name, rows, step, columns=[str(each) for each in value.columns])
            elif kind == "Image" and value.image is not None:
                target.log_image(name, value.image, step, getattr(value, "_caption", None))
            else:
                self._left_out(kind, "log it by the session's own log_... methods")

    def save(
        self, glob_str: Any = None, base_path: Any = None, policy: str = "live", **kwargs: Any
    ) -> list[str]:
        """Keep files among the run's media, as they are now.

        Args:
            glob_str: the file's path, or a pattern.
            base_path: takes no effect, as `policy` does.
        """
        path = Path(str(glob_str))
        found = [path] if path.is_file() else sorted(path.parent.glob(path.name))
        for each in found:
            self._session.log_file(f"files/{each.name}", each)
        return [str(each) for each in found]

    def alert(self, title: str, text: str = "", *args: Any, **kwargs: Any) -> None:
        """Log an alert as an event, and as a warning."""
        logger.warning("%s: %s", quoted(title), quoted(text, 500))
        self._session.log_event(ALERT, {"title": title, "text": text})

    def watch(
        self,
        models: Any,
        criterion: object = None,
        log: str | None = "gradients",
        log_freq: int = 1000,
        idx: int | None = None,
        log_graph: bool = False,
    ) -> None:
        """Log histograms of gradients, parameters or both with the row that follows them.

        Args:
            models: a model of PyTorch's, or several; of anything else one warning says that it is
                not watched.
            criterion: takes no effect.
            log: `gradients`, `parameters` or `all`; ``None`` watches nothing.
            log_freq: of how many batches one is looked at.
            idx: the number of the first of several models, from 0.
            log_graph: whether to log the graph, which one warning says is not kept.
        """
        for at, model in enumerate(models if isinstance(models, (list, tuple)) else [models]):
            if hasattr(model, "named_parameters"):
                self._watched.watch(model, log, log_freq, None if idx is None else idx + at)
            else:
                self._left_out("watch() of what is no torch.nn.Module", _BY_HISTOGRAM)
        if log_graph:
            self._left_out("watch(log_graph=True)", "save the model by session.save_checkpoint()")

    def unwatch(self, models: Any = None) -> None:
        """Watch models no longer; without one, none of them."""
        for model in models if isinstance(models, (list, tuple)) else [models]:
            self._watched.unwatch(model)

    def _fails_to_watch(self, exc: Exception) -> None:
        self._left_out(f"watch() has failed ({describe(exc)}): it", _BY_HISTOGRAM)

    def define_metric(
        self, name: str, step_metric: object = None, *args: Any, **kwargs: Any
    ) -> None:
        """Take the metric that counts the steps, for rows that have no other.

        Args:
            name: the metric, or a pattern; a row of the journal has one step for all of its own.
            step_metric: the metric that counts the steps, or what `define_metric` returned for it.
            args: take no effect.
            kwargs: take no effect.
        """
        if step_metric is not None:
            self._step_metric = str(getattr(step_metric, "name", step_metric))

    def log_artifact(self, artifact: Any, *args: Any, **kwargs: Any) -> Any:
        """Send no artifact: one warning says so."""
        self._left_out("log_artifact()", "save a checkpoint by session.save_checkpoint()")
        return artifact

    def log_code(self, *args: Any, **kwargs: Any) -> None:
        """Log nothing: the session records the code that it was started from."""

    def finish(self, *args: Any, **kwargs: Any) -> None:
        """Log what was kept for the next row; the session's block ends the run."""
        self._commit(None)

    def get_url(self) -> str | None:
        """Return `None`: the summary of the session has the address."""
        return None

    def _label(self, *args: Any, **kwargs: Any) -> None:
        """Take what W&B counts of the libraries that use it."""

    def _telemetry_callback(self, *args: Any) -> None:
        """Take the same."""

    def _left_out(self, what: str, instead: str) -> None:
        if what not in self._warned:
            self._warned.add(what)
            logger.warning("W&B's %s is not kept from the global run: %s", what, instead)


@contextmanager
def as_global_run(session: Session | SessionMember) -> Iterator[GlobalRun]:
    """Put a session in the place of W&B's global run, for libraries that log to that.

    In the block `wandb.run`, `wandb.log`, `wandb.config`, `wandb.summary` and the like are the
    session's, and `wandb.init` returns its run; after it they are what they were. It is one for
    the process. What is logged goes into the journal, and from there to all trackers, W&B among
    them if the config says so: no run of W&B's is started for it.

    Args:
        session: the session, entered.

    Returns:
        What stands for `wandb.run`.
    """
    module: Any = sdk.load_sdk()
    run = GlobalRun(session)
    replaced = {name: getattr(run, name) for name in _CALLS}
    replaced |= {"run": run, "config": run.config, "summary": run.summary}
    replaced["init"] = lambda *args, **kwargs: _joined(run, kwargs.get("config"))
    before = {name: getattr(module, name) for name in replaced}
    for name, value in replaced.items():
        setattr(module, name, value)
    try:
        yield run
    finally:
        for name, value in before.items():
            setattr(module, name, value)
        _close(run)


def _joined(run: GlobalRun, config: object) -> GlobalRun:
    if isinstance(config, Mapping):
        run.config.setdefaults(config)
    return run


def _close(run: GlobalRun) -> None:
    run.unwatch()
    run.finish()
    for name, values in ((CONFIG, run.config), (SUMMARY, run.summary)):
        if values:
            run._run.event(name, values)


def _is_media(value: object) -> bool:
    """Return whether a value is a medium of W&B's, or are several, in a list."""
    if isinstance(value, (list, tuple)):
        return bool(value) and all(_is_media(each) for each in value)
    return isinstance(value, Counted) or type(value).__module__.partition(".")[0] == "wandb"


def _cell(value: object) -> Any:
    """Return what a table of the session's holds for a cell of W&B's."""
    if value is None or isinstance(value, (bool, int, float, str)):
        return value
    image = getattr(value, "image", None)
    return str(value) if image is None else image


def _whole(value: object) -> int | None:
    """Return a whole number as a step; ``None`` where it is none."""
    if isinstance(value, (int, float)) and math.isfinite(value) and value == int(value):
        return int(value)
    return None
