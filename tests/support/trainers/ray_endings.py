"""Experiments of Ray Tune's that end otherwise than by themselves; prints how their runs stand."""

from __future__ import annotations

import os
import signal
import sys
import time
from pathlib import Path
from typing import Any

from ray import tune

from keisei import AppConfig
from keisei.integrations.ray import KeiseiCallback
from keisei.run.find import find_runs
from tests.support.trainers.ray_cluster import started

LONG = 10_000


def trial(settings: dict[str, Any]) -> None:
    """Report until something ends it; the first of two fails once the other reports."""
    signs = Path(settings["signs"])
    for step in range(1, LONG):
        tune.report({"loss": 1 / step})
        (signs / str(settings["number"])).touch()
        if settings["fails"] and settings["number"] == 0 and (signs / "1").exists():
            raise ValueError("as planned")
        time.sleep(0.02)


class Interrupts(tune.Callback):
    """Does what Ctrl-C does, once both trials have reported."""

    def __init__(self) -> None:
        self.seen: set[str] = set()

    def on_trial_result(
        self, iteration: int, trials: Any, trial: Any, *args: Any, **k: Any
    ) -> None:
        self.seen.add(trial.trial_id)
        if len(self.seen) == 2:
            os.kill(os.getpid(), signal.SIGINT)


class StopsAll(tune.Stopper):
    """Stops the experiment, once both trials have reported."""

    def __init__(self) -> None:
        self.seen: set[str] = set()

    def __call__(self, trial_id: str, result: dict[str, Any]) -> bool:
        self.seen.add(trial_id)
        return False

    def stop_all(self) -> bool:
        return len(self.seen) == 2


def run(name: str, home: Path) -> str:
    """Run an experiment; return the states of its runs, and what was raised."""
    signs, error = home / f"signs-{name}", "nothing"
    signs.mkdir()
    config = AppConfig.model_validate(
        {
            "logging": {"log_dir": str(home / "runs" / name)},
            "provenance": {"enabled": False},
            "monitoring": {"resources": False},
        }
    )
    ways: dict[str, Any] = {"fail-fast": True, "raise": "raise"}
    callbacks: list[Any] = [KeiseiCallback(config)]
    space = {"number": tune.grid_search([0, 1]), "signs": str(signs), "fails": name in ways}
    settings = tune.RunConfig(
        name=name,
        storage_path=str(home / "ray"),
        callbacks=[*callbacks, Interrupts()] if name == "interrupt" else callbacks,
        stop=StopsAll() if name == "stopper" else None,
        failure_config=tune.FailureConfig(fail_fast=ways.get(name, False)),
        verbose=0,
    )
    try:
        tune.Tuner(trial, param_space=space, run_config=settings).fit()
    except Exception as exc:  # what is looked at
        error = type(exc).__name__
    states = sorted(found.state for found in find_runs(str(home / "runs" / name)))
    return f"{name}: {', '.join(states)}; raised {error}"


if __name__ == "__main__":
    started()
    for name in ("stopper", "interrupt", "fail-fast", "raise"):
        print(run(name, Path(sys.argv[1])), flush=True)
