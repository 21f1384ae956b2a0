"""A W&B server of each test's own."""

from __future__ import annotations

from collections.abc import Iterator

import pytest

from tests.support.wandb_server import FakeWandb


@pytest.fixture
def server() -> Iterator[FakeWandb]:
    """A server on loopback that the SDK takes for W&B."""
    with FakeWandb() as fake:
        yield fake
