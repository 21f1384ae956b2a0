"""One run on W&B to which each rank sends its own rows (`distributed.track: shared`)."""

from __future__ import annotations

import json
import os
import subprocess
import sys
import threading
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

from keisei._io.files import OpenDirectory
from keisei.errors import TrackerError
from keisei.run.session_file import TrackerRecord
from keisei.testing.wandb_server import WandbServer
from keisei.trackers import cursor
from keisei.trackers.base import RunInfo
from keisei.trackers.cursor import Cursor
from keisei.trackers.wandb import shared
from tests.support.wandb_client import client_environ

# A rank: how many there are, the launch, from where to where it logs, how it ends, W&B's mode.
PROGRAM = """
import json, os, signal, sys
from keisei import RankLostError, SessionManager, SessionMember, load_config
rank, world, launch, first, last, ends, mode = json.loads(sys.argv[1])
config = load_config(overrides={
    "logging": {"wandb_enabled": True},
    "wandb": {"mode": mode, "finish_timeout": 30},
    "distributed": {"rank": rank, "world_size": world, "identity": launch, "track": "shared"},
})
try:
    with SessionManager(config, run_name="r") as session:
        if rank == 0:
            with SessionMember(session.handle(), role="actor") as member:
                member.log_metrics({"reward": 1.0}, step=first)
        for step in range(first, last):
            session.log_metrics({"loss": 100.0 * rank + step}, step=step)
        session.log_event("seen", {"by": rank})
        session.flush()
        if ends == "killed":
            os.kill(os.getpid(), signal.SIGKILL)
        session.finalize_session(ends)
    assert "wandb" not in sys.modules
except RankLostError:
    pass
"""

Live = Callable[..., str]


@pytest.fixture
def live(tmp_path: Path, server: WandbServer) -> Live:
    """Run the ranks of one attempt, or a command; returns what they have said."""

    def live(*ranks: tuple[Any, ...], mode: str = "online", command: str | None = None) -> str:
        launch = f"launch of {ranks}"
        told = [
            (PROGRAM, json.dumps([rank, len(ranks), launch, *what, mode]))
            for rank, what in enumerate(ranks)
        ]
        if command is not None:
            told = [("from keisei.cli import main; main()", command)]
        processes = [
            subprocess.Popen(
                [sys.executable, "-c", program, *given.split("\n")],
                env=client_environ(tmp_path, server.environ()) | {"KEISEI_LOG_DIR": "runs"},
                cwd=tmp_path,
                stdout=subprocess.PIPE,
                stderr=subprocess.STDOUT,
                text=True,
            )
            for program, given in told
        ]
        said = [process.communicate(timeout=120)[0] for process in processes]
        for rank, process in enumerate(processes):
            killed = command is None and ranks[rank][2] == "killed"
            assert process.returncode == (-9 if killed else 0), said[rank]
        return "".join(said)

    return live


def series(server: WandbServer) -> dict[str, list[tuple[int, float]]]:
    """Return steps and values by metric, in the order of the server's history."""
    (run,) = server.runs.values()
    found: dict[str, list[tuple[int, float]]] = {}
    for row in run.history:
        for key, value in row.items():
            if key.endswith(("loss", "reward")):
                found.setdefault(key, []).append((row["global_step"], value))
    return found


def expected(last: int) -> dict[str, list[tuple[int, float]]]:
    """Return what three ranks have logged."""
    losses = {rank: [(step, 100.0 * rank + step) for step in range(last)] for rank in range(3)}
    return {"loss": losses[0], "rank1/loss": losses[1], "rank2/loss": losses[2]}


@pytest.mark.requirement("RANK-3")
def test_each_rank_sends_its_own_rows_to_one_run(server: WandbServer, live: Live) -> None:
    """Each row once under its part's name, members' by rank 0; rank 0 alone ends the run, last."""
    live(*[(0, 20, "completed")] * 3)
    server.wait_for(lambda: next(iter(server.runs.values())).complete, 30)
    assert series(server) == {**expected(20), "actor/reward": [(0, 1.0)]}
    (run,) = server.runs.values()
    assert (run.state, run.display_name, run.summary["loss"]) == ("finished", "r", 19.0)
    assert run.config["distributed"]["track"] == "shared"
    assert "rank1/loss" not in run.summary
    assert sum('seen {"by": 2}' in line for line in run.console) == 1
    sent = [request for request in server.requests if request.endpoint == "file_stream"]
    assert [request.ends_run for request in sent] == [*[False] * (len(sent) - 1), True]
    assert len({request.client for request in sent}) == 3


