"""A session made by hand: the files and directories of keisei's, as durable, by blocking calls.

It looks at nothing that stands there, takes no lock and knows no owner. POSIX only.
"""

from __future__ import annotations

import os
import time
from datetime import datetime
from typing import Any

import pydantic_core

from keisei import AppConfig
from keisei.config.text import serialize_config


class Session:
    """A session that is set up when it is made.

    Args:
        root: the directory under which sessions live; it must exist.
        name: the session's name, a new one.
        config: what is written as its effective config.
    """

    def __init__(self, root: str, name: str, config: AppConfig) -> None:
        self.run = os.path.join(root, name)
        self.log = os.path.join(self.run, "training.log")
        self.started = time.monotonic()
        models = os.path.join(self.run, "models")
        evaluation_log = os.path.join(self.run, "evaluation.log")
        os.mkdir(self.run, 0o700)
        _sync_directory(root)
        os.mkdir(models, 0o700)
        _sync_directory(self.run)
        _append(evaluation_log, "")
        self.record: dict[str, Any] = {
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
                "run_artifact_dir": self.run,
                "model_dir": models,
                "log_file_path": self.log,
                "eval_log_file_path": evaluation_log,
            },
            "trackers": {},
        }
        self._write_record()
        _write_atomic(self.run, "effective_config.json", serialize_config(config).encode())
        _append(self.log, f"[{_now()}] session started: run {name}, id {name}, attempt 1\n")

    def end(self) -> None:
        """End the session."""
        duration = time.monotonic() - self.started
        self.record |= {"status": "completed", "ended_at": _now(), "duration_s": duration}
        self._write_record()
        name = self.record["run_name"]
        _append(self.log, f"[{_now()}] session ended: run {name}, completed after {duration} s\n")

    def _write_record(self) -> None:
        _write_atomic(self.run, "session.json", pydantic_core.to_json(self.record, indent=2))


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
    if line:
        os.write(fd, line.encode())
        os.fsync(fd)
    os.close(fd)


def _sync_directory(path: str) -> None:
    fd = os.open(path, os.O_RDONLY | os.O_DIRECTORY)
    os.fsync(fd)
    os.close(fd)
