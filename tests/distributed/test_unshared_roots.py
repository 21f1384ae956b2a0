"""Ranks that do not share a root come to one run by the registry, where they see its directory."""

from __future__ import annotations

import logging
import pickle
from collections.abc import Callable
from pathlib import Path

import anyio
import anyio.to_thread
import pytest

from keisei import AsyncSessionManager, RunNotSeenError, SessionInUseError
from keisei._version import __version__
from keisei.config.schema import AppConfig
from keisei.distributed.agreement_file import Agreement, file_name
from keisei.journal.reader import read_run
from keisei.run.lease import Holder
from keisei.run.session_file import Owner
from keisei.store.launches import LaunchRow
from keisei.store.renewal import Leases
from tests.conftest import MakeConfig

pytestmark = pytest.mark.anyio

ELSEWHERE = Owner(host="node-7", pid=12, process_start="elsewhere")
SESSION_ID = "01J0000000000000000000000A"
MakeRank = Callable[[int], AsyncSessionManager[AppConfig]]


@pytest.fixture
def url(tmp_path: Path) -> str:
    """The URL of an empty registry."""
    return f"sqlite:///{tmp_path}/registry.db"


@pytest.fixture
def make_rank(make_config: MakeConfig, tmp_path: Path, url: str) -> MakeRank:
    """Makes a rank of two, each with a root of its own."""

    def make(rank: int) -> AsyncSessionManager[AppConfig]:
        differ = ["logging.log_dir"]
        given = {"timeout": 60.0, "identity": str(tmp_path), "may_differ": differ}
        config = make_config(
            logging={"log_dir": str(tmp_path / f"root-{rank}")},
            registry={"url": url},
            distributed=given,
        )
        session = AsyncSessionManager(config)
        session.enable_distributed_session(rank, 2)
        return session

    return make


def published(url: str, session: AsyncSessionManager[AppConfig], directory: str) -> None:
    """Publish a run as a rank 0 on another host does, with a lease that is held."""
    launch = session._facts.launch
    assert launch is not None
    agreement = Agreement(
        launcher=launch.launcher,
        identity=launch.identity,
        owner=ELSEWHERE,
        name=None,
        world_size=2,
        version=__version__,
        config={},
        run_name="far",
        session_id=SESSION_ID,
        directory=directory,
    )
    lease = Leases(url, 30.0).acquire(SESSION_ID, Holder("node-7", 12, "elsewhere", 1))
    assert not isinstance(lease, Holder)
    row = LaunchRow(url, file_name(launch, 0))
    assert row.take(ELSEWHERE, agreement.text(), None) is None
    row.publish(ELSEWHERE, agreement.text(), SESSION_ID).result(60)


def rows_of_rank_1(directory: str) -> list[object]:
    """Return what rank 1 has logged."""
    return [row.values["rank"] for row in read_run(directory).rows(rank=1)]


@pytest.mark.requirement("RANK-2")
async def test_ranks_with_other_roots_come_to_one_run(make_rank: MakeRank, tmp_path: Path) -> None:
    """The other rank learns of the run from the registry, and logs to it in its directory."""
    met: set[tuple[str, str, str]] = set()

    async def run(rank: int) -> None:
        async with make_rank(rank) as session:
            met.add((session.run_name, session.session_id, session.run_artifact_dir))
            session.log_metrics({"rank": rank}, step=1)

    async with anyio.create_task_group() as group:
        group.start_soon(run, 1)
        group.start_soon(run, 0)
    ((name, _, directory),) = met
    assert directory == str(tmp_path / "root-0" / name)
    assert await anyio.to_thread.run_sync(rows_of_rank_1, directory) == [1]
    assert not (tmp_path / "root-1" / name).exists()


@pytest.mark.requirement("RANK-2")
async def test_a_directory_that_is_not_seen_is_an_error_at_once(
    make_rank: MakeRank, tmp_path: Path, url: str
) -> None:
    """It names the directory, both hosts and the way out, and makes no second run."""
    session, far = make_rank(1), str(tmp_path / "far")
    await anyio.to_thread.run_sync(published, url, session, far)
    with pytest.raises(RunNotSeenError, match=r"'far'.*on host node-7.*logging\.log_dir") as caught:
        async with session:
            pass
    again = pickle.loads(pickle.dumps(caught.value))
    assert (again.path, again.host, str(again)) == (far, "node-7", str(caught.value))
    assert far in str(again)
    assert not (tmp_path / "root-1").exists()


@pytest.mark.requirement("RANK-2")
async def test_a_second_rank_0_with_another_root_is_refused(
    make_rank: MakeRank, tmp_path: Path, url: str
) -> None:
    """The row decides where two hosts see no common file."""
    session = make_rank(0)
    await anyio.to_thread.run_sync(published, url, session, str(tmp_path / "far"))
    with pytest.raises(SessionInUseError, match="rank 0 was started twice") as caught:
        async with session:
            pass
    assert (caught.value.host, caught.value.pid) == ("node-7", 12)
    assert [path.name for path in (tmp_path / "root-0").iterdir()] == [".launches"]


@pytest.mark.requirement("RANK-2", "REG-2")
async def test_ranks_that_share_a_root_need_no_registry(
    make_config: MakeConfig, tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    """Where the database is away the file decides, and that is one warning in all."""
    (tmp_path / "blocked").write_text("")
    away = f"sqlite:///{tmp_path}/blocked/registry.db"
    met: set[str] = set()

    async def run(rank: int) -> None:
        given = {"timeout": 60.0, "identity": str(tmp_path)}
        session = AsyncSessionManager(make_config(registry={"url": away}, distributed=given))
        session.enable_distributed_session(rank, 2)
        async with session:
            met.add(session.run_artifact_dir)

    async with anyio.create_task_group() as group:
        group.start_soon(run, 1)
        group.start_soon(run, 0)
    assert len(met) == 1
    said = [r.getMessage() for r in caplog.records if r.levelno >= logging.WARNING]
    assert ["registry" in text for text in said] == [True], said
