"""Weights & Biases through its own SDK; how that behaves was measured with wandb 0.31."""

from __future__ import annotations

import json
import os
import time
from collections.abc import Callable, Mapping, Sequence
from contextlib import suppress
from dataclasses import dataclass, field
from functools import partial
from typing import TYPE_CHECKING, Any, Literal

from keisei._io import files
from keisei._log import logger
from keisei.config.schema import WandbConfig
from keisei.errors import TrackerError, describe, quoted
from keisei.journal.reader import RunJournal
from keisei.redaction import clean
from keisei.run.status import FinalStatus
from keisei.trackers.base import Position, Record, RunInfo, Tracker, TrackerRun
from keisei.trackers.wandb import local_runs, private, sdk, shared, upload
from keisei.trackers.wandb.late import PendingStart
from keisei.trackers.wandb.link import is_finished
from keisei.trackers.wandb.media import KINDS
from keisei.trackers.wandb.mode import NAME, requested_mode
from keisei.trackers.wandb.rewinding import step_at
from keisei.trackers.wandb.rows import FLUSH_INTERVAL, Rows
from keisei.trackers.wandb.settings_files import mode_in_files
from keisei.trackers.wandb.upload import OnServer

if TYPE_CHECKING:
    import wandb

DEFAULT_PROJECT = "keisei"
_live = set[str]()  # ids of runs that this process tracks

# W&B shows 255 as `killed`, any other non-zero code as `failed`.
_EXIT_CODES: dict[FinalStatus, int] = {
    "completed": 0,
    "failed": 1,
    "cancelled": 255,
    "preempted": 255,
}


@dataclass
class WandbRun(TrackerRun):
    """A run of the SDK's.

    Attributes:
        native: the SDK's own object for the run.
    """

    run_id: str
    native: wandb.Run
    rows: Rows = field(repr=False, kw_only=True)
    url: str | None = None
    mode: Literal["online", "offline"] = "online"
    directory: str | None = None
    upload_as: str | None = None
    media = KINDS
    ended = False
    again: Callable[[str | None], WandbRun] | None = field(default=None, repr=False)
    before_end: Callable[[], object] = field(default=lambda: None, repr=False)

    def send(self, records: Sequence[Record]) -> None:
        """Log the rows, and events as lines of the run's log; blocks until the file has them."""
        self.rows.send(records)

    def position(self) -> Position | None:
        """Return the last record that the files of the run's attempts have, or the server."""
        return self.rows.position()

    def kept(self) -> Position | None:
        """Return the last record that the run's file has, where that lags behind the service."""
        return None if self.ended else self.rows.kept()

    def rewind(self, after: Position) -> bool:
        """Go back to a position on W&B, where it can: by its rewind of a run.

        What an offline run has kept is not sent before `keisei sync`, which leaves these rows out.

        Raises:
            OSError: the server does not answer, or a file cannot be read; it may be tried again.
        """
        if self.mode == "offline":
            self.rows.rewound = after
            return True
        if self.again is None or sdk.launched_id() is not None:
            return False
        sdk.ask_server(sdk.base_url(), timeout=5.0)
        self.rows.position()  # all that was sent is in the files
        if self.rows.lags and not is_finished(self.native):
            self._end(_EXIT_CODES["preempted"])  # now it is
        try:
            step = step_at(self.rows.directory, after, RunJournal(self.rows.directory).cuts())
        except private.MissingName:
            step = None
        if step is None and not self.rows.lags:
            return False
        if not is_finished(self.native):
            self._end(_EXIT_CODES["preempted"])
        try:
            if step is None:
                raise LookupError("what W&B would have to go back to is not known")
            fresh, done = self.again(f"{self.run_id}?_step={step}"), True
        except Exception:  # noqa: BLE001 - foreign code; not every server can
            sdk.free_id(self.run_id)
            fresh, done = self.again(None), False
        self.native, self.rows = fresh.native, fresh.rows
        self.url, self.directory = fresh.url, fresh.directory
        self.rows.rewound = after if done else None
        return done

    def finish(self, status: FinalStatus) -> None:
        """End the run; blocks until the server has everything, or until the SDK gives up.

        Raises:
            TimeoutError: it gave up; what it has not sent is in the run's local file.
        """
        self.before_end()
        if status == "preempted":
            self.native.mark_preempting()
        _live.discard(self.run_id)
        self._end(_EXIT_CODES[status])
        self.ended = True

    def _end(self, exit_code: int) -> None:
        self.native.finish(exit_code=exit_code)
        self.rows.wait_closed()
        if self.mode == "online" and self.directory is not None:
            # The SDK's own mark for a run file that W&B has got in full.
            with suppress(OSError), files.OpenDirectory(self.directory) as directory:
                files.append(directory, f"run-{self.run_id}.wandb.synced", b"")

    def discard(self) -> None:
        """End a run that has tracked nothing, on the server at once; blocks.

        The SDK has files to upload before it tells of the end: five requests, one after another.
        """
        with suppress(Exception):  # the SDK will tell it, too
            sdk.close_on_server(self.native.entity, self.native.project, self.run_id)
        self.finish("failed")


