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
}
