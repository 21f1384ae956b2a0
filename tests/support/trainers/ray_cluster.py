"""A cluster of Ray's on this machine, for the process."""

from __future__ import annotations

import atexit
import os
import shutil
import tempfile

import ray

# A worker of Train waits at each report until the controller has looked, by itself each 2 s. The
# others start processes that no check looks at.
for name, value in {
    "RAY_TRAIN_HEALTH_CHECK_INTERVAL_S": "0.1",
    "RAY_TRAIN_ENABLE_PREEMPTION_WATCHER": "0",
    "RAY_TRAIN_ENABLE_STATE_ACTOR_RECONCILIATION": "0",
    "RAY_TRAIN_ENABLE_STATE_TRACKING": "0",
    "RAY_TRAIN_METRICS_ENABLED": "0",
}.items():
    os.environ.setdefault(name, value)


def started() -> None:
    """Start it, where it is not running; the process's end stops it, and removes its files."""
    if not ray.is_initialized():
        # The path is short, for Ray's sockets.
        temporary = tempfile.mkdtemp(prefix="kray-", dir="/tmp")
        atexit.register(_end, temporary)
        ray.init(
            num_cpus=4,
            include_dashboard=False,
            log_to_driver=False,
            logging_level="error",
            _temp_dir=temporary,
        )


def _end(temporary: str) -> None:
    ray.shutdown()
    shutil.rmtree(temporary, ignore_errors=True)
