"""For libraries that log to W&B's global run: the session in its place."""

from __future__ import annotations

import math
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from pathlib import Path
from typing import Any

from keisei import SessionMember
from keisei._log import logger
from keisei.errors import quoted
from keisei.integrations.attached import Attached, Session
from keisei.trackers.wandb import sdk

CONFIG, SUMMARY, ALERT = "wandb.config", "wandb.summary", "wandb.alert"  # the events
# What libraries call on the module; `init` returns the run that there is, `finish` ends nothing.
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
        self._step_metric: str | None = None
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
        """Log a row: numbers, texts, and images that W&B has made of something.

        Args:
            data: as `wandb.log` takes it.
            step: the step; a row without one has that of the metric which `define_metric` has
                named as the steps, where it has it, and else none.
            commit: `False` keeps the row for the next call.
            sync: takes no effect, as in W&B.
        """
        media = {name: value for name, value in data.items() if _is_medium(value)}
        for name, value in media.items():
            self._log_medium(name, value, step)
        self._row.update({name: value for name, value in data.items() if name not in media})
        if step is not None:
            self.step = int(step)
        if commit is False:
            return
        row, self._row = self._row, {}
        if step is None and self._step_metric is not None:
            step = _whole(row.get(self._step_metric))
        if row:
            self._run.log(row, step)

    def _log_medium(self, name: str, value: Any, step: int | None) -> None:
        image = getattr(value, "image", None) if type(value).__name__ == "Image" else None
        if image is None:
            self._left_out(type(value).__name__, "log it by the session's own log_... methods")
            return
        self._session.log_image(name, image, step, getattr(value, "_caption", None))

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

    def watch(self, *args: Any, **kwargs: Any) -> None:
        """Watch nothing: one warning says so."""
        self._left_out("watch()", "log gradients by session.log_histogram()")

    def unwatch(self, *args: Any, **kwargs: Any) -> None:
        """Stop to watch, which nothing does."""

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
        self.log({})

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
    run.finish()
    for name, values in ((CONFIG, run.config), (SUMMARY, run.summary)):
        if values:
            run._run.event(name, values)


def _is_medium(value: object) -> bool:
    kind = type(value)
    return kind.__module__.partition(".")[0] == "wandb"


def _whole(value: object) -> int | None:
    """Return a whole number as a step; ``None`` where it is none."""
    if isinstance(value, (int, float)) and math.isfinite(value) and value == int(value):
        return int(value)
    return None
