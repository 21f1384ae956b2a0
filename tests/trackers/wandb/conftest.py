"""A W&B server of each test's own."""

from __future__ import annotations

from collections.abc import Iterator

import pytest

from keisei.testing.wandb_server import WandbServer


@pytest.fixture
def server() -> Iterator[WandbServer]:
    """A server on loopback that the SDK takes for W&B."""
    with WandbServer() as fake:
        yield fake
