"""Sessions of this room's tests record what they start from, each anew, and wait for it."""

from __future__ import annotations

import pytest

from keisei.provenance import shared
from keisei.session import provenance


@pytest.fixture(autouse=True)
def _patient(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("KEISEI_PROVENANCE", "on")
    monkeypatch.setattr(provenance, "PATIENCE", 30.0)
    monkeypatch.setattr(provenance, "GRACE", 30.0)
    for bound in ("AT_LEAST", "AT_MOST", "FAILED_FOR"):
        monkeypatch.setattr(shared, bound, 0.0)
