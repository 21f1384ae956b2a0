"""What `keisei sync` asks of W&B's SDK: a login, what the server has of a run, an upload.

By private names of the SDK: its command `wandb sync` knows no deadline, and ends with status
0 also where nothing was uploaded.
"""

from __future__ import annotations

import inspect
import json
import os
import time
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from keisei._io import process
from keisei.errors import TrackerError
from keisei.redaction import clean
from keisei.trackers.wandb import private, sdk

# What the SDK itself asks before it resumes a run.
_QUERY = """
query RunResumeStatus($project: String, $entity: String, $name: String!) {
  model(name: $project, entityName: $entity) {
    bucket(name: $name, missingOk: true) { id historyLineCount historyTail }
  }
}
"""
# What the SDK itself asks for where it is to resume a run from before its end.
_REWIND = """
mutation RewindRun($runName: String!, $entity: String, $project: String, $metricName: String!,
                   $metricValue: Float!) {
  rewindRun(input: {runName: $runName, entityName: $entity, projectName: $project,
                    metricName: $metricName, metricValue: $metricValue}) {
    rewoundRun { id historyLineCount }
  }
}
"""


@dataclass(frozen=True)
class OnServer:
    """What the server has of a run.

    Attributes:
        lines: how many history rows.
        last_step: the last one's step; -1 where there is none.
        tail: the last rows that it tells of: one, or a few.
    """

    lines: int = 0
    last_step: int = -1
    tail: tuple[Mapping[str, object], ...] = ()


def log_in() -> None:
    """Take the key or the login that there is; never prompts.

    Raises:
        TrackerError: there is none, or it is none of W&B's.
    """
    os.environ.pop("WANDB_SERVICE", None)  # of a program that has started this one
    module = sdk.load_sdk()
    try:
        settings = sdk.settings()
        settings.silent = True
        authenticate = private.get("authenticate_session")
    except private.MissingName as exc:
        raise TrackerError(f"{exc}: `wandb sync` can upload what `keisei sync` cannot") from None
    asked = {"host": settings.base_url, "source": "keisei sync", "no_offline": True}
    try:
        if "prompt" in inspect.signature(authenticate).parameters:
            found = authenticate(**asked, prompt=False)
        else:  # before 0.30 it prompts where there is neither a key nor a login
            found = authenticate(**asked) if sdk.logged_in(module) else None
    except module.errors.Error as exc:
        raise TrackerError(f"W&B does not take the key: {_clean(exc)}") from None
    if found is None:
        raise TrackerError(
            "W&B has no key and no login: log in with `wandb login`, or set WANDB_API_KEY"
        )


def ask(timeout: float) -> None:
    """Check whether the server answers at all.

    Args:
        timeout: how long to wait, in seconds.

    Raises:
        OSError: it does not.
    """
    sdk.ask_server(sdk.base_url(), timeout)


def service() -> tuple[int, str]:
    """Return the id of the SDK's service process, which sends, and when that started."""
    connection = sdk.service()
    pid: int = private.get("process", private.get("service", connection)).pid
    return pid, process.process_start(pid) or ""


def on_server(entity: str, project: str, run_id: str, timeout: float) -> OnServer:
    """Return what the server has of a run.

    Args:
        entity: whose run it is; empty for the login's own.
        project: its project; empty for W&B's default.
        run_id: its id.
        timeout: how long to wait, in seconds.

    Raises:
        OSError: the server does not say.
    """
    settings = sdk.settings()
    variables = {
        "entity": entity or settings.entity or None,
        "project": project or settings.project or "uncategorized",
        "name": run_id,
    }
    try:
        answer = _execute(settings, _QUERY, variables, timeout)
    except BaseException as exc:
        if not isinstance(exc, Exception):
            raise
        if "not found" in str(exc).lower():
            return OnServer()
        raise OSError(f"W&B does not tell what it has of the run: {_clean(exc)}") from None
    run = ((answer or {}).get("model") or {}).get("bucket")
    if run is None:
        return OnServer()
    tail = tuple(json.loads(row) for row in json.loads(run.get("historyTail") or "[]"))
    last = tail[-1].get("_step", -1) if tail else -1
    return OnServer(int(run.get("historyLineCount") or 0), int(last), tail)


def rewind(entity: str, project: str, run_id: str, step: int, timeout: float) -> bool:
    """Ask the server to cut a run's history behind a step; return whether it has.

    Args:
        entity: whose run it is; empty for the login's own.
        project: its project; empty for W&B's default.
        run_id: its id.
        step: the last row's step that it keeps; -1 to keep none.
        timeout: how long to wait, in seconds.
    """
    settings = sdk.settings()
    variables = {
        "runName": run_id,
        "entity": entity or settings.entity or None,
        "project": project or settings.project or "uncategorized",
        "metricName": "_step",
        "metricValue": step,
    }
    try:
        _execute(settings, _REWIND, variables, timeout)
    except Exception:  # noqa: BLE001 - the SDK's own; not every server can
        return False
    return True


def upload(path: str, run_id: str, timeout: float, *, renumber: bool) -> None:
    """Upload a run file with all its rows; the SDK marks it as uploaded (`.synced`).

    Args:
        path: the file.
        run_id: the run's true id.
        timeout: how long it may take, in seconds.
        renumber: whether its steps are counted from the server's last one on; a later try keeps
            to what the first one did (the SDK notes it, in `.syncstate`).

    Raises:
        OSError: it was not uploaded, or not in full.
    """
    end = time.monotonic() + timeout
    asyncer, connection = private.get("asyncer", private.get("singleton")()), sdk.service()
    init_sync, sync = private.get("init_sync", connection), private.get("sync", connection)
    settings = sdk.settings().model_copy(update={"resume": "allow"} if renumber else {})
    try:
        begun = asyncer.run(
            lambda: init_sync(
                {Path(path)},
                settings,
                cwd=None,
                live=False,
                entity="",
                project="",
                run_id=run_id,
                job_type="",
                tag_replacements={},
            )
        ).wait_or(timeout=timeout)
        # A wait that is given up, or interrupted, takes the upload back.
        handle = asyncer.run(lambda: sync(begun.id, parallelism=1))
        answer = handle.wait_or(timeout=max(0.0, end - time.monotonic()))
    except BaseException as exc:
        if isinstance(exc, TimeoutError):
            raise TimeoutError(f"W&B did not take it within {timeout:.0f} s") from None
        if isinstance(exc, Exception):
            raise OSError(f"the upload failed: {_clean(exc)}") from None
        raise
    if not os.path.exists(f"{path}.synced"):
        said = "; ".join(message.content for message in answer.messages)
        raise OSError(f"W&B did not take it: {_clean(said)}")


def _execute(settings: Any, query: str, variables: object, timeout: float) -> Any:
    api = private.get("ServiceApi")(settings)
    return private.get("execute_graphql", api)(query, variables, timeout)


def _clean(error: object) -> str:
    """Return what an error says, in one line and without secrets."""
    text = " ".join(str(error).split()) or type(error).__name__
    return clean(text)[:300]
