"""A budget holds several ranks, which are processes: they end together, with a checkpoint."""

from __future__ import annotations

import json
import os
import subprocess
import sys
from pathlib import Path
from typing import Any

import pytest

from keisei.monitoring.run_events import ledger_of

PROGRAM = """
import json, sys, time
import keisei

rank, root, price, spends = int(sys.argv[1]), sys.argv[2], *json.loads(sys.argv[3])
config = keisei.load_config(overrides={
    "logging": {"log_dir": root, "log_level": "error"},
    "distributed": {"timeout": 30},
    "cost": {"node_hour": price},
    "budget": {"money": 2.0},
})
session = keisei.SessionManager(config, run_name="r")
session.enable_distributed_session(rank, 2)
steps = 0
try:
    with session:
        session.setup_auto_checkpointing(10**6, state={"rank": rank})
        while steps < 3000:
            time.sleep(0.02)
            steps += 1
            if rank == spends:
                session.log_cost("0.05", "api")
            session.checkpoint_if_due(steps)
except keisei.KeiseiError as error:
    print(json.dumps([type(error).__name__, str(error), session.status, steps]))
"""


@pytest.mark.requirement("COST-2")
@pytest.mark.parametrize(
    ("price", "spends"), [(None, 1), (None, 0), (3600.0, -1)], ids=["rank1", "rank0", "time"]
)
def test_ranks_end_at_one_safe_point(tmp_path: Path, price: float | None, spends: int) -> None:
    """Whichever of them spends the budget, and goes on spending, or where time alone does."""
    environ = {**os.environ, "KEISEI_PROVENANCE": "off"}
    ranks = [
        subprocess.Popen(
            [sys.executable, "-c", PROGRAM, str(rank), str(tmp_path), json.dumps([price, spends])],
            stdout=subprocess.PIPE,
            env=environ,
        )
        for rank in (0, 1)
    ]
    met: list[Any] = [json.loads(rank.communicate(timeout=120)[0]) for rank in ranks]
    run = tmp_path / "r"
    assert [one[0] for one in met] == ["RunCancelledError"] * 2
    assert [one[2] for one in met] == ["cancelled"] * 2
    assert all("budget.money" in one[1] for one in met)
    assert met[0][3] == met[1][3]
    assert (run / "models" / f"checkpoint_{met[0][3]}.ckpt").is_dir()
    record = json.loads((run / "session.json").read_text())
    assert record["status"] == "cancelled"
    assert float(ledger_of(str(run)).totals["USD"]) >= 2.0
