"""Sessions of this room's tests record what they start from, and wait for it."""

from __future__ import annotations

import pytest

from keisei.session import provenance


@pytest.fixture(autouse=True)
def _patient(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("KEISEI_PROVENANCE", "on")
    monkeypatch.setattr(provenance, "PATIENCE", 30.0)
    monkeypatch.setattr(provenance, "GRACE", 30.0)
