"""The adapters that the kit checks, each with what it has to know of them."""

from __future__ import annotations

from typing import Any

ADAPTERS: dict[str, dict[str, Any]] = {
    "lightning": {
        "module": "keisei.integrations.lightning",
        "framework": "lightning",
        "extra": "lightning",
        "needs": ["torch"],
    },
    "sb3": {
        "module": "keisei.integrations.sb3",
        "framework": "stable_baselines3",
        "extra": "sb3",
        "metric": "probe",
    },
    "transformers": {
        "module": "keisei.integrations.transformers",
        "framework": "transformers",
        "extra": "transformers",
        "metric": "train/probe",
        "needs": ["accelerate", "torch"],
    },
    "accelerate": {
        "module": "keisei.integrations.accelerate",
        "framework": "accelerate",
        "extra": "accelerate",
        "needs": ["torch"],
    },
    "ray_train": {
        "module": "keisei.integrations.ray",
        "framework": "ray",
        "extra": "ray",
        "starts_ranks": True,
        "starts_runs": True,
        "needs": ["pandas", "pyarrow", "torch"],
    },
    "ray_tune": {
        "module": "keisei.integrations.ray",
        "framework": "ray",
        "extra": "ray",
        "starts_runs": True,
        "needs": ["pandas", "pyarrow"],
        "without": {
            "a preempted run is saved, ends as preempted, and goes on": "Tune restores trials",
            "two ranks are one run, and rank 0 alone logs": "a trial has one process",
        },
    },
}
