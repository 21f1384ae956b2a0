"""A session measures what it uses of its machine, and keeps it in its journal."""

from __future__ import annotations

import os
import signal
import subprocess
import sys
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

import anyio
import psutil
import pytest
from typer.testing import CliRunner

from keisei import AsyncSessionManager, RunCancelledError, SessionManager
from keisei.cli import plot, show, tail  # noqa: F401 - registers the commands
from keisei.cli.program import app
from keisei.journal.reader import read_run
from keisei.monitoring.run_events import ledger_of
from tests.conftest import MakeConfig

NVML = str(Path(__file__).parent.parent / "support" / "nvml")
TIMEOUT = 30.0

PROGRAM = """
import sys, time
import keisei

config = keisei.load_config(overrides={
    "logging": {"log_dir": sys.argv[1]}, "monitoring": {"interval": 0.2}})
with keisei.SessionManager(config, run_name="r") as session:
    session.log_metrics({"loss": 1.0}, 1)
    while True:
        time.sleep(0.1)
"""


@pytest.fixture(autouse=True)
def _measured(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("KEISEI_RESOURCES", "on")
    monkeypatch.syspath_prepend(NVML)
    monkeypatch.delenv("CUDA_VISIBLE_DEVICES", raising=False)


def _await(holds: Callable[[], Any]) -> Any:
    give_up = time.monotonic() + TIMEOUT
    while not (found := holds()):
        assert time.monotonic() < give_up
        time.sleep(0.05)
    return found


@pytest.mark.requirement("MON-1")
async def test_a_session_logs_what_it_uses(make_config: MakeConfig) -> None:
    """Rows `system/...` come while it runs, and what was used in all at its end."""
    async with AsyncSessionManager(make_config(monitoring={"interval": 0.2})) as session:
        session.log_metrics({"loss": 0.5}, 1)
        with anyio.fail_after(TIMEOUT):
            while session.get_session_summary().get("resources", {}).get("samples", 0) < 4:
                await anyio.sleep(0.05)
        directory = session.run_artifact_dir
        summary = session.get_session_summary()["resources"]
    assert (summary["gpus"], summary["nodes"]) == (8, 1)
    await anyio.to_thread.run_sync(_check_journal, directory)


def _check_journal(directory: str) -> None:
    run = read_run(directory)
    assert [row.values for row in run.rows()] == [{"loss": 0.5}]
    rows = [row for row in run.rows(system=True) if "loss" not in row.values]
    assert len(rows) >= 3
    assert {row.step for row in rows} == {None}
    assert rows[-1].values["system/gpu.7.load"] == 87
    assert rows[-1].values["system/run_bytes"] > 0
    assert rows[-1].values["system/energy_joules"] > 0
    used = [event.data for event in run.events() if event.name == "usage.resources"]
    assert isinstance(used[-1], dict)
    assert used[-1]["peaks"]["gpu.3.temperature_celsius"] == 61
    assert used[-1]["energy_j"] == pytest.approx(sum(used[-1]["energy"].values()), abs=0.1)
    assert used[-1]["means"]["gpu.0.load"] == 87


def test_a_session_that_is_over_at_once_measures_nothing(make_config: MakeConfig) -> None:
    """It starts no process, and its journal and summary are as without."""
    with SessionManager(make_config()) as session:
        session.log_metrics({"loss": 1.0}, 1)
    assert "resources" not in session.get_session_summary()
    run = read_run(session.run_artifact_dir)
    assert len(list(run.rows(system=True))) == 1
    assert "usage.resources" not in [event.name for event in run.events()]


@pytest.mark.parametrize("by", ["config", "variable"])
def test_it_can_be_switched_off(
    make_config: MakeConfig, monkeypatch: pytest.MonkeyPatch, by: str
) -> None:
    """By the config, or by KEISEI_RESOURCES before it."""
    if by == "variable":
        monkeypatch.setenv("KEISEI_RESOURCES", "off")
    else:
        monkeypatch.delenv("KEISEI_RESOURCES")
    config = make_config(monitoring={"resources": by == "variable"})
    with SessionManager(config) as session:
        from keisei.monitoring import sampling

        assert sampling._current is None or not sampling._current.subscribers
        assert "resources" not in session.get_session_summary()


def test_a_killed_program_takes_its_sampler_along_and_is_shown(tmp_path: Path) -> None:
    """SIGKILL ends the sampler within seconds, and the rows tell what was used until then."""
    root = tmp_path / "runs"
    environ = {**os.environ, "PYTHONPATH": NVML}
    program = subprocess.Popen([sys.executable, "-c", PROGRAM, str(root)], env=environ)
    try:

        def sampled() -> bool:
            if not (root / "r").is_dir():
                return False
            rows = list(read_run(root / "r").rows(system=True))
            return any("system/gpu.0.load" in row.values for row in rows)

        _await(sampled)
        samplers = psutil.Process(program.pid).children()
        assert samplers
    finally:
        os.kill(program.pid, signal.SIGKILL)
        program.wait()
    killed = time.monotonic()
    _await(lambda: not any(process.is_running() for process in samplers))
    print(f"the sampler was gone {time.monotonic() - killed:.2f} s after the program")
    runner = CliRunner()
    shown = runner.invoke(app, ["tail", "r", "--root", str(root), "--no-follow", "--metrics"])
    assert "system/" not in shown.output
    assert "loss" in shown.output
    shown = runner.invoke(
        app, ["tail", "r", "--root", str(root), "--no-follow", "--metrics", "--system"]
    )
    assert "system/gpu.0.load" in shown.output
    drawn = runner.invoke(app, ["plot", "r", "--root", str(root)])
    assert "system/" not in drawn.output
    drawn = runner.invoke(app, ["plot", "r", "system/memory_host", "--root", str(root)])
    assert "system/memory_host" in drawn.output, drawn.output


def test_show_says_what_a_run_has_used(make_config: MakeConfig) -> None:
    """Peaks, means, GPUs and energy stand below the run, and in `--json`."""
    config = make_config(monitoring={"interval": 0.2})
    with SessionManager(config, run_name="r") as session:
        _await(lambda: session.get_session_summary().get("resources", {}).get("samples", 0) >= 3)
    root = str(Path(session.run_artifact_dir).parent)
    shown = CliRunner().invoke(app, ["show", "r", "--root", root])
    assert shown.exit_code == 0, shown.output
    for text in ("gpu.*.power_watts", "250 W", "8 GPUs", "kWh measured", "1 node"):
        assert text in shown.output
    as_json = CliRunner().invoke(app, ["show", "r", "--root", root, "--json"])
    assert '"energy_j": ' in as_json.output


@pytest.mark.requirement("COST-1")
def test_what_was_drawn_has_its_price(make_config: MakeConfig) -> None:
    """The last sample counts in the summary too, which equals what the journal comes to later."""
    config = make_config(monitoring={"interval": 0.2}, cost={"kwh": 0.4, "gpu_hour": 2.0})
    with SessionManager(config, run_name="r") as session:
        _await(lambda: session.get_session_summary().get("resources", {}).get("samples", 0) >= 3)
        live = session.get_session_summary()["cost"]
        assert live["energy_kwh"] > 0
    summary = session.get_session_summary()
    assert summary["cost"]["energy_kwh"] == pytest.approx(
        summary["resources"]["energy_j"] / 3.6e6, abs=1e-9
    )
    assert summary["cost"]["lines"] == ledger_of(session.run_artifact_dir).as_data()["lines"]
    assert {line["what"] for line in summary["cost"]["lines"]} == {"kWh", "GPU hours"}
    [*_, last] = [x for x in read_run(session.run_artifact_dir).events() if x.name == "usage.cost"]
    assert isinstance(last.data, dict)
    assert last.data["run"] == summary["cost"]["totals"]


@pytest.mark.requirement("COST-2")
def test_energy_has_a_budget(make_config: MakeConfig) -> None:
    """It is looked at as it is measured, and not as often as it is logged."""
    config = make_config(monitoring={"interval": 0.2}, budget={"energy_kwh": 1e-4})
    session = SessionManager(config, run_name="r")
    with pytest.raises(RunCancelledError, match="energy_kwh"), session:
        began = time.monotonic()
        while time.monotonic() - began < TIMEOUT:
            session.log_metrics({"x": 1.0})
            time.sleep(0.01)
    assert session.status == "cancelled"
