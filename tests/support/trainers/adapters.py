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
}