@pytest.mark.requirement("RANK-3", "RANK-4")
@pytest.mark.skipif(os.name == "nt", reason="kills processes as POSIX does")
def test_a_rank_that_is_killed_and_the_next_attempt(server: WandbServer, live: Live) -> None:
    """What it had logged comes; the run ends by rank 0, once; the next attempt goes on behind."""
    live((0, 10, "completed"), (0, 10, "killed"), (0, 10, "completed"))
    server.wait_for(lambda: next(iter(server.runs.values())).complete, 30)
    rows = series(server)
    del rows["actor/reward"]
    assert rows == expected(10)
    (run,) = server.runs.values()
    assert run.state == "failed"
    assert sum(request.ends_run for request in server.requests) == 1
    live(*[(10, 20, "completed")] * 3)
    server.wait_for(lambda: sum(request.ends_run for request in server.requests) == 2, 30)
    rows = series(server)
    del rows["actor/reward"]
    assert rows == expected(20)
    (run,) = server.runs.values()
    assert (run.state, run.rows_received) == ("finished", len(run.history))
    assert "remain" not in live(command="sync\n--root\nruns")
    assert series(server)["rank1/loss"] == expected(20)["rank1/loss"]


@pytest.mark.requirement("RANK-3")
def test_offline_there_is_nothing_to_share(server: WandbServer, live: Live) -> None:
    """One warning says so; all rows are uploaded later, to one run, each once."""
    said = live(*[(0, 5, "completed")] * 3, mode="offline")
    assert said.count("W&B shares no such run (distributed.track: shared)") == 1
    assert "did not start" not in said
    assert not server.runs
    for _ in range(2):
        assert "remain" not in live(command="sync\n--root\nruns")
        assert series(server) == {**expected(5), "actor/reward": [(0, 1.0)]}
    (run,) = server.runs.values()
    assert (run.state, run.rows_received) == ("finished", len(run.history))


@pytest.mark.parametrize(
    ("known", "error"),
    [
        (TrackerRecord(run_id="a", mode="offline"), TrackerError),
        (TrackerRecord(run_id="a", state="connecting"), TimeoutError),
        (TrackerRecord(run_id="a", state="finished"), TimeoutError),
    ],
)
def test_a_rank_waits_for_rank_0(
    tmp_path: Path, known: TrackerRecord, error: type[Exception]
) -> None:
    """It starts nothing on W&B before rank 0 has; an offline run is none that it could share."""
    with pytest.raises(TimeoutError):
        shared.owners_id(str(tmp_path), 0.0)
    cursor.store(str(tmp_path), "wandb", Cursor(known=known), sync=False)
    with (
        OpenDirectory(str(tmp_path)) as directory,
        cursor.deliverer(directory, "wandb", 1.0),
    ):
        with pytest.raises(error):
            shared.owners_id(str(tmp_path), 0.0)
        cursor.store(str(tmp_path), "wandb", Cursor(known=TrackerRecord(run_id="b")), sync=False)
        assert shared.owners_id(str(tmp_path), 0.0) == "b"
    with pytest.raises(TimeoutError):  # whoever had started it is gone
        shared.owners_id(str(tmp_path), 0.0)


def test_a_link_where_a_parts_files_should_be(tmp_path: Path) -> None:
    """The SDK follows none out of the run's directory."""
    (tmp_path / "run").mkdir()
    (tmp_path / "elsewhere").mkdir()
    run = RunInfo("s", "r", 1, str(tmp_path / "run"), "{}", part="rank1", shared=True)
    home = shared.make_directory(run)
    assert Path(home) == tmp_path / "run" / "wandb" / "parts" / "rank1"
    (Path(home) / "wandb").rmdir()
    (Path(home) / "wandb").symlink_to(tmp_path / "elsewhere")
    with pytest.raises(NotADirectoryError):
        shared.make_directory(run)


def test_rank_0_ends_the_run_once_no_rank_sends(tmp_path: Path) -> None:
    """Before its end on W&B it waits for whoever delivers a part; not for ever."""
    cursor.store(str(tmp_path), "wandb", Cursor(), sync=False, part="rank1")
    over = threading.Event()

    def wait() -> None:
        shared.wait_for_parts(str(tmp_path), 60.0)
        over.set()

    with (
        OpenDirectory(str(tmp_path)) as directory,
        cursor.deliverer(directory, "wandb", 1.0, "rank1"),
    ):
        shared.wait_for_parts(str(tmp_path), 0.0)
        waiting = threading.Thread(target=wait)
        waiting.start()
        assert not over.wait(0.2)
    assert over.wait(30)
    waiting.join()
