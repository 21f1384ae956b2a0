"""Sessions that are ranks of one launch save and restore checkpoints together."""

from __future__ import annotations

import random
import secrets
from collections.abc import Awaitable, Callable
from pathlib import Path
from typing import Any

import anyio
import pytest

from keisei import (
    AppConfig,
    AsyncSessionManager,
    CheckpointError,
    ConfigError,
    RankLostError,
    Restored,
    WorldSizeError,
)
from keisei.journal.reader import read_run
from tests.conftest import MakeConfig
from tests.support.saved_checkpoints import flip

pytestmark = pytest.mark.anyio

Session = AsyncSessionManager[AppConfig]
Body = Callable[[Session], Awaitable[object]]


class Launches:
    """Launches of one run, one after the other, whose ranks are tasks of one process.

    Attributes:
        got: what each rank's body has returned, or what has left its block.
    """

    def __init__(self, make_config: MakeConfig) -> None:
        self._make = make_config
        self.got: dict[int, Any] = {}

    async def run(self, body: Body, world_size: int = 3, **sections: Any) -> dict[int, Any]:
        """Run a launch to its end, and return what each rank has got."""
        self.got = {}
        identity = secrets.token_hex(8)
        async with anyio.create_task_group() as group:
            for rank in range(world_size):
                group.start_soon(self._run, body, rank, world_size, identity, sections)
        return self.got

    async def _run(
        self, body: Body, rank: int, world_size: int, identity: str, sections: dict[str, Any]
    ) -> None:
        distributed = {"timeout": 20.0, "identity": identity}
        distributed |= sections.get("distributed", {})
        config = self._make(**{**sections, "distributed": distributed})
        session = AsyncSessionManager(config, run_name="shared")
        session.enable_distributed_session(rank, world_size)
        try:
            async with session:
                self.got[rank] = await body(session)
        except (Exception, SystemExit) as exc:
            self.got[rank] = exc


class Barrier:
    """What a collective does: nobody goes on before all ranks have come."""

    def __init__(self, count: int) -> None:
        self._count, self._come, self._gate = count, 0, anyio.Event()

    async def wait(self) -> None:
        """Wait for the others."""
        self._come += 1
        gate = self._gate
        if self._come == self._count:
            self._come, self._gate = 0, anyio.Event()
            gate.set()
        await gate.wait()


@pytest.fixture
def launches(make_config: MakeConfig) -> Launches:
    """Launches of one run."""
    return Launches(make_config)


def state_of(session: Session, step: int) -> dict[str, Any]:
    """Return a state that is a rank's own."""
    return {"rank": session.rank, "step": step}


async def saves(session: Session) -> None:
    """Train two steps, with a checkpoint after the first, and end before the second is saved."""
    for step in (1, 2):
        session.log_metrics({"loss": step}, step=step)
        if step == 1:
            await session.save_checkpoint(state_of(session, step), step)


async def restores(session: Session) -> Restored | None:
    """Restore, and train the second step again."""
    restored = await session.restore_checkpoint()
    session.log_metrics({"loss": 20}, step=2)
    return restored


@pytest.mark.requirement("RANK-7")
async def test_each_rank_gets_its_own_state_back(launches: Launches) -> None:
    """One checkpoint of all ranks; each goes on from its own part, and its rows line up."""
    assert set((await launches.run(saves)).values()) == {None}
    got = await launches.run(restores)
    for rank in range(3):
        assert got[rank].state == {"rank": rank, "step": 1}
        assert got[rank].step == 1
        assert got[rank].checkpoint == got[0].checkpoint
    run = Path(got[0].checkpoint.path).parents[1]
    await anyio.to_thread.run_sync(check_lined_up, run)


def check_lined_up(run: Path) -> None:
    """Check that each rank's rows are as if it had never stopped, and that one rank has saved."""
    journal = read_run(run)
    for rank in range(3):
        steps, values = journal.columns("loss", rank=rank)
        assert (list(steps), list(values)) == ([1, 2], [1, 20])
    named = [event.name for event in journal.events() if event.name.startswith("checkpoint")]
    assert named == ["checkpoint"]


