"""Sessions that are ranks of one launch: one run, one name, one end."""

from __future__ import annotations

import json
import os
import signal
import time
from collections.abc import Awaitable, Callable
from pathlib import Path
from typing import Any

import anyio
import pytest

from keisei import (
    AppConfig,
    AsyncSessionManager,
    DistributedError,
    LaunchError,
    PartInUseError,
    RankLostError,
    RankMismatchError,
    RankTimeoutError,
    SessionInUseError,
    SessionManager,
)
from keisei.journal.reader import read_run
from keisei.run.parts import OwnedPart
from keisei.run.session_file import SessionRecord
from tests.conftest import MakeConfig

pytestmark = pytest.mark.anyio

Body = Callable[[AsyncSessionManager[AppConfig]], Awaitable[object]]


async def nothing(session: AsyncSessionManager[AppConfig]) -> None:
    """Do nothing."""


async def for_ever(session: AsyncSessionManager[AppConfig]) -> None:
    """Train until somebody else ends the run."""
    await anyio.sleep(60)


class Ranks:
    """The ranks of one launch, as tasks of one process.

    Attributes:
        sessions: by rank.
        errors: what has left each block.
    """

    def __init__(self, make_config: MakeConfig, world_size: int, **sections: Any) -> None:
        self.world_size, self._make, self._sections = world_size, make_config, sections
        self.identity = str(make_config().logging.log_dir)
        self.sessions: dict[int, AsyncSessionManager[AppConfig]] = {}
        self.errors: dict[int, BaseException | None] = {}

    def session(self, rank: int, **sections: Any) -> AsyncSessionManager[AppConfig]:
        """Return the session of a rank."""
        distributed = {"timeout": 20.0, "identity": self.identity}
        distributed |= {**self._sections, **sections}.pop("distributed", {})
        given = {**self._sections, **sections, "distributed": distributed}
        session = AsyncSessionManager(self._make(**given))
        session.enable_distributed_session(rank, self.world_size)
        self.sessions[rank] = session
        return session

    async def run(self, rank: int, body: Body = nothing, **sections: Any) -> None:
        """Run one rank to its end, and keep what leaves its block."""
        session = self.session(rank, **sections)
        self.errors[rank] = None
        try:
            async with session:
                await body(session)
        except Exception as exc:
            self.errors[rank] = exc

    async def run_all(self, bodies: dict[int, Body]) -> None:
        """Run all ranks at once; those without a body do nothing."""
        async with anyio.create_task_group() as group:
            for rank in reversed(range(self.world_size)):
                group.start_soon(self.run, rank, bodies.get(rank, nothing))

    @property
    def record(self) -> SessionRecord:
        """The session file's record."""
        (run,) = runs(self.sessions[0].config)
        record = SessionRecord.parsed((run / "session.json").read_bytes())
        assert record is not None
        return record


def runs(config: AppConfig) -> list[Path]:
    """Return the directories of all runs."""
    root = config.logging.log_dir
    assert root is not None
    return [path for path in root.iterdir() if not path.name.startswith(".")]


def ranks_logged(directory: str) -> dict[int, list[object]]:
    """Return what each of four ranks has logged as `rank`."""
    run = read_run(directory)
    return {
        rank: [row.values["rank"] for row in run.rows(rank=rank) if "rank" in row.values]
        for rank in range(4)
    }


@pytest.mark.requirement("RANK-2", "RANK-3")
async def test_all_ranks_come_to_one_run(make_config: MakeConfig) -> None:
    """Ranks that start at once have one name, one id, one attempt, and no directory too many."""
    ranks = Ranks(make_config, 4)
    met: list[tuple[str, str, str]] = []

    async def body(session: AsyncSessionManager[AppConfig]) -> None:
        met.append((session.run_name, session.session_id, session.run_artifact_dir))
        session.log_metrics({"rank": session.rank}, step=1)
        session.log_evaluation({"score": session.rank}, step=1)
        assert session.world_size == 4

    await ranks.run_all(dict.fromkeys(range(4), body))
    assert ranks.errors == dict.fromkeys(range(4))
    assert len(met) == 4
    assert len(set(met)) == 1
    assert len(runs(ranks.sessions[0].config)) == 1
    record = ranks.record
    assert (record.status, record.attempt, record.started_by) == ("completed", 1, "start")
    assert record.launch is not None
    assert (record.launch.world_size, record.launch.launcher) == (4, "given")
    logged = await anyio.to_thread.run_sync(ranks_logged, met[0][2])
    assert logged == {rank: [rank] for rank in range(4)}


