"""What keisei asks of SLURM: when a job's time ends, and that the job is requeued."""

from __future__ import annotations

import hashlib
import re
import subprocess
from collections.abc import Mapping, Sequence
from datetime import datetime

from keisei.distributed.launchers import Launch, whole

ASK_TIMEOUT = 5.0  # seconds for one call of scontrol
_END = re.compile(r"(?:^|\s)EndTime=(\S+)")


def job_of(environ: Mapping[str, str]) -> str | None:
    """Return the job that the process belongs to, as scontrol names it; ``None`` outside of jobs.

    Args:
        environ: the process's environment.
    """
    array, task = environ.get("SLURM_ARRAY_JOB_ID"), environ.get("SLURM_ARRAY_TASK_ID")
    if array and task:
        return f"{array}_{task}"
    return environ.get("SLURM_JOB_ID") or environ.get("SLURM_JOBID") or None


def start_of_job(
    environ: Mapping[str, str],
    found: Launch | None,
    program: Sequence[str],
    identity: str | None = None,
) -> Launch | None:
    """Return the start of a job as a launch of one process; ``None`` outside of jobs.

    It has one identity in all starts of the job, and another one for each step and command line
    in it. What a launcher has found cannot tell that: torchrun's ids are new after a requeue.

    Args:
        environ: the process's environment.
        found: the launch of one process, where a launcher has started it.
        program: the program's command line.
        identity: what tells it from others in place of the command line.
    """
    if (job := job_of(environ)) is None:
        return None
    line = "\0".join(program).encode("utf-8", "surrogateescape")
    own = hashlib.sha256(line).hexdigest()[:12] if identity is None else identity
    step = environ.get("SLURM_STEP_ID") or environ.get("SLURM_STEPID")
    where = (environ.get("SLURM_CLUSTER_NAME"), job, step, own)
    return Launch(
        "slurm",
        0,
        1,
        0,
        None,
        "/".join(["job", *(part for part in where if part)]),
        0 if found is None else found.restart,
        whole(environ.get("SLURM_RESTART_COUNT")) or 0,
        "SLURM_JOB_ID",
    )


def end_in(environ: Mapping[str, str]) -> float | None:
    """Return when the job's time ends as its environment says it, in seconds since the epoch.

    Args:
        environ: the process's environment.
    """
    text = environ.get("SLURM_JOB_END_TIME", "")
    return float(text) if text.isascii() and text.isdigit() else None


def parsed_end(text: str) -> float | None:
    """Return when a job's time ends from what `scontrol show job` prints; ``None`` if never.

    Args:
        text: what it prints; its times are local ones.
    """
    found = _END.search(text)
    try:
        return None if found is None else datetime.fromisoformat(found[1]).timestamp()
    except (ValueError, OverflowError, OSError):
        return None


def asked_end(job: str) -> float | None:
    """Ask SLURM when a job's time ends, in seconds since the epoch; blocks.

    Args:
        job: the job.

    Returns:
        ``None`` where SLURM does not say it in time.
    """
    try:
        return parsed_end(_scontrol("show", "job", "--oneliner", job))
    except (OSError, subprocess.SubprocessError):
        return None


def requeue(job: str) -> None:
    """Ask SLURM to requeue a job, which then ends all that runs in it; blocks.

    Args:
        job: the job.

    Raises:
        OSError: scontrol cannot be run, has refused it, or has not answered in time.
    """
    try:
        _scontrol("requeue", job)
    except subprocess.CalledProcessError as exc:
        raise OSError((exc.stderr or "").strip() or f"exit status {exc.returncode}") from exc
    except subprocess.TimeoutExpired as exc:
        raise TimeoutError(f"it has not answered in {ASK_TIMEOUT:.0f} s") from exc


def _scontrol(*arguments: str) -> str:
    done = subprocess.run(
        ["scontrol", *arguments],
        check=True,
        capture_output=True,
        text=True,
        errors="replace",
        stdin=subprocess.DEVNULL,
        timeout=ASK_TIMEOUT,
        start_new_session=True,  # what ends the job's step does not end the asking
    )
    return done.stdout
