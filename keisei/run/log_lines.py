"""keisei's own lines about a run: its introduction, and its start and end in the training log."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from keisei._text import one_line
from keisei.config.schema import AppConfig
from keisei.redaction import clean
from keisei.run.failure import Failure
from keisei.run.layout import RunPaths
from keisei.run.session_file import Owner, SessionRecord
from keisei.run.status import FinalStatus

_ENDED = {"cancelled": "was cancelled", "preempted": "was preempted"}


def info_lines(
    config: AppConfig,
    run_name: str,
    url: str | None,
    paths: RunPaths,
    agent_info: Mapping[str, Any] | None,
    resumed_from_checkpoint: str | None,
    global_timestep: int,
    total_episodes_completed: int,
    resumes: str | None = None,
) -> list[str]:
    """Return the lines that introduce a session, one for each subject.

    Args:
        config: the run's config.
        run_name: the run's name.
        url: where its tracker shows it, if anywhere.
        paths: the run's paths.
        agent_info: the agent's ``type`` and ``name``, if known.
        resumed_from_checkpoint: the checkpoint's path, or ``None`` at a fresh start.
        global_timestep: the environment steps taken so far.
        total_episodes_completed: the episodes completed so far.
        resumes: which attempt this is and after which, from `resumes_text`, if it is not the first.
    """
    if not isinstance(agent_info, Mapping | None):
        kind = type(agent_info).__name__
        raise TypeError(f"agent_info must be a mapping with 'type' and 'name', not a {kind}")
    lines = [
        f"Run: {run_name}" + (f" ({url})" if url else ""),
        f"Run directory: {paths.run_artifact_dir}, effective config: {paths.config_path}",
        (f"Seed: {config.env.seed}, " if config.env.seed is not None else "")
        + f"Device: {config.env.device}",
    ]
    if agent_info:
        kind, name = agent_info.get("type", "unknown"), agent_info.get("name", "unnamed")
        lines.append(f"Agent: {one_line(kind)} ({one_line(name)})")
    lines.append(
        f"Total timesteps: {config.training.total_timesteps}, "
        f"steps per epoch: {config.training.steps_per_epoch}"
    )
    progress = f"timestep {global_timestep}, {total_episodes_completed} episodes completed"
    if resumed_from_checkpoint:
        last = f"Resuming from checkpoint: {resumed_from_checkpoint}, {progress}"
    elif global_timestep or total_episodes_completed:
        last = f"Resuming at {progress}"
    else:
        last = "Resuming the run" if resumes else "Starting fresh"
    lines.append(f"{last}: {resumes}" if resumes else last)
    return [one_line(line) for line in clean(lines)]


def resumes_text(attempt: int, earlier: SessionRecord | None, last_step: int | None) -> str:
    """Return which attempt of a run this is, and what is known of the one before it.

    Args:
        attempt: which attempt this is.
        earlier: the record of the one before it; ``None`` where it is lost.
        last_step: the last step that was logged.
    """
    if earlier is None:
        before = "the session file of the earlier one is lost"
    else:
        status = "died" if earlier.status == "running" else earlier.status
        before = f"attempt {earlier.attempt} {_ENDED.get(status, status)}"
    step = "no step is logged" if last_step is None else f"the last step logged is {last_step}"
    return f"attempt {attempt}, {before}, {step}"


def start_line(now: str, run_name: str, session_id: str, attempt: int) -> str:
    """Return the line that starts an attempt in the training log.

    Args:
        now: the time, ISO 8601 with offset.
        run_name: the run's name.
        session_id: its id.
        attempt: which attempt this is.
    """
    return one_line(f"[{now}] session started: run {run_name}, id {session_id}, attempt {attempt}")


def end_line(
    now: str, run_name: str, status: FinalStatus, duration_s: float, failure: Failure | None = None
) -> str:
    """Return the line that ends an attempt in the training log.

    Args:
        now: the time, ISO 8601 with offset.
        run_name: the run's name.
        status: how it ended.
        duration_s: how long it took, in seconds.
        failure: why, where an error or a signal ended it.
    """
    why = "" if failure is None else f": {failure}"
    return one_line(
        f"[{now}] session ended: run {run_name}, {status} after {duration_s:.3f} s{why}"
    )


def gone_line(now: str, run_name: str, last_seen: str, owner: Owner | None) -> str:
    """Return the line that ends an attempt whose owner has died without ending it.

    Args:
        now: the time, ISO 8601 with offset.
        run_name: the run's name.
        last_seen: the last sign of life, ISO 8601 with offset.
        owner: who is gone; ``None`` where that is not known.
    """
    who = "unknown" if owner is None else f"process {owner.pid} on host {owner.host}"
    return one_line(
        f"[{now}] session ended: run {run_name}, failed at {last_seen}: its owner is gone ({who})"
    )
