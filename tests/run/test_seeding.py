"""Seeding: what the program has imported, and nothing else."""

from __future__ import annotations

import random
import subprocess
import sys

import numpy as np
import pytest

from keisei import AsyncSessionManager
from tests.conftest import MakeConfig


@pytest.mark.requirement("SEED-1")
async def test_a_seed_makes_the_generators_repeat(make_config: MakeConfig) -> None:
    """Two sessions of one seed see the same numbers, and the summary says what was seeded."""
    drawn = []
    for _ in range(2):
        async with AsyncSessionManager(make_config(env={"seed": 11})) as session:
            drawn.append((random.random(), float(np.random.rand())))
        seeded = session.get_session_summary()["seeded"]
        assert {"random", "numpy"} <= set(seeded)
    assert drawn[0] == drawn[1]


@pytest.mark.requirement("SEED-1")
async def test_without_a_seed_nothing_is_touched(make_config: MakeConfig) -> None:
    """The generators go on as they were."""
    before = (random.getstate(), np.random.get_state()[1].tolist())  # type: ignore[index]
    async with AsyncSessionManager(make_config()) as session:
        pass
    assert (random.getstate(), np.random.get_state()[1].tolist()) == before  # type: ignore[index]
    summary = session.get_session_summary()
    assert summary["seed"] is None
    assert summary["seeded"] == []
    assert session.state["seeding_setup"]


@pytest.mark.requirement("SEED-1")
def test_what_is_not_imported_is_not_imported_for_it() -> None:
    """A program without numpy and torch does not get them by being seeded; one with torch's name
    has it seeded."""
    code = (
        "import sys, types\n"
        "from keisei import AppConfig\n"
        "from keisei.training.utils import setup_seeding\n"
        "config = AppConfig.model_validate({'env': {'seed': 1}})\n"
        "print(setup_seeding(config), 'numpy' in sys.modules, 'torch' in sys.modules)\n"
        "torch = types.ModuleType('torch'); torch.manual_seed = lambda s: print('torch', s)\n"
        "sys.modules['torch'] = torch\n"
        "print(setup_seeding(config))\n"
    )
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    assert done.stdout.splitlines() == [
        "('random',) False False",
        "torch 1",
        "('random', 'torch')",
    ]
