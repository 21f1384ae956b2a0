"""Weights & Biases. The only home of its SDK; how that behaves was measured with wandb 0.31."""

from __future__ import annotations

import json
import os
from collections.abc import Mapping, Sequence
from contextlib import suppress
from dataclasses import dataclass, field, replace
from functools import partial
from typing import TYPE_CHECKING, Any, Literal

from keisei._io import files
from keisei.config.schema import AppConfig, WandbConfig, WandbMode, wants_wandb
from keisei.errors import TrackerError, quoted
from keisei._log import logger
from keisei.redaction import clean
from keisei.run.status import FinalStatus
from keisei.trackers.wandb import local_runs, sdk, upload
from keisei.trackers.base import Position, Record, RunInfo, Tracker, TrackerRun
from keisei.trackers.loading import describe
from keisei.trackers.starting import start_within
from keisei.trackers.wandb.exit_guard import exit_guard
from keisei.trackers.wandb.rows import FLUSH_INTERVAL, Rows
from keisei.trackers.wandb.upload import OnServer

if TYPE_CHECKING:
    import wandb

DEFAULT_PROJECT = "keisei"

# W&B shows 255 as `killed`, any other non-zero code as `failed`.
_EXIT_CODES: dict[FinalStatus, int] = {
    "completed": 0,
    "failed": 1,
    "cancelled": 255,
    "preempted": 255,
}
_MODES: dict[str, WandbMode] = {
    "online": "online",
    "run": "online",
    "offline": "offline",
    "dryrun": "offline",
    "disabled": "disabled",
}


@dataclass
class WandbRun(TrackerRun):
    """A run of the SDK's."""

    run_id: str
    native: wandb.Run
    rows: Rows = field(repr=False, kw_only=True)
    url: str | None = None
    mode: Literal["online", "offline"] = "online"
    directory: str | None = None
    upload_as: str | None = None
    fallback_reason: str | None = None

    def send(self, records: Sequence[Record]) -> None:
        """Log the rows, and events as lines of the run's log; blocks until the file has them."""
        self.rows.send(records)

    def position(self) -> Position | None:
        """Tell the last record that the files of the run's attempts have, or the server."""
        return self.rows.position()

    def finish(self, status: FinalStatus) -> None:
        """End the run; blocks until the SDK has sent what it holds, or gives up.

        Raises:
            TimeoutError: it gave up; what it has not sent is in the run's directory.
        """
        with exit_guard.call():
            exit_guard.let_go(self.native)
            if status == "preempted":
                self.native.mark_preempting()
            self.native.finish(exit_code=_EXIT_CODES[status])
            if self.mode == "online" and self.directory is not None:
                # The SDK's own mark for a run file that W&B has got in full.
                with suppress(OSError), files.OpenDirectory(self.directory) as directory:
                    files.append(directory, f"run-{self.run_id}.wandb.synced", b"")


class WandbTracker(Tracker):
    """Starts runs with the W&B SDK.

    Args:
        config: how W&B tracks the run; ``None`` takes the defaults.
        options: the fields of `WandbConfig`, in place of a config.
    """

    name = "wandb"

    def __init__(self, config: WandbConfig | None = None, **options: object) -> None:
        self.config = config if config is not None else WandbConfig.model_validate(options)
        self.start_timeout = self.config.init_timeout

    def start(self, run: RunInfo) -> WandbRun:
        """Start a run in the mode that config, environment and login ask for; blocks."""
        with exit_guard.call():
            return self._start(sdk.load_sdk(), run)

    def start_substitute(self, run: RunInfo) -> WandbRun:
        """Start an offline run under another id, while the SDK holds the run's own; blocks."""
        with exit_guard.call():
            substitute = f"{run.session_id}-{run.attempt}"
            offline = _init(sdk.load_sdk(), self.config, run, "offline", substitute)
            return replace(offline, fallback_reason="it did not answer in time")

    def _start(self, sdk: Any, run: RunInfo) -> WandbRun:
        config = self.config
        mode = requested_mode(config, os.environ)
        if mode == "disabled":
            raise TrackerError("W&B is disabled by WANDB_MODE")
        if mode != "offline" and not sdk.logged_in(sdk):
            logger.warning(
                "W&B has no key and no login: run %s is tracked offline. Log in with `wandb login` "
                "or set WANDB_API_KEY; set wandb.mode to offline to say that this is meant.",
                run.run_name,
            )
            mode = "offline"
        if mode == "offline":
            return _init(sdk, config, run, "offline", run.session_id)
        return self._start_online(sdk, run)

    def _start_online(self, sdk: Any, run: RunInfo) -> WandbRun:
        config = self.config
        try:
            sdk.ask_server(sdk.base_url(), timeout=min(5.0, config.init_timeout / 4))
            return _init(sdk, config, run, "online", run.session_id)
        except Exception as exc:
            if not config.offline_fallback:
                raise
            sdk.free_id(run.session_id)
            offline = _init(sdk, config, run, "offline", run.session_id)
            return replace(offline, fallback_reason=describe(exc))