@pytest.mark.requirement("RANK-3")
async def test_every_method_works_on_a_rank_above_0(make_config: MakeConfig) -> None:
    """The program is the same on all ranks: what is rank 0's alone does nothing on the others."""
    ranks = Ranks(make_config, 2, tracking={"trackers": ["trackio"]}, env={"seed": 1})

    async def body(session: AsyncSessionManager[AppConfig]) -> None:
        lines: list[str] = []
        assert (await session.setup_wandb(), await session.setup_trackers()) == (False, {})
        assert not await session.setup_remote_logging("tensorboard")
        assert session.wandb_run is None
        assert not session.is_wandb_active
        await session.save_effective_config()
        await session.setup_seeding()
        await session.log_session_info(lines.append)
        await session.log_session_start()
        await session.flush()
        session.log_event("hello", {"rank": 1})
        session.resume_at(0)
        assert session.handle().session_id == session.session_id
        summary = session.get_session_summary()
        assert (summary["rank"], summary["world_size"], summary["trackers"]) == (1, 2, {})
        assert lines
        assert Path(session.log_file_path).name == "training.rank1.log"
        assert Path(session.eval_log_file_path).name == "evaluation.rank1.log"
        assert await session.finalize_session("completed") == "completed"

    async def owner(session: AsyncSessionManager[AppConfig]) -> None:
        assert Path(session.log_file_path).name == "training.log"

    async with anyio.create_task_group() as group:
        group.start_soon(ranks.run, 1, body)
        session = ranks.session(0, tracking={"trackers": []})
        async with session:
            await owner(session)
    assert ranks.errors == {1: None}
    log = Path(ranks.sessions[1].log_file_path).read_text("utf-8")
    assert log.count("session started") == 1
    assert log.count("completed") == 1


async def test_a_rank_that_the_owner_overtakes_has_its_end_line(
    make_config: MakeConfig, monkeypatch: pytest.MonkeyPatch
) -> None:
    """The owner ends the run at the instant in which it sees the end of the last rank."""
    ranks = Ranks(make_config, 2)
    end_part, waited = OwnedPart.end, []

    def end_and_stand_still(part: OwnedPart, *args: Any) -> None:
        end_part(part, *args)
        give_up = time.monotonic() + 60
        while ranks.record.status != "completed" and time.monotonic() < give_up:
            time.sleep(0.001)
        waited.append(ranks.record.status)

    monkeypatch.setattr(OwnedPart, "end", end_and_stand_still)
    await ranks.run_all({})
    assert waited == ["completed"]
    log = Path(ranks.sessions[1].log_file_path).read_text("utf-8")
    assert log.count("completed") == 1


@pytest.mark.requirement("RANK-4")
async def test_the_first_rank_that_fails_decides(make_config: MakeConfig) -> None:
    """The run ends as the rank that failed first, with its error; the others are told, and end."""
    ranks = Ranks(make_config, 3)

    async def fails(session: AsyncSessionManager[AppConfig]) -> None:
        raise ValueError("out of patience")

    await ranks.run_all({0: for_ever, 1: for_ever, 2: fails})
    assert isinstance(ranks.errors[2], ValueError)
    for rank in (0, 1):
        error = ranks.errors[rank]
        assert isinstance(error, RankLostError)
        assert error.rank == 2
        assert "out of patience" in str(error)
    record = ranks.record
    assert record.status == "failed"
    assert record.failure is not None
    assert (record.failure.type, record.failure.message) == (
        "ValueError",
        "rank 2: out of patience",
    )
    assert {session.status for session in ranks.sessions.values()} == {"failed"}


