"""Sessions of this room's tests record what they are started from."""

from __future__ import annotations

import pytest


@pytest.fixture(autouse=True)
def _recorded(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.delenv("KEISEI_PROVENANCE")
