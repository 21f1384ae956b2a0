"""Lightning starts its ranks itself, and they are one run."""

from __future__ import annotations

import os
import subprocess
import sys
from importlib.util import find_spec
from pathlib import Path

import pytest

from keisei.journal.reader import read_run
from keisei.run.find import find_runs

REPOSITORY = Path(__file__).parents[2]
STEPS = 6

# A program as its user starts it: Lightning starts it once more, for the other device.
PROGRAM = f"""
import sys

import lightning.pytorch as pl
import torch
from lightning.pytorch.callbacks import ModelCheckpoint
from torch.utils.data import DataLoader, TensorDataset

from keisei import AppConfig
from keisei.integrations.lightning import KeiseiCallback, KeiseiLogger, rank_zero_session


class Line(pl.LightningModule):
    def __init__(self):
        super().__init__()
        self.layer = torch.nn.Linear(4, 1)

    def training_step(self, batch, batch_idx):
        if self.global_step == int(sys.argv[1]):
            raise ValueError("as planned")
        loss = (self.layer(batch[0]) - 1).square().mean()
        self.log("loss", loss, sync_dist=True)
        self.log("ranks", float(self.trainer.world_size))
        return loss

    def configure_optimizers(self):
        return torch.optim.SGD(self.parameters(), lr=0.01)


if __name__ == "__main__":
    with rank_zero_session(AppConfig(), run_name="two") as session:
        trainer = pl.Trainer(
            max_steps={STEPS},
            accelerator="cpu",
            devices=2,
            strategy="ddp",
            logger=KeiseiLogger(session),
            callbacks=[KeiseiCallback(session), ModelCheckpoint(every_n_train_steps=3)],
            log_every_n_steps=1,
            enable_progress_bar=False,
            enable_model_summary=False,
        )
        data = DataLoader(TensorDataset(torch.ones(64, 4)), batch_size=4)
        trainer.fit(Line(), data)
"""


@pytest.mark.frameworks
@pytest.mark.parametrize(("fails_at", "status"), [(STEPS, "completed"), (4, "failed")])
def test_two_processes_of_ddp_are_one_run(fails_at: int, status: str, tmp_path: Path) -> None:
    """Rank 0 logs each step once and commits the checkpoints, and the run ends as it has."""
    for package in ("lightning", "torch"):
        if find_spec(package) is None:
            pytest.skip(f"{package} is not installed")
    (tmp_path / "program.py").write_text(PROGRAM)
    environ = {
        **os.environ,
        "PYTHONPATH": str(REPOSITORY),
        "KEISEI_LOG_DIR": str(tmp_path / "runs"),
    }
    with open(tmp_path / "errors", "w+") as errors:
        done = subprocess.run(
            [sys.executable, "program.py", str(fails_at)],
            cwd=tmp_path,
            env=environ,
            stdout=errors,
            stderr=errors,
            timeout=300,
        )
    said = (tmp_path / "errors").read_text()[-5000:]
    assert (done.returncode == 0) == (status == "completed"), said
    (run,) = find_runs(str(tmp_path / "runs"))
    assert run.state == status, said
    rows = [row for row in read_run(run.directory).rows() if "loss" in row.values]
    assert [(row.step, row.values["ranks"]) for row in rows] == [(n, 2.0) for n in range(fails_at)]
    saved = sorted(path.name for path in Path(run.directory, "models").glob("checkpoint_*"))
    assert saved == [f"checkpoint_{step}.ckpt" for step in (3, 6) if step <= fails_at]