@pytest.mark.requirement("RANK-4")
async def test_rank_0_that_fails_ends_the_others(make_config: MakeConfig) -> None:
    """An error of rank 0 is the run's end, and the others learn it."""
    ranks = Ranks(make_config, 2)

    async def fails(session: AsyncSessionManager[AppConfig]) -> None:
        raise ValueError("out of patience")

    await ranks.run_all({0: fails, 1: for_ever})
    assert isinstance(ranks.errors[0], ValueError)
    assert isinstance(ranks.errors[1], RankLostError)
    record = ranks.record
    assert record.failure is not None
    assert (record.status, record.failure.message) == ("failed", "out of patience")


@pytest.mark.requirement("RANK-4")
async def test_rank_0_waits_for_the_others(make_config: MakeConfig) -> None:
    """A rank 0 that has completed waits for the others, whose failure is the run's."""
    ranks = Ranks(make_config, 2)

    async def fails(session: AsyncSessionManager[AppConfig]) -> None:
        while ranks.sessions[0].status != "running" or not ended.is_set():
            await anyio.sleep(0.01)
        raise ValueError("late")

    async def ends(session: AsyncSessionManager[AppConfig]) -> None:
        ended.set()

    ended = anyio.Event()
    await ranks.run_all({0: ends, 1: fails})
    record = ranks.record
    assert record.status == "failed"
    assert record.failure is not None
    assert record.failure.message == "rank 1: late"
    assert ranks.sessions[0].status == "failed"


@pytest.mark.requirement("RANK-2", "RANK-4")
async def test_a_rank_that_never_comes_ends_the_run(make_config: MakeConfig) -> None:
    """A rank that never comes hangs nobody: after the timeout the others are told, and end."""
    ranks = Ranks(make_config, 3, distributed={"timeout": 1.0})
    async with anyio.create_task_group() as group:
        group.start_soon(ranks.run, 0, for_ever)
        group.start_soon(ranks.run, 1, for_ever)
    for rank in (0, 1):
        error = ranks.errors[rank]
        assert isinstance(error, RankLostError)
        assert error.rank == 2
        assert "has not come within 1 s" in str(error)
    assert ranks.record.status == "failed"


@pytest.mark.requirement("RANK-4")
async def test_a_rank_that_does_not_end_hangs_nobody(make_config: MakeConfig) -> None:
    """A rank that still runs when rank 0's wait is over is told to end, and the run has failed."""
    ranks = Ranks(make_config, 2, distributed={"timeout": 1.0})
    await ranks.run_all({1: for_ever})
    assert isinstance(ranks.errors[1], RankLostError)
    record = ranks.record
    assert record.status == "failed"
    assert record.failure is not None
    assert "still runs" in record.failure.message


@pytest.mark.requirement("RANK-2")
async def test_a_rank_without_a_rank_0_is_told_what_to_do(make_config: MakeConfig) -> None:
    """Where rank 0 never publishes its run, the wait ends, and the message has every way out."""
    ranks = Ranks(make_config, 2, distributed={"timeout": 0.3})
    await ranks.run(1)
    error = ranks.errors[1]
    assert isinstance(error, RankTimeoutError)
    for word in ("distributed.timeout", "distributed.identity", "logging.log_dir", "0.3 s"):
        assert word in str(error)
    assert not runs_or_none(ranks.sessions[1].config)


def runs_or_none(config: AppConfig) -> list[Path]:
    """Return the directories of all runs, of which the root may be missing."""
    root = config.logging.log_dir
    return runs(config) if root is not None and root.exists() else []


async def test_a_wait_that_is_cancelled_leaves_nothing(make_config: MakeConfig) -> None:
    """A rank whose wait for rank 0 is cancelled ends at once, and has claimed nothing."""
    ranks = Ranks(make_config, 2)
    with anyio.move_on_after(0.2) as scope:
        await ranks.run(1)
    assert scope.cancelled_caught
    assert ranks.sessions[1].status == "cancelled"
    assert not runs_or_none(ranks.sessions[1].config)