class WandbTracker(Tracker):
    """Starts runs with the W&B SDK, in a process that ends when its host says so.

    Args:
        config: how W&B tracks the run; ``None`` takes the defaults.
        options: the fields of `WandbConfig`, in place of a config.
    """

    name = NAME
    quiet = False

    def __init__(self, config: WandbConfig | None = None, **options: object) -> None:
        self.config = config if config is not None else WandbConfig.model_validate(options)
        self.start_timeout = self.config.init_timeout
        self._pending: PendingStart[WandbRun] | None = None

    def load(self) -> Any:
        """Import the SDK, for a service process of its own."""
        os.environ.pop("WANDB_SERVICE", None)  # the program's, which would end with the program
        return sdk.load_sdk()

    def start(self, run: RunInfo) -> WandbRun:
        """Start a run in the mode that config, environment and login ask for; blocks.

        A start that is still pending near the deadline holds the run's id. Then an offline run
        under a substitute id takes its place; the pending one, should it come alive, is closed.

        Raises:
            TrackerError: W&B is disabled, or it cannot be reached and may not fall back.
        """
        with sdk.telling_version():
            started = self._start(run)
        if run.shared and (started.mode == "offline" or started.rows.lags):
            text = (
                "run %s is tracked offline, or by wandb<0.31, and W&B shares no such run "
                "(distributed.track: shared): the rows of its other ranks wait in their journals "
                "for `keisei sync`."
            )
            logger.warning(text, run.run_name)
        return started

    def _start(self, run: RunInfo) -> WandbRun:
        deadline = time.monotonic() + self.start_timeout
        module = self.load()
        sdk.check_release(module)
        run = shared.alone(run) if sdk.lags(module) and shared.is_shared(run) else run
        mode = requested_mode(self.config, os.environ) or mode_in_files(os.environ)
        mode = mode or sdk.default_mode()
        if mode == "disabled":
            raise TrackerError("W&B is disabled, by the environment or the SDK's settings")
        if mode != "offline" and not sdk.logged_in(module):
            logger.warning(
                "W&B has no key and no login: run %s is tracked offline. Log in with `wandb login` "
                "or set WANDB_API_KEY; set wandb.mode to offline to say that this is meant.",
                run.run_name,
            )
            mode = "offline"
        if run.part is not None:
            return self._start_part(module, run, mode, deadline)
        run_id = _id_for(run)
        if mode == "offline":
            return self.init(module, run, "offline", run_id)
        return self._start_online(module, run, run_id, deadline)

    def _start_part(self, module: Any, run: RunInfo, mode: str | None, deadline: float) -> WandbRun:
        """Start to send a part of a run that rank 0 has started."""
        self.quiet = True  # it is rank 0 that says what is wrong with W&B
        if mode == "offline":
            raise shared.offline()
        if run.shared:
            patience = min(shared.PATIENCE, self.start_timeout)
            run_id = shared.owners_id(run.directory, patience)
        else:  # all has ended, and what a part has left is sent
            run_id = local_runs.id_of(run.directory, run.session_id)
        start = partial(self.init, module, run, "online", run_id)
        self._pending = PendingStart(start, lambda late: late.finish("failed"), "keisei-wandb-part")
        try:
            return self._pending.result(deadline - time.monotonic())
        except TimeoutError:
            raise
        except Exception:
            sdk.free_id(run_id)
            raise

    def _start_online(self, module: Any, run: RunInfo, wanted: str, deadline: float) -> WandbRun:
        falls_back = self.config.offline_fallback
        # For the offline start, or for the news of the failure to arrive.
        reserve = min(2.0 if falls_back else 0.2, self.start_timeout / 4)
        run_id = wanted
        online = partial(self.init, module, run, "online", run_id)
        try:
            sdk.ask_server(sdk.base_url(), timeout=min(5.0, self.start_timeout / 4))
            self._pending = PendingStart(online, lambda late: late.discard(), "keisei-wandb-start")
            return self._pending.result(deadline - reserve - time.monotonic())
        except TimeoutError:
            reason = "it did not answer in time"
            if self._pending is not None:
                run_id = f"{wanted}-{run.attempt}"  # the SDK holds the run's own
        except Exception as exc:  # noqa: BLE001 - foreign code
            reason = describe(exc)
            sdk.free_id(run_id)
        if not falls_back:
            raise TrackerError(f"W&B cannot be reached ({reason})")
        offline = self.init(module, run, "offline", run_id)
        logger.warning(
            "W&B cannot be reached (%s): run %s is tracked offline, in %s. Upload it with "
            "`keisei sync` once W&B is back.",
            reason,
            run.run_name,
            quoted(offline.directory, 300),
        )
        return offline

    def close(self) -> None:
        """Wait until a run that came alive too late is closed."""
        if self._pending is not None:
            self._pending.wait_closed()

    def init(
        self, module: Any, run: RunInfo, mode: Literal["online", "offline"], run_id: str
    ) -> WandbRun:
        """Start a run of the SDK's, as `start_run` does, and the service that belongs to it."""
        sdk.start_service()
        started = start_run(module, self.config, run, mode, run_id)
        if mode == "online" and not shared.is_shared(run):
            again = partial(start_run, module, self.config, run, mode, started.run_id, 0.0)
            started.again = lambda moment: again(moment)
        return started


