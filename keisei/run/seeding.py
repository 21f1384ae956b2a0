"""Seed the random generators: the one effect that is the whole process's."""

from __future__ import annotations

import random
import sys

from keisei.config.schema import AppConfig


def setup_seeding(config: AppConfig) -> tuple[str, ...]:
    """Seed `random`, and of numpy and torch those that the program has imported.

    `torch.manual_seed` seeds every device, CUDA and MPS among them
    (https://docs.pytorch.org/docs/stable/generated/torch.manual_seed.html).

    Args:
        config: its ``env.seed``; where that is ``None``, nothing is done.

    Returns:
        The names of what was seeded.
    """
    seed = config.env.seed
    if seed is None:
        return ()
    random.seed(seed)
    seeded = ["random"]
    if (numpy := sys.modules.get("numpy")) is not None:
        numpy.random.seed(seed)
        seeded.append("numpy")
    if (torch := sys.modules.get("torch")) is not None:
        torch.manual_seed(seed)
        seeded.append("torch")
    return tuple(seeded)