async def setup_wandb(config: AppConfig, run: RunInfo) -> WandbRun | None:
    """Start tracking a run with W&B, within ``wandb.init_timeout`` seconds.

    A start that is still pending near the deadline holds the run's id. Then an offline run under
    a substitute id takes its place; the pending one, should it come alive, is closed.

    Args:
        config: the run's config.
        run: what W&B is told of the run.

    Returns:
        The run, or ``None`` where W&B is disabled; then its SDK is not even imported.

    Raises:
        TimeoutError: W&B did not start in time. What its SDK raises is raised as it is.
    """
    if not wants_wandb(config):
        return None
    mode = requested_mode(config.wandb, os.environ)
    if mode == "disabled":
        return None
    tracker = WandbTracker(config.wandb)
    timeout = config.wandb.init_timeout
    fall_back = config.wandb.offline_fallback and mode != "offline"
    reserve = min(2.0, timeout / 4) if fall_back else 0.0
    start, substitute = partial(tracker.start, run), partial(tracker.start_substitute, run)
    try:
        started = await start_within(timeout - reserve, start, tracker.name)
    except TimeoutError:
        if not fall_back:
            raise
        started = await start_within(reserve, substitute, tracker.name)
    if started.fallback_reason is not None:
        logger.warning(
            "W&B cannot be reached (%s): run %s is tracked offline, in %s. Upload it with "
            "`keisei sync` once W&B is back.",
            started.fallback_reason,
            run.run_name,
            quoted(started.directory, 300),
        )
    return started


def requested_mode(config: WandbConfig, environ: Mapping[str, str]) -> WandbMode | None:
    """Tell the mode that the config or ``WANDB_MODE`` asks for; ``None`` leaves it to the login."""
    if config.mode is not None:
        return config.mode
    return _MODES.get(environ.get("WANDB_MODE", "").lower())


def _init(
    sdk: Any, config: WandbConfig, run: RunInfo, mode: Literal["online", "offline"], run_id: str
) -> WandbRun:
    with files.OpenDirectory(run.directory) as place:
        place.make("wandb")
    with files.OpenDirectory(os.path.join(run.directory, "wandb")):  # no link out of the run
        pass
    native = sdk.init(
        id=run_id,
        name=run.run_name,
        project=clean(config.project or os.environ.get("WANDB_PROJECT") or DEFAULT_PROJECT),
        entity=clean(config.entity),
        group=clean(config.group),
        job_type=clean(config.job_type),
        tags=clean(config.tags) or None,
        notes=clean(config.notes),
        dir=run.directory,
        config=json.loads(run.config_text),
        mode=mode,
        resume="allow" if mode == "online" else None,
        reinit="create_new",
        settings=_settings(sdk, config),
    )
    url = getattr(native, "url", None) if mode == "online" else None
    directory = getattr(getattr(native, "settings", None), "sync_dir", None)
    directory = directory if isinstance(directory, str) else None
    exit_guard.hold(native, config.finish_timeout)
    return WandbRun(
        run_id=run_id,
        url=url if isinstance(url, str) else None,
        mode=mode,
        directory=directory,
        native=native,
        rows=_rows(native, run, run_id, mode, directory),
        upload_as=None if run_id == run.session_id else run.session_id,
    )


def _rows(native: Any, run: RunInfo, run_id: str, mode: str, directory: str | None) -> Rows:
    file = os.path.join(directory, f"run-{run_id}.wandb") if directory is not None else None
    earlier = any(attempt.path != file for attempt in local_runs.attempts_in(run.directory))
    has = OnServer()
    if mode == "online" and earlier:
        # It may have a row that an earlier attempt's file has lost, by a fraction of a second, with
        # the service. Asked now, while it answers: later a dark server would hold up the end.
        with suppress(Exception):
            has = upload.on_server(native.entity, native.project, run_id, 2.0)
    return Rows(native, run.directory, file, has.tail)


def _settings(sdk: Any, config: WandbConfig) -> Any:
    wanted: dict[str, object] = {
        "silent": True,  # or a start that fails goes on for 10 s
        "console": "off",  # or stdout stays patched after the end
        # Above our own deadline, so that a run that comes alive late is given to us to be closed;
        # below it the SDK would give up, and what the server made would stay open there.
        "init_timeout": config.init_timeout + 60.0,
        "finish_timeout": max(0.05, config.finish_timeout - 0.3),
        "finish_timeout_raises": True,
        "x_transaction_log_flush_interval": FLUSH_INTERVAL,  # the default loses 15 s to a kill
        "x_disable_meta": True,  # it holds sys.argv, and with it secrets
        "x_save_requirements": False,  # 70 ms of every start
        "save_code": False,
    }
    known = getattr(sdk.Settings, "model_fields", wanted)
    return sdk.Settings(**{name: value for name, value in wanted.items() if name in known})
