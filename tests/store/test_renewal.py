"""A run's owner has a lease as long as it lives, whatever its loop and the database do."""

from __future__ import annotations

import json
import logging
import socket
import threading
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import anyio
import pytest
import sqlalchemy as sa

from keisei import AsyncSessionManager, SessionInUseError, SessionManager, TakenOverError
from keisei._io import process
from keisei.run.lease import Holder
from keisei.store import clock, kept_lease, leases, renewal, schema
from keisei.store.database import Database
from tests.conftest import MakeConfig
from tests.support.postgres import stopped
from tests.support.storms import repetitions

OTHER = Holder("node-2", 22, "started", 1)
LONG = 3600.0  # seconds
TIMEOUT = 30.0  # seconds for what happens elsewhere


@pytest.fixture
def database(url: str) -> Iterator[Database]:
    """The registry, empty."""
    with Database(url) as opened:
        yield opened


@pytest.fixture
def configured(make_config: MakeConfig, url: str) -> Callable[..., Any]:
    """Makes a config with the registry."""

    def make(ttl: float = LONG, **logging: object) -> Any:
        return make_config(registry={"url": url, "lease": ttl}, logging=logging)

    return make


def row(database: Database) -> Any:
    """Return the only lease, with whether its time is over."""
    over = (schema.leases.c.expires < clock.now()).label("over")
    with database.reading() as connection:
        return connection.execute(sa.select(schema.leases, over)).one()


def until(true: Callable[[], object]) -> None:
    """Wait until something is true."""
    deadline = time.monotonic() + TIMEOUT
    while not true():
        assert time.monotonic() < deadline
        time.sleep(0.01)


def end_time(database: Database) -> None:
    """Let the time of all leases be over."""
    with database.writing() as connection:
        connection.execute(sa.update(schema.leases).values(expires=clock.now() - 1.0))


@contextmanager
def outage(database: Database) -> Iterator[None]:
    """Have the database refuse whatever concerns leases, for a `with` block."""
    rename = "ALTER TABLE keisei_leases{} RENAME TO keisei_leases{}"
    with database.writing() as connection:
        connection.execute(sa.text(rename.format("", "_gone")))
    yield
    with database.writing() as connection:
        connection.execute(sa.text(rename.format("_gone", "")))


def record(session: SessionManager[Any] | AsyncSessionManager[Any]) -> Any:
    """Return what the session file says."""
    return json.loads(Path(session.run_artifact_dir, "session.json").read_text())


@pytest.mark.requirement("REG-3")
def test_a_session_has_a_lease_from_its_claim_to_its_end(
    configured: Callable[..., Any], database: Database
) -> None:
    """The session file says which; the next attempt has the next epoch."""
    for attempt in (1, 2):
        with SessionManager(configured(), run_name="r") as session:
            found = row(database)
            owner = json.loads(found.owner)
            assert (owner["attempt"], found.epoch, found.released) == (attempt, attempt, 0)
            wanted = {"epoch": attempt, "ttl": LONG, "registry": database.registry}
            assert record(session)["lease"] == wanted
        until(lambda: row(database).released)


def test_a_run_whose_lease_another_one_has_is_in_use(
    configured: Callable[..., Any], database: Database
) -> None:
    """The error names who; `number` takes the next number."""
    with SessionManager(configured(), run_name="r") as session:
        pass
    until(lambda: row(database).released)
    with database.writing() as connection:
        leases.acquire(connection, session.session_id, OTHER, LONG)
    path = Path(session.run_artifact_dir, "session.json")
    before = path.read_text()
    # What it has written is not to be seen here yet: its own session file is an older one.
    path.write_text(before.replace('"completed"', '"failed"'))
    with pytest.raises(SessionInUseError, match="process 22 on host 'node-2'"):
        SessionManager(configured(), run_name="r").setup_directories()
    with SessionManager(configured(if_exists="number"), run_name="r") as other:
        assert other.run_name == "r-2"
    assert leases_of(database, session.session_id) == OTHER


def leases_of(database: Database, session_id: str) -> Holder | None:
    """Return who has a run's lease."""
    with database.reading() as connection:
        return leases.holder(connection, session_id)


@pytest.mark.requirement("REG-3")
async def test_a_run_is_taken_over_when_its_lease_is_over(
    configured: Callable[..., Any], database: Database
) -> None:
    """Although its owner's process lives, and holds the directory; that one ends as failed."""
    first = AsyncSessionManager(configured(), run_name="r")
    second = AsyncSessionManager(configured(), run_name="r")
    with pytest.raises(TakenOverError, match="as attempt 2"):
        async with first:
            first.log_metrics({"loss": 1.0}, step=1)
            await first.flush()
            with pytest.raises(SessionInUseError):
                await AsyncSessionManager(configured(), run_name="r").setup_directories()
            await anyio.to_thread.run_sync(end_time, database)
            refusing = AsyncSessionManager(configured(if_exists="refuse"), run_name="r")
            with pytest.raises(SessionInUseError):
                await refusing.setup_directories()
            async with second:
                assert second.get_session_summary()["attempt"] == 2
                first.log_metrics({"loss": 2.0}, step=2)
            await anyio.sleep(TIMEOUT)
    assert (first.status, second.status) == ("failed", "completed")
    assert record(second)["attempt"] == 2


@pytest.mark.requirement("REG-3")
async def test_an_idle_owner_learns_it_by_its_renewal(
    configured: Callable[..., Any], database: Database
) -> None:
    """The database says that the lease is another's, and the body is cancelled."""
    session = AsyncSessionManager(configured(1.0), run_name="r")
    with pytest.raises(TakenOverError, match="process 22 on host node-2 .* as attempt 2"):
        async with session:
            await anyio.to_thread.run_sync(steal, database, session.session_id)
            await anyio.sleep(TIMEOUT)
    assert session.status == "failed"