@pytest.mark.requirement("RANK-2")
@pytest.mark.parametrize(
    ("own", "field"),
    [
        ({"training": {"total_timesteps": 5}}, "training.total_timesteps"),
        ({"logging": {"run_name": "other"}}, "the run's name"),
    ],
    ids=["config", "name"],
)
async def test_ranks_that_disagree_are_refused(
    make_config: MakeConfig, own: dict[str, Any], field: str
) -> None:
    """A rank with another config or name gets an error with both values; the run fails by it."""
    ranks = Ranks(make_config, 2, logging={"run_name": "mine"})
    async with anyio.create_task_group() as group:
        group.start_soon(ranks.run, 0, for_ever)
        await ranks.run(1, **own)
    error = ranks.errors[1]
    assert isinstance(error, RankMismatchError)
    assert list(error.values) == [field]
    lost = ranks.errors[0]
    assert isinstance(lost, RankLostError)
    assert lost.rank == 1
    failure = ranks.record.failure
    assert failure is not None
    assert failure.type == "RankMismatchError"


@pytest.mark.requirement("RANK-2")
async def test_a_rank_that_is_started_twice_is_refused(make_config: MakeConfig) -> None:
    """Of two processes with one rank, the second is refused, and the first goes on."""
    ranks, other = Ranks(make_config, 2), Ranks(make_config, 2)

    async def body(session: AsyncSessionManager[AppConfig]) -> None:
        twin = AsyncSessionManager(session.config)
        twin.enable_distributed_session(1, 2)
        # It is the next session of this process: another process would begin to count anew.
        agreements = session.config.logging.log_dir
        assert agreements is not None
        (name,) = [path for path in (agreements / ".launches").iterdir() if path.suffix == ".json"]
        os.link(name, str(name).replace(".0.json", ".1.json"))
        with pytest.raises(PartInUseError) as caught:
            async with twin:
                pass
        assert caught.value.pid == os.getpid()

    await ranks.run_all({1: body})
    assert ranks.errors == {0: None, 1: None}
    assert ranks.record.status == "completed"
    assert not other.sessions


async def test_a_rank_0_that_cannot_start_is_everybodys_error(make_config: MakeConfig) -> None:
    """Where rank 0 gets no run, the others learn why, and do not wait for their timeout."""
    taken = AsyncSessionManager(make_config(), run_name="taken")
    ranks = Ranks(make_config, 2, logging={"run_name": "taken"})
    async with taken:
        await ranks.run_all({})
    assert isinstance(ranks.errors[0], SessionInUseError)
    error = ranks.errors[1]
    assert isinstance(error, RankLostError)
    assert "SessionInUseError" in str(error)


async def test_sessions_follow_each_other_in_one_launch(make_config: MakeConfig) -> None:
    """A program that starts several sessions on each rank gets as many runs, each of all ranks."""
    ranks = Ranks(make_config, 2)
    names: list[list[str]] = []
    for _ in range(3):
        await ranks.run_all({})
        assert ranks.errors == dict.fromkeys(range(2))
        names.append([session.run_name for session in ranks.sessions.values()])
    assert all(len(set(met)) == 1 for met in names)
    assert len({met[0] for met in names}) == 3


@pytest.mark.requirement("RANK-2")
@pytest.mark.parametrize("began", ["restart", "requeue", "resume"])
async def test_what_begins_an_attempt_is_told_apart(
    make_config: MakeConfig, monkeypatch: pytest.MonkeyPatch, tmp_path: Path, began: str
) -> None:
    """An elastic restart, a requeue and a resume by hand go on with one run, and are recorded."""
    torchrun = {
        "TORCHELASTIC_RUN_ID": str(tmp_path),
        "TORCHELASTIC_RESTART_COUNT": "0",
        "WORLD_SIZE": "1",
        "RANK": "0",
        "SLURM_JOB_ID": "7",
    }
    name = "r" if began == "resume" else None

    async def start(launch: dict[str, str]) -> SessionRecord:
        for key, value in (torchrun | launch).items():
            monkeypatch.setenv(key, value)
        ranks = Ranks(make_config, 2)
        async with anyio.create_task_group() as group:
            for rank in (0, 1):
                config = make_config(distributed={"timeout": 20}, logging={"run_name": name})
                monkeypatch.setenv("RANK", str(rank))
                monkeypatch.setenv("WORLD_SIZE", "2")
                session = AsyncSessionManager(config)
                assert (session.rank, session.world_size) == (rank, 2)
                ranks.sessions[rank] = session
                group.start_soon(enter, session)
        return ranks.record

    async def enter(session: AsyncSessionManager[AppConfig]) -> None:
        async with session:
            pass

    first = await start({})
    changed = {
        "restart": {"TORCHELASTIC_RESTART_COUNT": "1"},
        "requeue": {"SLURM_RESTART_COUNT": "1"},
        "resume": {"TORCHELASTIC_RUN_ID": f"{tmp_path}-2"},
    }
    second = await start(changed[began])
    assert (first.started_by, second.started_by) == ("start", began)
    assert second.run_name == first.run_name
    assert (second.session_id, second.attempt) == (first.session_id, 2)