@pytest.mark.requirement("RANK-7")
async def test_by_the_policy_on_the_same_steps(launches: Launches) -> None:
    """The policy decides alike on every rank, keeps alike, and the end saves the last step."""

    async def body(session: Session) -> dict[str, Any]:
        state: dict[str, Any] = {"rank": session.rank}
        session.setup_auto_checkpointing(10, state=state, keep_last=2)
        for step in range(1, 36):
            state["step"] = step
            await session.checkpoint_if_due(step)
        summary: dict[str, Any] = session.get_session_summary()["checkpoints"]
        return summary | {"models": session.model_dir}

    got = await launches.run(body)
    assert [got[rank]["count"] for rank in range(3)] == [3, 3, 3]
    assert [got[rank]["last_step"] for rank in range(3)] == [30, 30, 30]
    names = sorted(path.name for path in Path(got[0]["models"]).iterdir())
    assert names == ["checkpoint_30.ckpt", "checkpoint_35.ckpt", "latest"]
    got = await launches.run(restores)
    assert [got[rank].state["step"] for rank in range(3)] == [35, 35, 35]


@pytest.mark.requirement("RANK-7")
async def test_a_rank_with_nothing_of_its_own(launches: Launches) -> None:
    """It gives `None`, gets rank 0's state, and any number of ranks can go on from there."""

    async def body(session: Session) -> None:
        random.seed(session.rank)
        state = {"weights": 1.5} if session.rank == 0 else None
        session.setup_auto_checkpointing(10, state=state)
        await session.checkpoint_if_due(10)

    assert set((await launches.run(body)).values()) == {None}
    for world_size in (3, 2, 4):
        got = await launches.run(restores, world_size)
        assert [got[rank].state for rank in range(world_size)] == [{"weights": 1.5}] * world_size


@pytest.mark.requirement("RANK-7")
async def test_another_world_size(launches: Launches) -> None:
    """It is the same error on every rank, and each can then read the shards one by one."""
    await launches.run(saves)

    async def body(session: Session) -> list[Any]:
        with pytest.raises(WorldSizeError, match="saved by 3 ranks.*has 2 ranks") as caught:
            await session.restore_checkpoint()
        assert (caught.value.saved, caught.value.world_size) == (3, 2)
        shards = [await session.restore_checkpoint(shard=rank) for rank in range(3)]
        return [shard and shard.state for shard in shards]

    got = await launches.run(body, 2)
    assert got[0] == got[1] == [{"rank": rank, "step": 1} for rank in range(3)]


@pytest.mark.requirement("RANK-7")
async def test_a_shard_that_does_not_verify(launches: Launches) -> None:
    """All ranks go on from the older checkpoint, whosever shard is damaged."""

    async def body(session: Session) -> str:
        for step in (1, 2):
            await session.save_checkpoint(state_of(session, step), step)
        return session.model_dir

    models = (await launches.run(body))[0]
    flip(Path(models, "checkpoint_2.ckpt", "rank2", "state.json"))
    got = await launches.run(restores)
    assert [got[rank].step for rank in range(3)] == [1, 1, 1]
    assert Path(models, "checkpoint_2.ckpt.corrupt").exists()


async def test_a_rank_that_does_not_save(launches: Launches) -> None:
    """It is an error on the others that names it, and nothing is there."""

    async def body(session: Session) -> Any:
        if session.rank == 1:
            await anyio.sleep(2.5)
            return session.model_dir
        with pytest.raises(CheckpointError) as caught:
            await session.save_checkpoint(state_of(session, 1), 1)
        return str(caught.value)

    got = await launches.run(body, distributed={"checkpoint_timeout": 0.5})
    assert "rank 1 has not saved the same step" in got[0]
    assert "rank 1" in got[2]
    assert not any(path.name.endswith(".ckpt") for path in Path(got[1]).iterdir())


