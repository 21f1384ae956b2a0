"""`keisei show` says what a run has cost, over real attempts, one of which was killed."""

from __future__ import annotations

import json
import signal
import subprocess
import sys
from decimal import Decimal
from pathlib import Path
from typing import Any

import pytest
from typer.testing import CliRunner

from keisei.cli import show  # noqa: F401 - registers the command
from keisei.cli.program import app

PROGRAM = """
import os, signal, sys, time
import keisei

config = keisei.load_config(overrides={
    "logging": {"log_dir": sys.argv[1]},
    "cost": {"node_hour": 36.0, "gpu_hour": 1.0},
})
with keisei.SessionManager(config, run_name="r") as session:
    for _ in range(3):
        session.log_cost("1.005", "people")
        session.log_tokens("nobody-knows-it", 1000, 20)
    session.log_cost(7, "rent [a]", "EUR")
    if sys.argv[2] == "killed":
        session.flush()
        os.kill(os.getpid(), signal.SIGKILL)
"""


def shown(root: Path, *options: str) -> str:
    done = CliRunner().invoke(app, ["show", "r", "--root", str(root), *options])
    assert done.exit_code == 0, done.output
    return done.stdout


@pytest.mark.requirement("COST-1")
@pytest.mark.skipif(sys.platform == "win32", reason="Windows has no SIGKILL")
def test_a_run_has_one_bill_over_its_attempts(tmp_path: Path) -> None:
    """Lines by what they were for, a total of each currency, and what has no price."""
    for end, status in (("killed", -signal.SIGKILL), ("well", 0)):
        command = [sys.executable, "-c", PROGRAM, str(tmp_path), end]
        assert subprocess.run(command, timeout=120).returncode == status
    cost: dict[str, Any] = json.loads(shown(tmp_path, "--json"))["cost"]
    lines = {line["what"]: line for line in cost["lines"]}
    assert lines["people"]["amount"] == "6.03"
    assert (lines["rent [a]"]["amount"], lines["rent [a]"]["currency"]) == ("14", "EUR")
    node = Decimal(lines["node hours"]["amount"])
    assert 0 < node < 1
    assert cost["totals"] == {"EUR": "14", "USD": str(node + Decimal("6.03"))}
    assert cost["unpriced"][0] == "nobody-knows-it: 6,000 input, 120 output tokens in 6 calls"
    assert cost["unpriced"][1].startswith("GPU hours: how many GPUs is not known")
    rows = [line.split() for line in shown(tmp_path).splitlines()]
    assert ["people", "6.03", "USD"] in rows
    assert ["rent", "[a]", "14.00", "EUR"] in rows
    assert ["total", "14.00", "EUR"] in rows
    assert any(row[:2] == ["unpriced", "nobody-knows-it:"] for row in rows)
