"""Programs of Hydra's: one directory for each run, and the origins of what it composed."""

from __future__ import annotations

import json
import os
import subprocess
import sys
from pathlib import Path
from typing import Any

import pytest

PROGRAM = """
import anyio, hydra, sys
from omegaconf import DictConfig
from keisei import AsyncSessionManager, SessionManager

async def run(cfg):
    async with AsyncSessionManager(cfg) as session:
        print(session.run_artifact_dir)

@hydra.main(version_base=None, config_path="conf", config_name="config")
def main(cfg: DictConfig) -> None:
    if cfg.get("blocking", False):
        with SessionManager(cfg) as session:
            print(session.run_artifact_dir)
    else:
        anyio.run(run, cfg)

main()
"""
CONF = {
    "config.yaml": """
defaults:
  - optimizer: adam
  - _self_
dim: 8
model: {width: "${dim}", depth: 2}
training: {lr: 1}
keisei:
  env:
    seed: ${dim}
  logging:
    log_dir: ${hydra:runtime.output_dir}
""",
    "optimizer/adam.yaml": "lr: 1e-3\nname: adam\n",
    "optimizer/sgd.yaml": "lr: 0.1\nname: sgd\nmomentum: 0.9\n",
    "experiment/large.yaml": "# @package _global_\nmodel:\n  depth: 9\n",
}


def run_hydra(place: Path, *arguments: str) -> list[Path]:
    """Run the program, and return the directories of its runs."""
    for name, text in CONF.items():
        (place / "conf" / name).parent.mkdir(parents=True, exist_ok=True)
        (place / "conf" / name).write_text(text)
    (place / "program.py").write_text(PROGRAM)
    environ = {**os.environ, "KEISEI_PROVENANCE": "on", "PYTHONWARNINGS": "error"}
    environ.pop("KEISEI_LOG_DIR", None)
    done = subprocess.run(
        [sys.executable, "program.py", *arguments],
        cwd=place, env=environ, capture_output=True, text=True, timeout=120,
    )  # fmt: skip
    assert done.returncode == 0, done.stderr
    return [Path(line) for line in done.stdout.splitlines() if line.startswith("/")]


def origins(run: Path) -> dict[str, Any]:
    """Return the origins that a run has recorded."""
    values: dict[str, Any] = json.loads((run / "config_origins.json").read_text())["values"]
    return values


@pytest.mark.requirement("CFG-8")
def test_each_value_has_the_file_or_the_override_that_gave_it(tmp_path: Path) -> None:
    """The primary file, the chosen file of a group, a global one, and the command line."""
    (run,) = run_hydra(
        tmp_path, "optimizer=sgd", "+experiment=large", "optimizer.lr=0.5",
        "+keisei.training.total_timesteps=7",
    )  # fmt: skip
    assert run.parent.parent.parent == tmp_path / "outputs"
    assert (run.parent / ".hydra").is_dir()
    found = origins(run)
    conf = tmp_path / "conf"
    for key, (name, line) in {
        "dim": ("config.yaml", 5),
        "own.training.lr": ("config.yaml", 7),
        "env.seed": ("config.yaml", 10),
        "model.width": ("config.yaml", 6),
        "model.depth": ("experiment/large.yaml", 3),
        "optimizer.momentum": ("optimizer/sgd.yaml", 3),
    }.items():
        origin = found[key]
        assert (origin["source"], origin["file"], origin["line"]) == (
            "file",
            f"{conf}/{name}",
            line,
        )
    assert (found["model.width"]["value"], found["model.width"]["written"]) == (8, "${dim}")
    assert [each["file"] for each in found["model.depth"]["beat"]] == [f"{conf}/config.yaml"]
    given = found["optimizer.lr"]
    assert (given["source"], given["name"], given["value"]) == ("override", "3", 0.5)
    assert [(each["line"], each["value"]) for each in given["beat"]] == [(1, 0.1)]
    assert (found["training.total_timesteps"]["source"], found["env.device"]["source"]) == (
        "override",
        "default",
    )
    written = json.loads((run / "effective_config.json").read_text())
    assert written["own"] == {"training": {"lr": 1}}


@pytest.mark.requirement("CFG-8")
def test_each_job_of_a_multirun_is_a_run(tmp_path: Path) -> None:
    """Each in the directory of its job, with its own value and its own origins."""
    runs = run_hydra(tmp_path, "-m", "dim=1,2", "+blocking=true")
    assert [run.parent.name for run in runs] == ["0", "1"]
    assert len({run.name for run in runs}) == 2
    for number, run in enumerate(runs):
        assert json.loads((run / "effective_config.json").read_text())["dim"] == number + 1
        assert origins(run)["dim"]["source"] == "override"
        assert json.loads((run / "session.json").read_text())["status"] == "completed"


@pytest.mark.requirement("CFG-8")
def test_hydras_directory_may_be_the_runs_own(tmp_path: Path) -> None:
    """Hydra's output goes to `runs/NAME`, which the session takes for the run of that name."""
    overrides = [
        "keisei.logging.log_dir=runs",
        "+keisei.logging.run_name=lr-${optimizer.lr}-${hydra:job.num}",
        "hydra.sweep.dir=runs",
        "hydra.sweep.subdir=lr-${optimizer.lr}-${hydra:job.num}",
    ]
    runs = run_hydra(tmp_path, "-m", "optimizer.lr=0.1,0.2", *overrides)
    assert runs == [tmp_path / "runs/lr-0.1-0", tmp_path / "runs/lr-0.2-1"]
    for run in runs:
        assert (run / ".hydra/config.yaml").is_file()
        assert (run / "session.json").is_file()