def _id_for(run: RunInfo) -> str:
    """Return the id of a run on W&B: the sweep's, that of its earlier attempts, or the session's.

    Raises:
        TrackerError: another session of this process tracks the sweep's run.
    """
    forced = sdk.launched_id()
    if forced is not None:
        if forced in _live:
            problem = "another session of this program tracks it, and a sweep has one run at a time"
            raise TrackerError(f"W&B would take the run {quoted(forced)} of the sweep: {problem}")
        return forced
    run_id = local_runs.id_of(run.directory, run.session_id)
    if os.environ.get("WANDB_RUN_ID", run_id) != run_id:
        logger.warning(
            "WANDB_RUN_ID is set, but run %s has an id of its own on W&B, the same for all its "
            "attempts: %s.",
            run.run_name,
            run_id,
        )
    return run_id


def start_run(
    module: Any,
    config: WandbConfig,
    run: RunInfo,
    mode: Literal["online", "offline"],
    run_id: str,
    finish_timeout: float = 0.0,
    rewind_to: str | None = None,
) -> WandbRun:
    """Start a run of the SDK's; blocks, as long as a server lets it wait.

    Args:
        module: the SDK.
        config: how W&B tracks the run.
        run: what W&B is told of it.
        mode: whether it is sent, or kept in a file.
        run_id: the id on W&B.
        finish_timeout: the longest that the SDK lets the run's end take, in seconds; 0 for ever.
        rewind_to: id and step of the run, as the SDK takes them, behind which W&B is to cut it.
    """
    home = shared.make_directory(run)
    native = module.init(
        id=run_id,
        name=run.run_name,
        project=clean(config.project or os.environ.get("WANDB_PROJECT") or DEFAULT_PROJECT),
        entity=clean(config.entity),
        group=clean(config.group),
        job_type=clean(config.job_type),
        tags=clean(config.tags) or None,
        notes=clean(config.notes),
        dir=home,
        config=json.loads(run.config_text),
        mode="shared" if shared.is_shared(run) and mode == "online" else mode,
        resume="allow" if mode == "online" and rewind_to is None and not run.part else None,
        resume_from=rewind_to,
        reinit="create_new",
        settings=_settings(module, config, finish_timeout, shared.settings(run)),
    )
    run_id = str(getattr(native, "id", None) or run_id)  # in a sweep it takes another one
    url = getattr(native, "url", None) if mode == "online" else None
    sync_dir = getattr(getattr(native, "settings", None), "sync_dir", None)
    kept_in = sync_dir if isinstance(sync_dir, str) else None
    _live.add(run_id)
    if mode == "online" and kept_in is not None and sdk.lags(module):
        local_runs.note_step(kept_in, run_id, getattr(native, "starting_step", None))
    own = local_runs.id_of(run.directory, run.session_id)
    patience = max(0.5, config.finish_timeout - 2.0)
    is_primary = run.shared and run.part is None
    return WandbRun(
        before_end=partial(shared.wait_for_parts, run.directory, patience)
        if is_primary
        else lambda: None,
        run_id=run_id,
        upload_as=own if run_id == f"{own}-{run.attempt}" else None,
        url=url if isinstance(url, str) else None,
        mode=mode,
        directory=kept_in,
        native=native,
        rows=_rows(native, run, run_id, mode, kept_in, lags=sdk.lags(module)),
    )


def _rows(
    native: Any, run: RunInfo, run_id: str, mode: str, directory: str | None, *, lags: bool
) -> Rows:
    file = os.path.join(directory, f"run-{run_id}.wandb") if directory is not None else None
    home = shared.directory_of(run)
    earlier = any(attempt.path != file for attempt in local_runs.attempts_in(home))
    has = OnServer()
    if mode == "online" and earlier:
        # It may have a row that an earlier attempt's file has lost, by a fraction of a second, with
        # the service. Asked now, while it answers: later a dark server would hold up the end.
        with suppress(Exception):
            has = upload.on_server(native.entity, native.project, run_id, 2.0)
    return Rows(native, home, file, has.tail, run.part, lags=lags)


def _settings(
    module: Any, config: WandbConfig, finish_timeout: float, more: Mapping[str, object]
) -> Any:
    wanted: dict[str, object] = {
        "silent": True,  # or a start that fails goes on for 10 s
        "console": "off",  # or stdout stays patched after the end
        # Above our own deadline, so that a run that comes alive late is given to us to be closed;
        # below it the SDK would give up, and what the server made would stay open there.
        "init_timeout": config.init_timeout + 60.0,
        "finish_timeout": finish_timeout,
        "finish_timeout_raises": True,
        sdk.FLUSH_SETTING: FLUSH_INTERVAL,  # the default loses 15 s to a kill
        "x_disable_meta": True,  # it holds sys.argv, and with it secrets
        "x_save_requirements": False,  # 70 ms of every start
        "save_code": False,
        **more,
    }
    known = {k: value for k, value in wanted.items() if private.has_setting(module, k)}
    return module.Settings(**known)
