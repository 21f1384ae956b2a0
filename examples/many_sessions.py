"""Twenty sessions at once on one loop, one of which fails: `python -m examples.many_sessions`."""

import random
from collections import Counter

import anyio

from keisei import AppConfig, AsyncSessionManager, load_config

SESSIONS = 20
UNLUCKY = 13


async def train(config: AppConfig, number: int, ends: dict[int, str]) -> None:
    """Run one session; its own failure ends it, and is kept from the others.

    Args:
        config: the config, shared by all sessions.
        number: which session this is.
        ends: gets the status that it ends with, by number.
    """
    session = AsyncSessionManager(config, run_name=f"many-{number:02d}")
    try:
        async with session:
            for _ in range(10):
                await anyio.sleep(random.uniform(0, 0.05))
                if number == UNLUCKY:
                    raise RuntimeError("this learner diverged")
    except RuntimeError as exc:
        print(f"{session.run_name}: {exc}")
    ends[number] = session.status


async def main() -> None:
    """Start all sessions in one task group, and count how they ended."""
    config = load_config(overrides={"logging.if_exists": "number"})
    ends: dict[int, str] = {}
    async with anyio.create_task_group() as group:
        for number in range(SESSIONS):
            group.start_soon(train, config, number, ends)
    for status, count in sorted(Counter(ends.values()).items()):
        print(f"{count} {status}")


if __name__ == "__main__":
    anyio.run(main)
