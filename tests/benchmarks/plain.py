"""A session made by hand: the files and directories of keisei's, as durable, by blocking calls."""

from __future__ import annotations

import os
import time
from datetime import datetime

import pydantic_core

from keisei import AppConfig
from keisei.run.record import serialize_config


def session(root: str, name: str, config: AppConfig) -> None:
    """Set up a session and end it.

    Args:
        root: the directory under which sessions live; it must exist.
        name: the session's name.
        config: what is written as its effective config.
    """
    run = os.path.join(root, name)
    models = os.path.join(run, "models")
    log = os.path.join(run, "training.log")
    evaluation_log = os.path.join(run, "evaluation.log")
    os.mkdir(run, 0o700)
    _sync_directory(root)
    os.mkdir(models, 0o700)
    _sync_directory(run)
    _append(evaluation_log, "")
    started = time.monotonic()
    record = {
        "format": 1,
        "session_id": name,
        "run_name": name,
        "attempt": 1,
        "status": "running",
        "owner": {"host": os.uname().nodename, "pid": os.getpid(), "process_start": "unknown"},
        "started_at": _now(),
        "ended_at": None,
        "duration_s": None,
        "paths": {
            "run_artifact_dir": run,
            "model_dir": models,
            "log_file_path": log,
            "eval_log_file_path": evaluation_log,
        },
        "trackers": {},
    }
    _write_atomic(run, "session.json", pydantic_core.to_json(record, indent=2))
    _write_atomic(run, "effective_config.json", serialize_config(config).encode())
    _append(log, f"[{_now()}] session started: run {name}, id {name}, attempt 1\n")
    duration = time.monotonic() - started
    record |= {"status": "completed", "ended_at": _now(), "duration_s": duration}
    _write_atomic(run, "session.json", pydantic_core.to_json(record, indent=2))
    _append(log, f"[{_now()}] session ended: run {name}, completed after {duration:.3f} s\n")


def _now() -> str:
    return datetime.now().astimezone().isoformat(timespec="milliseconds")


def _write_atomic(directory: str, name: str, data: bytes) -> None:
    temporary = os.path.join(directory, f".{name}.tmp")
    fd = os.open(temporary, os.O_WRONLY | os.O_CREAT | os.O_EXCL, 0o600)
    os.write(fd, data)
    os.fsync(fd)
    os.close(fd)
    os.replace(temporary, os.path.join(directory, name))
    _sync_directory(directory)


def _append(path: str, line: str) -> None:
    fd = os.open(path, os.O_WRONLY | os.O_CREAT | os.O_APPEND, 0o600)
    os.write(fd, line.encode())
    os.close(fd)


def _sync_directory(path: str) -> None:
    fd = os.open(path, os.O_RDONLY | os.O_DIRECTORY)
    os.fsync(fd)
    os.close(fd)
