"""A process that tracks one run with the real SDK, and tells how long that took.

python -m tests.support.wandb_client '{"id": "a", "rows": 3, "init_timeout": 2}'
"""

from __future__ import annotations

import json
import os
import signal
import subprocess
import sys
import time
from collections.abc import Callable, Mapping
from dataclasses import asdict, dataclass, field
from pathlib import Path
from typing import Any


@dataclass(frozen=True)
class ClientRun:
    """The run that a client process is to track.

    Args:
        id: The run's id.
        mode: `online` or `offline`.
        rows: How many rows `{"x": i}` it logs.
        first: The first row's `x`.
        resume: W&B's `resume`, such as `allow`.
        exit_code: The exit code given to `finish`.
        init_timeout: W&B's `init_timeout`, in seconds.
        finish_timeout: W&B's `finish_timeout`, in seconds.
        config: The run's config.
    """

    id: str
    mode: str = "online"
    rows: int = 3
    first: int = 0
    resume: str | None = None
    exit_code: int = 0
    init_timeout: float = 20.0
    finish_timeout: float = 20.0
    config: dict[str, Any] = field(default_factory=lambda: {"lr": 0.5, "layers": [8, 8]})


@dataclass(frozen=True)
class ClientReport:
    """How a client process fared.

    Args:
        init_s: How long `init` took, in seconds.
        init_error: The type and message of its exception, or an empty string.
        finish_s: How long `finish` took, in seconds; 0 if it was not reached.
        finish_error: The type and message of its exception, or an empty string.
    """

    init_s: float
    init_error: str
    finish_s: float = 0.0
    finish_error: str = ""


def start_client(
    run: ClientRun, directory: Path, environ: Mapping[str, str]
) -> subprocess.Popen[str]:
    """Start a client process.

    Args:
        run: The run it is to track.
        directory: Where it works, and keeps all that W&B writes.
        environ: The variables that bring it to a server.

    Returns:
        The process; pass it to `client_report`.
    """
    directory.mkdir(parents=True, exist_ok=True)
    return subprocess.Popen(
        [sys.executable, __file__, json.dumps(asdict(run))],
        cwd=directory,
        env=client_environ(directory, environ),
        stdin=subprocess.DEVNULL,
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
        text=True,
    )


def client_report(process: subprocess.Popen[str], timeout: float = 30.0) -> ClientReport:
    """Wait for a client process to end.

    Args:
        process: The process.
        timeout: How long to wait at most, in seconds.

    Returns:
        What it reported.

    Raises:
        subprocess.TimeoutExpired: It did not end in time, and was killed.
        AssertionError: It failed; the message is what it wrote to its standard error.
    """
    with process:
        try:
            output, errors = process.communicate(timeout=timeout)
        except subprocess.TimeoutExpired:
            process.kill()
            raise
    assert process.returncode == 0, errors
    return ClientReport(**json.loads(output.splitlines()[-1]))


def sync(directory: Path, environ: Mapping[str, str], *options: str, timeout: float = 60.0) -> str:
    """Run `wandb sync` on all runs of a client's directory.

    Args:
        directory: The directory that the client had.
        environ: The variables that bring it to a server.
        options: The command's options, such as `--include-online`.
        timeout: How long it may take at most, in seconds.

    Returns:
        What it printed: it ends with status 0 also where nothing could be uploaded.

    Raises:
        subprocess.TimeoutExpired: It did not end in time, and was killed; W&B's service, which
            it had started, ends some seconds later.
    """
    done = subprocess.run(
        [sys.executable, "-m", "wandb", "sync", *options, str(directory / "wandb")],
        cwd=directory,
        env=client_environ(directory, environ),
        stdin=subprocess.DEVNULL,
        stdout=subprocess.PIPE,
        stderr=subprocess.STDOUT,
        text=True,
        timeout=timeout,
    )
    return done.stdout


def client_environ(directory: Path, environ: Mapping[str, str]) -> dict[str, str]:
    """Return a process's environment in which W&B sees no other server, login or directory.

    Args:
        directory: Where W&B is to keep what it writes.
        environ: The variables that bring it to a server.
    """
    inherited = {k: v for k, v in os.environ.items() if not k.startswith("WANDB_")}
    homes = ["HOME", "USERPROFILE"]
    homes += ["WANDB_DIR", "WANDB_CONFIG_DIR", "WANDB_CACHE_DIR", "WANDB_DATA_DIR"]
    return inherited | dict.fromkeys(homes, str(directory)) | dict(environ)


def _track(run: ClientRun) -> ClientReport:
    import wandb

    settings = wandb.Settings(
        silent=True,
        console="off",
        reinit="create_new",
        init_timeout=run.init_timeout,
        finish_timeout=run.finish_timeout,
        finish_timeout_raises=True,
        x_disable_stats=True,
        x_disable_meta=True,
        x_save_requirements=False,
        disable_git=True,
        x_disable_machine_info=True,
        x_transaction_log_flush_interval=0.2,
    )
    made: list[Any] = []

    def init() -> None:
        made.append(
            wandb.init(
                project="checks",
                id=run.id,
                name=f"name of {run.id}",
                mode=run.mode,  # type: ignore[arg-type]
                resume=run.resume,  # type: ignore[arg-type]
                config=run.config,
                settings=settings,
            )
        )

    init_s, init_error = _timed(init)
    if init_error:
        return ClientReport(init_s, init_error)
    for x in range(run.first, run.first + run.rows):
        made[0].log({"x": x})
    finish_s, finish_error = _timed(lambda: made[0].finish(exit_code=run.exit_code))
    return ClientReport(init_s, init_error, finish_s, finish_error)


def _timed(step: Callable[[], object]) -> tuple[float, str]:
    """Take a step; return its duration in seconds, and its exception as text."""
    begun = time.monotonic()
    error = ""
    try:
        step()
    except Exception as e:
        error = f"{type(e).__name__}: {e}"
    return time.monotonic() - begun, error


def _leave() -> None:
    """End the process at once, and W&B's service with it, which could go on for minutes."""
    from wandb.sdk import wandb_setup

    service = wandb_setup.singleton().ensure_service()._proc
    if service is not None:
        service._process.send_signal(getattr(signal, "SIGKILL", signal.SIGTERM))
    sys.stdout.flush()
    os._exit(0)


if __name__ == "__main__":
    report = _track(ClientRun(**json.loads(sys.argv[1])))
    print(json.dumps(asdict(report)), flush=True)
    if report.init_error or report.finish_error:
        _leave()