async def test_a_rank_that_fails_while_others_save(launches: Launches) -> None:
    """They do not wait for it, and the run fails with its error."""

    async def body(session: Session) -> None:
        if session.rank == 2:
            await anyio.sleep(0.3)
            raise RuntimeError("out of memory")
        await session.save_checkpoint(state_of(session, 1), 1)

    with anyio.fail_after(30):
        got = await launches.run(body)
    assert isinstance(got[2], RuntimeError)
    for rank in (0, 1):
        assert isinstance(got[rank], (CheckpointError, RankLostError)), got


async def test_what_differs_between_ranks_is_refused(launches: Launches) -> None:
    """A save by the clock, and one that is skipped, would leave the others waiting."""

    async def body(session: Session) -> None:
        with pytest.raises(ConfigError, match="every_seconds"):
            session.setup_auto_checkpointing(state={}, every_seconds=5)
        with pytest.raises(ValueError, match="skip"):
            await session.save_checkpoint({}, 1, when_busy="skip")
        with pytest.raises(TypeError, match="mapping"):
            if session.rank == 0:
                session.setup_auto_checkpointing(state=None)
            else:
                session.setup_auto_checkpointing(state=3)  # type: ignore[arg-type]

    assert set((await launches.run(body)).values()) == {None}


@pytest.mark.requirement("RANK-6", "RANK-7")
@pytest.mark.parametrize(
    ("told", "collective"),
    [
        (2, True),
        *(pytest.param(*case, marks=pytest.mark.storm) for case in ((0, True), (1, False))),
    ],
)
async def test_a_preemption_saves_the_same_step_on_all_ranks(
    launches: Launches, told: int, collective: bool
) -> None:
    """One rank is told; all save at the first step that none has passed, although each waits for
    the others in every step, and none of them waits in vain."""
    barrier = Barrier(3)

    async def body(session: Session) -> None:
        state: dict[str, Any] = {"rank": session.rank}
        session.setup_auto_checkpointing(1000, state=state)
        for step in range(1, 100_000):
            state["step"] = step
            if step == 20 and session.rank == told:
                session.preempt()
            if collective:
                await barrier.wait()
            await anyio.sleep(0.002 if collective else 0.002 * (session.rank + 1))
            await session.checkpoint_if_due(step)

    with anyio.fail_after(60):
        got = await launches.run(body, signals={"grace": 15.0})
    assert all(isinstance(left, SystemExit) for left in got.values()), got
    got = await launches.run(restores)
    steps = {got[rank].state["step"] for rank in range(3)}
    assert len(steps) == 1
    assert steps.pop() >= 20
    assert [got[rank].state["rank"] for rank in range(3)] == [0, 1, 2]


@pytest.mark.requirement("RANK-6", "RANK-7")
async def test_a_preemption_in_the_middle_of_a_save(launches: Launches) -> None:
    """The rank that is told while it saves leaves nobody behind: it goes on to the next safe
    point, for the others that wait at this one learn that it was passed."""
    barrier = Barrier(3)

    async def body(session: Session) -> None:
        reached = {"step": 0}

        def state() -> dict[str, Any]:
            if reached["step"] == 20 and session.rank == 2:
                session.preempt()
            return {"rank": session.rank, **reached}

        session.setup_auto_checkpointing(10, state=state)
        for step in range(1, 100_000):
            reached["step"] = step
            await barrier.wait()
            await anyio.sleep(0.002)
            await session.checkpoint_if_due(step)

    with anyio.fail_after(60):
        got = await launches.run(body, signals={"grace": 15.0})
    assert all(isinstance(left, SystemExit) for left in got.values()), got
    got = await launches.run(restores)
    steps = {got[rank].state["step"] for rank in range(3)}
    assert len(steps) == 1
    assert steps.pop() > 20
