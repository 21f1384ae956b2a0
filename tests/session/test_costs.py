"""What a session spends: logged, priced, carried over attempts, and held by a budget."""

from __future__ import annotations

import json
import subprocess
import sys
import time
from decimal import Decimal
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import anyio
import pytest

from keisei import (
    AppConfig,
    AsyncSessionManager,
    ConfigError,
    RunCancelledError,
    SessionManager,
    SessionMember,
    load_config,
)
from keisei.monitoring import prices
from keisei.monitoring.run_events import ledger_of
from keisei.session import costs
from tests.conftest import MakeConfig


@pytest.fixture
def config(make_config: MakeConfig) -> AppConfig:
    return make_config(budget={"money": 0.5})


@pytest.fixture
def one_table(monkeypatch: pytest.MonkeyPatch) -> None:
    """Put a table of one price in the place of the installed one: a cent for each input token."""

    def calc_price(used: dict[str, int], model: str, **about: Any) -> SimpleNamespace:
        if model != "known":
            raise LookupError(model)
        assert about["genai_request_timestamp"].tzinfo is not None
        total = Decimal(used["input_tokens"]) / 100
        return SimpleNamespace(total_price=total, auto_update_timestamp=None)

    table = SimpleNamespace(__version__="7", calc_price=calc_price, Usage=dict)
    monkeypatch.setattr(prices, "_package", table)


def events_of(session: Any, name: str) -> list[Any]:
    from keisei.journal.reader import read_run

    return [x.data for x in read_run(session.run_artifact_dir).events() if x.name == name]


@pytest.mark.requirement("COST-1")
def test_attempts_and_members_are_one_ledger(make_config: MakeConfig, one_table: None) -> None:
    """What two attempts and a member have spent is the sum by hand, each currency apart."""
    for _ in range(2):
        with SessionManager(make_config(), run_name="r") as session:
            session.log_cost(0.1, "api")
            session.log_cost("0.20", "api")
            session.log_cost(3, "rent", "EUR")
            session.log_tokens("known", 7, 1)
            session.log_tokens("nobody's", 5, 1)
            with SessionMember(session.handle(), role="judge") as member:
                member.log_cost(Decimal("0.07"), "api")
                member.log_tokens("known", 3, 0)
    found = ledger_of(session.run_artifact_dir)
    assert found.totals == {"USD": 2 * Decimal("0.47"), "EUR": Decimal(6)}
    assert found.unpriced == ("nobody's: 10 input, 2 output tokens in 2 calls",)
    tokens = next(line for line in found.lines if line.kind == "tokens")
    assert tokens.prices == ("genai-prices 7",)
    summary = session.get_session_summary()["cost"]
    assert summary["totals"] == {"EUR": "6", "USD": "0.94"}
    json.dumps(summary)


def test_what_costs_nothing_says_nothing(make_config: MakeConfig) -> None:
    """Without a price, a budget or an amount there is no event, and the summary has none."""
    with SessionManager(make_config(), run_name="r") as session:
        session.log_metrics({"x": 1.0})
        assert session.get_session_summary()["cost"] is None
    assert events_of(session, "usage.cost") == []
    assert ledger_of(session.run_artifact_dir).in_short() == {}


@pytest.mark.parametrize("amount", [-1, float("nan"), float("inf"), "x"])
def test_what_is_no_amount_is_refused(make_config: MakeConfig, amount: object) -> None:
    """It raises, nothing is logged, and the run goes on."""
    with SessionManager(make_config(), run_name="r") as session:
        with pytest.raises(ValueError, match="amount"):
            session.log_cost(amount, "api")
        with pytest.raises(ValueError, match="currency"):
            session.log_cost(1, "api", "dollars")
        with pytest.raises(ValueError, match="cached"):
            session.log_tokens("m", 1, 1, cached_input=2)
        with pytest.raises(TypeError, match="output"):
            session.log_tokens("m", 1, 1.5)  # type: ignore[arg-type]
        with pytest.raises(TypeError, match="what"):
            session.log_cost(1, "")
    assert session.status == "completed"
    assert events_of(session, "cost") == []


@pytest.mark.parametrize(
    "bad",
    [
        {"cost": {"node_hour": -1}},
        {"cost": {"kwh": float("nan")}},
        {"cost": {"currency": "USD,EUR"}},
        {"cost": {"gpus": -1}},
        {"budget": {"money": 0}},
        {"budget": {"hours": float("inf")}},
        {"budget": {"warn_at": 1.5}},
    ],
)
def test_prices_and_limits_that_make_no_sense_are_refused(bad: dict[str, Any]) -> None:
    """The config's check names the field."""
    with pytest.raises(ConfigError, match="cost|budget"):
        load_config(overrides=bad)


