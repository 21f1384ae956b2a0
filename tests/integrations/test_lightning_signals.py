"""What ends a training of Lightning's from outside is no completed run."""

from __future__ import annotations

import os
import subprocess
import sys
from importlib.util import find_spec
from pathlib import Path

import pytest

from keisei.run.find import find_runs

REPOSITORY = Path(__file__).parents[2]

PROGRAM = """
import os
import signal
import sys

import lightning.pytorch as pl
from lightning.pytorch.demos.boring_classes import BoringModel

from keisei import AppConfig, SessionManager
from keisei.integrations.lightning import KeiseiCallback, KeiseiLogger

signal.signal(signal.SIGINT, signal.default_int_handler)


class Signals(pl.Callback):
    def on_train_batch_end(self, trainer, *args):
        if trainer.global_step == 3:
            os.kill(os.getpid(), signal.Signals[sys.argv[1]])


with SessionManager(AppConfig()) as session:
    ways = {"logger": KeiseiLogger(session)} if sys.argv[2] == "logger" else {"logger": False}
    callbacks = [Signals(), *([KeiseiCallback(session)] if sys.argv[2] == "callback" else [])]
    trainer = pl.Trainer(
        max_steps=1000,
        accelerator="cpu",
        callbacks=callbacks,
        enable_progress_bar=False,
        enable_checkpointing=False,
        **ways,
    )
    trainer.fit(BoringModel())
"""


@pytest.mark.frameworks
@pytest.mark.parametrize("adapter", ["logger", "callback"])
@pytest.mark.parametrize("name", ["SIGINT", "SIGTERM"])
def test_a_signal_cancels_the_run(name: str, adapter: str, tmp_path: Path) -> None:
    """Lightning makes an exit of each, and the run is `cancelled`."""
    for package in ("lightning", "torch"):
        if find_spec(package) is None:
            pytest.skip(f"{package} is not installed")
    (tmp_path / "program.py").write_text(PROGRAM)
    environ = {
        **os.environ,
        "PYTHONPATH": str(REPOSITORY),
        "KEISEI_LOG_DIR": str(tmp_path / "runs"),
    }
    done = subprocess.run(
        [sys.executable, "program.py", name, adapter],
        cwd=tmp_path,
        env=environ,
        capture_output=True,
        text=True,
        timeout=300,
    )
    (run,) = find_runs(str(tmp_path / "runs"))
    assert run.state == "cancelled", done.stderr[-5000:]