def steal(database: Database, session_id: str) -> None:
    """Take a run's lease over."""
    with database.writing() as connection:
        connection.execute(sa.update(schema.leases).values(expires=clock.now() - 1.0))
        got = leases.acquire(connection, session_id, OTHER._replace(attempt=2), LONG)
        assert isinstance(got, int)


@pytest.mark.parametrize(
    "held", [2.5, pytest.param(float(repetitions(120)), marks=pytest.mark.storm)]
)
def test_a_loop_that_is_held_loses_no_lease(
    configured: Callable[..., Any], database: Database, held: float
) -> None:
    """A thread renews it."""

    ends: list[bool] = []
    over = threading.Event()

    def look() -> None:
        while not over.wait(0.05):
            ends.append(row(database).over)

    async def hold() -> None:
        async with AsyncSessionManager(configured(1.0), run_name="r"):
            looks = threading.Thread(target=look)
            looks.start()
            end = time.monotonic() + held
            while time.monotonic() < end:
                pass
            over.set()
            looks.join()

    anyio.run(hold)
    assert ends
    assert not any(ends)


def test_an_outage_stops_no_training(
    configured: Callable[..., Any], database: Database, caplog: pytest.LogCaptureFixture
) -> None:
    """It is one warning; when the database is back the lease is renewed, however late."""
    caplog.set_level(logging.INFO)
    with SessionManager(configured(1.0), run_name="r") as session:
        epoch = row(database).epoch
        with outage(database):
            until(lambda: "does not answer" in caplog.text)
            session.log_metrics({"loss": 1.0}, step=1)
            session.flush()
            time.sleep(0.5)
        until(lambda: "leases are renewed" in caplog.text)
        assert (row(database).epoch, row(database).over) == (epoch, False)
    assert session.status == "completed"
    assert caplog.text.count("does not answer") == 1


def test_a_lease_that_is_missed_at_the_start_follows(
    configured: Callable[..., Any], database: Database, caplog: pytest.LogCaptureFixture
) -> None:
    """With the session file; the rules without a registry hold meanwhile."""
    with outage(database):
        session = SessionManager(configured(1.0), run_name="r")
        session.setup_directories()
        assert record(session)["lease"] is None
        with pytest.raises(SessionInUseError, match="logging.owner_timeout"):
            SessionManager(configured(1.0), run_name="r").setup_directories()
    until(lambda: record(session)["lease"] is not None)
    assert row(database).epoch == record(session)["lease"]["epoch"]
    session.finalize_session()
    assert caplog.text.count("does not answer") == 1


def test_a_registry_that_hangs_is_waited_for_shortly(
    make_config: MakeConfig, monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    """Once: the next start of the process does not wait for it again."""
    monkeypatch.setattr(renewal, "ENTRY_TIMEOUT", 0.2)
    with socket.create_server(("127.0.0.1", 0)) as silent:
        url = f"postgresql://user:secret@127.0.0.1:{silent.getsockname()[1]}/runs"
        config = make_config(registry={"url": url})
        for name in ("a", "b"):
            session = SessionManager(config, run_name=name)
            session.setup_directories()
            assert record(session)["lease"] is None
            session.finalize_session()
    assert caplog.text.count("does not answer") == 1
    assert "secret" not in caplog.text


@contextmanager
def hanging(url: str) -> Iterator[None]:
    """Have a registry answer nothing, for a `with` block."""
    if url.startswith("postgresql"):
        with stopped(url):
            yield
        return
    with Database(url) as database, database.writing():  # others wait for this one
        yield


def test_a_renewal_that_hangs_is_waited_for_once(
    make_config: MakeConfig,
    url: str,
    monkeypatch: pytest.MonkeyPatch,
    caplog: pytest.LogCaptureFixture,
) -> None:
    """However many writes come while the registry does not answer: the first one says it."""
    monkeypatch.setattr(renewal, "CONFIRM_TIMEOUT", 0.2)
    monkeypatch.setattr(renewal, "QUIET", 0.0)
    session = SessionManager(make_config(registry={"url": url, "lease": 1.0}), run_name="r")
    session.setup_directories()
    with hanging(url):
        until(lambda: session.save_checkpoint({"step": 1}, 1) and "does not answer" in caplog.text)
        waits: list[float] = []
        monkeypatch.setattr(
            renewal.Keeper, "_is_away", lambda keeper, reason: waits.append(time.monotonic())
        )
        for step in range(2, 6):
            session.save_checkpoint({"step": step}, step)
        assert not waits
        session.finalize_session()
    assert session.status == "completed"
    assert caplog.text.count("does not answer") == 1


def test_after_a_gap_an_owner_asks_before_it_writes(
    configured: Callable[..., Any], database: Database, monkeypatch: pytest.MonkeyPatch
) -> None:
    """The machine was suspended for longer than the lease lasts, and the run was taken over."""
    session = SessionManager(configured(), run_name="r")
    session.setup_directories()
    session.log_metrics({"loss": 1.0}, step=1)
    session.flush()
    journal = Path(session.run_artifact_dir, "metrics.1.journal")
    before = journal.read_bytes(), record(session)
    steal(database, session.session_id)
    for module in (kept_lease, renewal):
        monkeypatch.setattr(module, "since_boot", lambda: process.since_boot() + 2 * LONG)
    with pytest.raises(TakenOverError):
        session.save_checkpoint({"step": 1}, 1)
    with pytest.raises(TakenOverError):
        until(lambda: session.log_metrics({"loss": 2.0}, step=2))
    session.finalize_session()
    assert (journal.read_bytes(), record(session)) == before
