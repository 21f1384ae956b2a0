"""Processes that are the ranks of one launch, started at once by `multiprocessing`.

`python -m tests.support.rank_processes ROOT COUNT METHOD ACT` starts so many by `spawn` or `fork`,
and prints what each has met as JSON: its run, and how long it has taken from the start of the last
one. With `kill:R:S`, rank R is killed S seconds after it has begun to start its session.
"""

from __future__ import annotations

import contextlib
import json
import multiprocessing
import os
import signal
import sys
import threading
import time
from typing import Any

import anyio

from keisei import AppConfig, AsyncSessionManager, KeiseiError


def _killed(delay: float) -> None:
    time.sleep(delay)
    os.kill(os.getpid(), signal.SIGKILL)


def _rank(rank: int, count: int, root: str, act: str, began: Any, met: Any) -> None:
    timeout = 5 if act else 30
    config = AppConfig.model_validate(
        {"logging": {"log_dir": root, "log_level": "critical"}, "distributed": {"timeout": timeout}}
    )

    async def main() -> None:
        session = AsyncSessionManager(config)
        session.enable_distributed_session(rank, count)
        began[rank] = time.time()
        what, _, rest = act.partition(":")
        if what == "kill" and rest.startswith(f"{rank}:"):
            delay = float(rest.partition(":")[2])
            threading.Thread(target=_killed, args=(delay,), daemon=True).start()
        async with session:
            met[rank] = (session.session_id, session.run_name, time.time())
            session.log_metrics({"rank": rank}, step=1)
            if what == "kill":
                await anyio.sleep(20)

    with contextlib.suppress(KeiseiError):
        anyio.run(main)


def main(root: str, count: str, method: str, act: str = "") -> None:
    """Start the processes, wait for them, and print what they have met."""
    context: Any = multiprocessing.get_context(method)
    with context.Manager() as manager:
        began, met = manager.dict(), manager.dict()
        ranks = [
            context.Process(target=_rank, args=(rank, int(count), root, act, began, met))
            for rank in range(int(count))
        ]
        for each in ranks:
            each.start()
        for each in ranks:
            each.join()
        found = dict(met)
        last = max(began.values())
    print(json.dumps({rank: [*known[:2], known[2] - last] for rank, known in found.items()}))


if __name__ == "__main__":
    main(*sys.argv[1:])
