"""A takeover that does not come to its end can be made again, at once, and by anybody."""

from __future__ import annotations

import os
import warnings
from collections.abc import Callable, Iterator
from contextlib import suppress
from itertools import count
from pathlib import Path
from typing import Any

import pytest
import sqlalchemy as sa

from keisei import SessionInUseError, SessionManager
from keisei.journal.reader import read_run
from keisei.run.lease import Holder
from keisei.run.session_file import Lease
from keisei.store import clock, leases, schema
from keisei.store.database import Database
from keisei.store.kept_lease import KeptLease
from keisei.store.renewal import Keeper
from tests.conftest import MakeConfig
from tests.support.file_faults import FileFaults, fast_place
from tests.support.storms import repetitions

OTHER = Holder("node-2", 22, "started", 2)
LONG = 3600.0  # seconds

pytestmark = pytest.mark.skipif(os.name == "nt", reason="Windows has no fork")


@pytest.fixture
def database(url: str) -> Iterator[Database]:
    """The registry, empty."""
    with Database(url) as opened:
        yield opened


@pytest.fixture
def configured(make_config: MakeConfig, url: str) -> Callable[..., Any]:
    """Makes a config with the registry."""

    def make(**logging: object) -> Any:
        return make_config(registry={"url": url, "lease": LONG}, logging=logging)

    return make


def end_time(database: Database) -> None:
    """Let the time of all leases be over."""
    with database.writing() as connection:
        connection.execute(sa.update(schema.leases).values(expires=clock.now() - 1.0))


def owner_of(config: Any) -> SessionManager[Any]:
    """Start a run, and write something."""
    session = SessionManager(config, run_name="r")
    session.setup_directories()
    session.save_effective_config()
    session.log_metrics({"loss": 1.0}, step=1)
    session.flush()
    return session


def test_a_lease_that_a_failed_takeover_has_released_is_over(
    configured: Callable[..., Any], database: Database
) -> None:
    """Its first owner has lost it, although it lives: the next start need not wait for its end."""
    first = owner_of(configured())
    end_time(database)
    with database.writing() as connection:
        epoch = leases.acquire(connection, first.session_id, OTHER, LONG)
        assert epoch == 2
    with pytest.raises(SessionInUseError, match="process 22 on host 'node-2'"):
        SessionManager(configured(), run_name="r").setup_directories()
    with database.writing() as connection:
        leases.release(connection, first.session_id, OTHER, 2)
    second = SessionManager(configured(), run_name="r")
    second.setup_directories()
    assert second.get_session_summary()["attempt"] == 2
    for session in (first, second):
        session.finalize_session()
    assert (first.status, second.status) == ("failed", "completed")


def test_a_takeover_whose_transaction_is_undone_has_taken_nothing(database: Database) -> None:
    """What the registry has not committed it has not said."""
    over = Lease(epoch=1, ttl=LONG, registry=database.registry)
    with database.writing() as connection:
        leases.acquire(connection, "r", OTHER, -1.0)
    held = KeptLease(Keeper("sqlite:///unused"), "r", OTHER._replace(attempt=3), LONG, None, 2)
    with suppress(KeyError), database.writing() as connection:
        assert held.acquired_in(connection, over, database.registry) == 2
        raise KeyError
    assert (held.was_over, held.lease) == (False, None)


def killed_before(number: int, config: Any) -> bool:
    """Take the run over in a child, that dies before its n-th file operation; whether it died."""
    with warnings.catch_warnings():
        warnings.simplefilter("ignore", DeprecationWarning)  # fork beside threads, on 3.12+
        pid = os.fork()
    if pid == 0:
        status = 1
        try:
            FileFaults(die_before=number).install()
            SessionManager(config, run_name="r").setup_directories()
            status = 0
        finally:
            os._exit(status)
    _, ended = os.waitpid(pid, 0)
    assert os.WIFSIGNALED(ended) or ended == 0
    return os.WIFSIGNALED(ended)


def content(run: Path) -> dict[str, bytes]:
    """Return what keisei's own files hold."""
    paths = [path for path in run.rglob("*") if path.is_file() and not path.is_symlink()]
    names = {str(path.relative_to(run)): path for path in paths}
    return {n: p.read_bytes() for n, p in names.items() if not n.startswith(("tracker.", ".tra"))}


def write_everything(session: SessionManager[Any]) -> None:
    """Write in each way; what is refused is left out."""
    for call in (
        session.save_effective_config,
        lambda: session.log_metrics({"loss": 2.0}, step=2),
        session.flush,
        lambda: session.log_evaluation({"score": 2.0}, step=2),
        lambda: session.save_checkpoint({"step": 2}, 2),
        session.finalize_session,
    ):
        with suppress(OSError, RuntimeError):
            call()


@pytest.mark.requirement("REG-3")
@pytest.mark.parametrize(
    "every", [12, pytest.param(60 // repetitions(60), marks=pytest.mark.storm)]
)
def test_a_takeover_that_is_killed_at_any_file_operation_is_made_again(
    make_config: MakeConfig, tmp_path: Path, every: int
) -> None:
    """By the next start, which waits for nothing; the first owner, alive all the time, has lost."""
    with fast_place(tmp_path) as place:
        for number in count(1, every):
            root = place / str(number)
            registry = {"url": f"sqlite:///{root}.db", "lease": LONG}
            config = make_config(registry=registry, logging={"log_dir": str(root)})
            first = owner_of(config)
            with Database(registry["url"]) as database:  # type: ignore[arg-type]
                end_time(database)
            killed = killed_before(number, config)
            second = SessionManager(config, run_name="r")
            second.setup_directories()
            assert second.get_session_summary()["attempt"] in (2, 3), number
            second.log_metrics({"loss": 3.0}, step=3)
            second.flush()
            run = Path(second.run_artifact_dir)
            before = content(run)
            assert not [name for name in before if name.endswith(".tmp")], number
            write_everything(first)
            assert content(run) == before, number
            assert [row.step for row in read_run(run).rows()] == [1, 3]
            assert second.finalize_session() == "completed"
            assert first.status == "failed"
            if not killed:
                break
    print(f"takeovers killed before each of {number - 1} file operations, in steps of {every}")
    assert number > 60