@pytest.mark.requirement("COST-1")
async def test_the_table_is_imported_on_no_loop(
    make_config: MakeConfig, monkeypatch: pytest.MonkeyPatch, one_table: None
) -> None:
    """What is logged before it is there is logged at once, and again with its price."""
    import threading

    table, asked_on = prices._package, []

    def load() -> None:
        asked_on.append(threading.current_thread())
        prices._package = table

    monkeypatch.setattr(prices, "_package", None)
    monkeypatch.setattr(prices, "load", load)
    async with AsyncSessionManager(make_config(), run_name="r") as session:
        session.log_tokens("known", 4, 0)
    assert asked_on
    assert threading.main_thread() not in asked_on
    found = await anyio.to_thread.run_sync(ledger_of, session.run_artifact_dir)
    assert (found.totals, found.unpriced) == ({"USD": Decimal("0.04")}, ())


def test_without_the_package_tokens_are_unpriced(
    make_config: MakeConfig, monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    """They are counted, and one warning names the extra."""
    monkeypatch.setattr(prices, "_package", None)
    monkeypatch.setattr(prices, "_is_missing", False)
    monkeypatch.setitem(sys.modules, "genai_prices", None)
    with SessionManager(make_config(), run_name="r") as session:
        session.log_tokens("m", 1, 1)
        session.log_tokens("m", 1, 1)
    assert caplog.text.count("keisei[cost]") == 1
    assert "2 calls" in ledger_of(session.run_artifact_dir).unpriced[0]
    monkeypatch.setattr(prices, "_is_missing", False)


def test_the_installed_table_prices_tokens() -> None:
    """A model that everybody knows has a price, and its version; one that nobody knows has none."""
    pytest.importorskip("genai_prices", reason="the extra keisei[cost] is not installed")
    prices.load()
    counts = {"input": 1000, "output": 100, "cached_input": 10, "reasoning": 5}
    found = prices.price_of("gpt-4o", counts, None, time.time())
    assert found is not None
    assert found.amount > 0
    assert found.table.startswith("genai-prices ")
    assert prices.price_of("no-such-model-7", counts, None, time.time()) is None


@pytest.mark.requirement("COST-2")
async def test_a_budget_cancels_the_body(config: AppConfig, caplog: Any) -> None:
    """It warns once at 80 %, and the call that spends the rest ends the run, on each loop."""
    session, calls = AsyncSessionManager(config, run_name="r"), 0
    with pytest.raises(RunCancelledError, match="budget: 0.54 of 0.50 USD"):
        async with session:
            while True:
                calls += 1
                session.log_cost("0.09", "api")
                await anyio.sleep(0.01)
    assert calls == 6
    assert session.status == "cancelled"
    failure = session.get_session_summary()["failure"]
    assert failure["message"] == "budget: 0.54 of 0.50 USD (raise budget.money to go on)"
    assert caplog.text.count("of its budget") == 1
    events = await anyio.to_thread.run_sync(events_of, session, "budget")
    said = [(x["field"], x["ends"]) for x in events]
    assert said == [("budget.money", False), ("budget.money", True)]
    await anyio.sleep(0)


@pytest.mark.requirement("COST-2")
def test_a_budget_ends_a_burst_at_the_call(config: AppConfig) -> None:
    """On the blocking face the call itself raises: a burst exceeds it by one call, no more."""
    session = SessionManager(config, run_name="r")
    with pytest.raises(RunCancelledError), session:
        for _ in range(1000):
            session.log_cost("0.3", "api")
    assert session.get_session_summary()["cost"]["total"] == "0.6"
    assert session.status == "cancelled"


@pytest.mark.requirement("COST-2")
def test_a_spent_budget_ends_the_next_attempt_at_once(config: AppConfig) -> None:
    """All attempts count, and the message names the field to raise; once raised, it goes on."""
    with pytest.raises(RunCancelledError), SessionManager(config, run_name="r") as session:
        session.log_cost(1, "api")
        session.log_cost(1, "api")
    began = time.monotonic()
    session = SessionManager(config, run_name="r")
    with pytest.raises(RunCancelledError, match=r"raise budget\.money"), session:
        while time.monotonic() - began < 60:
            session.log_metrics({"x": 1.0})
            time.sleep(0.01)
    assert session.status == "cancelled"
    config.budget.money = 5.0
    with SessionManager(config, run_name="r") as session:
        session.log_cost(1, "api")
    assert session.status == "completed"
    assert session.get_session_summary()["cost"]["total"] == "2"


@pytest.mark.requirement("COST-2")
@pytest.mark.parametrize("asynchronous", [False, True])
def test_it_is_saved_before_it_ends(config: AppConfig, *, asynchronous: bool) -> None:
    """With a policy the body goes on to its next safe point, which is saved."""
    steps: list[int] = []

    def block() -> None:
        with SessionManager(config, run_name="r") as session:
            session.setup_auto_checkpointing(10**6, state={"x": 1})
            for step in range(1000):
                session.log_cost("0.3", "api")
                steps.append(step)
                session.checkpoint_if_due(step)

    async def body() -> None:
        async with AsyncSessionManager(config, run_name="r") as session:
            session.setup_auto_checkpointing(10**6, state={"x": 1})
            for step in range(1000):
                session.log_cost("0.3", "api")
                steps.append(step)
                await session.checkpoint_if_due(step)

    with pytest.raises(RunCancelledError):
        anyio.run(body) if asynchronous else block()
    assert steps == [0, 1]
    run = Path(str(config.logging.log_dir)) / "r"
    assert (run / "models" / "checkpoint_1.ckpt").is_dir()
    assert json.loads((run / "session.json").read_text())["status"] == "cancelled"


def test_who_goes_on_spending_does_not_reach_the_safe_point(config: AppConfig) -> None:
    """A second call beyond the budget ends the body at once; the last safe point is saved."""
    session = SessionManager(config, run_name="r")
    with pytest.raises(RunCancelledError), session:
        session.setup_auto_checkpointing(10**6, state={"x": 1})
        session.checkpoint_if_due(7)
        for _ in range(1000):
            session.log_cost("0.3", "api")
    assert session.get_session_summary()["cost"]["total"] == "0.9"
    assert (Path(session.model_dir) / "checkpoint_7.ckpt").is_dir()


@pytest.mark.requirement("COST-2")
async def test_time_alone_exceeds_it_by_less_than_an_interval(make_config: MakeConfig) -> None:
    """It is looked at exactly when the price of the time reaches the limit."""
    config = make_config(cost={"node_hour": 3600.0}, budget={"money": 0.4})
    session = AsyncSessionManager(config, run_name="r")
    with pytest.raises(RunCancelledError):
        async with session:
            while True:  # without a scope a body on trio is told by its next call
                await anyio.sleep(0.01)
    spent = float(session.get_session_summary()["cost"]["total"])
    assert 0.4 <= spent < 0.4 + costs.INTERVAL


async def test_a_clock_that_is_set_spends_no_budget(
    make_config: MakeConfig, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Three days that only the wall clock has seen cost nothing, and end no run."""
    wall, ahead = time.time, 0.0
    monkeypatch.setattr("keisei.session.costs.time.time", lambda: wall() + ahead)
    config = make_config(cost={"node_hour": 3.6}, budget={"money": 5.0, "hours": 10.0})
    async with AsyncSessionManager(config, run_name="r") as session:
        ahead = 3 * 86400.0
        session.log_cost("0.1", "api")  # which looks at the budget
        assert float(session.get_session_summary()["cost"]["total"]) < 1
    assert session.status == "completed"


def test_a_budget_says_what_it_does_not_count(make_config: MakeConfig, caplog: Any) -> None:
    """Amounts of another currency are no part of it, and one warning says so."""
    config = make_config(cost={"currency": "EUR"}, budget={"money": 5.0})
    with SessionManager(config, run_name="r") as session:
        for _ in range(3):
            session.log_cost("9", "api", "USD")
    assert session.status == "completed"
    [said] = [x.getMessage() for x in caplog.records if "does not count" in x.getMessage()]
    assert "budget.money does not count what is spent in USD: it is in EUR" in said


def test_hours_are_those_of_all_attempts(make_config: MakeConfig) -> None:
    """A budget of hours needs no price."""
    config = make_config(budget={"hours": 0.2 / 3600})
    for _ in range(2):
        session = SessionManager(config, run_name="r")
        with pytest.raises(RunCancelledError, match="h "), session:
            for _ in range(6000):
                session.log_metrics({"x": 1.0})
                time.sleep(0.01)
    assert session.get_session_summary()["attempt"] == 2


PROGRAM = """
import os, signal, sys
from keisei import SessionManager, load_config
config = load_config(overrides={
    "logging": {"log_dir": sys.argv[1]}, "cost": {"node_hour": 36.0}})
with SessionManager(config, run_name="r") as session:
    for _ in range(100):
        session.log_cost("0.01", "api")
    session.flush()
    os.kill(os.getpid(), signal.SIGKILL)
"""


@pytest.mark.requirement("COST-1")
def test_what_a_killed_process_has_spent_counts(tmp_path: Path, make_config: MakeConfig) -> None:
    """Its amounts are in the journal, and its node was its own until its last record."""
    command = [sys.executable, "-c", PROGRAM, str(tmp_path / "runs")]
    assert subprocess.run(command, timeout=120).returncode == -9
    found = ledger_of(str(tmp_path / "runs" / "r"))
    lines = {line.kind: line for line in found.lines}
    assert lines["cost"].amount == 1
    assert 0 <= lines["node"].amount < 1
    with SessionManager(make_config(), run_name="r") as session:
        session.log_cost(1, "api")
    assert session.get_session_summary()["attempt"] == 2
    totals = session.get_session_summary()["cost"]["totals"]
    assert Decimal(totals["USD"]) == 2 + lines["node"].amount
