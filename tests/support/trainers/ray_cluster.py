"""A cluster of Ray's on this machine, for the process."""

from __future__ import annotations

import tempfile

import ray


def started() -> None:
    """Start it, where it is not running."""
    if not ray.is_initialized():
        # The path is short, for Ray's sockets.
        temporary = tempfile.mkdtemp(prefix="kray-", dir="/tmp")
        ray.init(
            num_cpus=4,
            include_dashboard=False,
            log_to_driver=False,
            logging_level="error",
            _temp_dir=temporary,
        )