async def test_a_launch_of_one_is_no_launch(
    make_config: MakeConfig, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Where a launcher has started one process, everything is as if there were none."""
    for key, value in {"TORCHELASTIC_RUN_ID": "abc", "RANK": "0", "WORLD_SIZE": "1"}.items():
        monkeypatch.setenv(key, value)
    session = AsyncSessionManager(make_config())
    async with session:
        pass
    assert (session.rank, session.world_size) == (0, 1)
    root = session.config.logging.log_dir
    assert root is not None
    assert [path.name for path in root.iterdir()] == [session.run_name]


async def test_a_contradiction_ends_the_start(
    make_config: MakeConfig, monkeypatch: pytest.MonkeyPatch
) -> None:
    """What cannot be true of a launch is an error when the block is entered, and makes nothing."""
    for key, value in {"TORCHELASTIC_RUN_ID": "abc", "RANK": "4", "WORLD_SIZE": "4"}.items():
        monkeypatch.setenv(key, value)
    session = AsyncSessionManager(make_config(signals={"handle": True}))
    before = signal.getsignal(signal.SIGTERM)
    with pytest.raises(LaunchError):
        async with session:
            pass
    assert signal.getsignal(signal.SIGTERM) is before
    assert not runs_or_none(session.config)


async def test_a_launch_is_given_before_the_run_is_claimed(make_config: MakeConfig) -> None:
    """`enable_distributed_session` takes whole numbers that fit, and comes before the block."""
    session = AsyncSessionManager(make_config())
    for rank, world_size in ((2, 2), (-1, 2), (0, 0)):
        with pytest.raises(LaunchError):
            session.enable_distributed_session(rank, world_size, identity="x")
    with pytest.raises(TypeError, match="rank"):
        session.enable_distributed_session("1", 2)  # type: ignore[arg-type]
    with pytest.raises(LaunchError, match="identity"):
        session.enable_distributed_session(0, 2)
    async with session:
        with pytest.raises(DistributedError, match="too late"):
            session.enable_distributed_session(0, 2, identity="x")
    assert session.world_size == 1


async def test_the_agreement_hides_secrets(make_config: MakeConfig) -> None:
    """What rank 0 publishes of its config has the secrets hidden, as every file of keisei's."""
    ranks = Ranks(make_config, 2, registry={"url": None}, wandb={"notes": "api_key=hunter2hunter2"})
    await ranks.run_all({})
    assert ranks.errors == dict.fromkeys(range(2))
    root = ranks.sessions[0].config.logging.log_dir
    assert root is not None
    for path in (root / ".launches").glob("*.json"):
        text = path.read_text("utf-8")
        assert "hunter2" not in text
        assert json.loads(text)["run_name"] == ranks.sessions[0].run_name


@pytest.mark.requirement("RANK-2")
def test_the_blocking_face_is_a_rank_too(make_config: MakeConfig) -> None:
    """`SessionManager` meets the others as `AsyncSessionManager` does."""
    import threading

    names = {}

    def rank(number: int) -> None:
        config = make_config(distributed={"timeout": 20, "identity": "blocking"})
        session = SessionManager(config)
        session.enable_distributed_session(number, 2)
        with session:
            session.log_metrics({"x": number}, step=1)
            names[number] = session.run_name

    threads = [threading.Thread(target=rank, args=(number,)) for number in (1, 0)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert len(names) == 2
    assert len(set(names.values())) == 1
