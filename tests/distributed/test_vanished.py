"""A rank that is gone is known to ranks that run in no loop, which have no task to cancel."""

from __future__ import annotations

import sys
from contextlib import ExitStack
from pathlib import Path

import pytest

from tests.support.launched_programs import Ranks, parts_in
from tests.support.launchers import free_ports, launched, the_run

pytestmark = pytest.mark.skipif(sys.platform == "win32", reason="needs SIGKILL")


@pytest.mark.requirement("RANK-4")
@pytest.mark.parametrize("killed", [0, 1])
def test_the_next_call_of_a_blocking_body_raises(killed: int, tmp_path: Path) -> None:
    """Of two ranks without signal handlers one is killed, and the other ends by an error."""
    root, ranks = tmp_path / "runs", Ranks(tmp_path)
    launch = {"WORLD_SIZE": "2", "MASTER_ADDR": "127.0.0.1", "MASTER_PORT": str(free_ports(1)[0])}
    with ExitStack() as stack:
        running = [
            stack.enter_context(
                launched(ranks.command(), root, tmp_path, {**launch, "RANK": str(rank)})
            )
            for rank in range(2)
        ]
        ranks.wait_for(2, lambda: "".join(each.output() for each in running))
        ranks.kill(killed)
        other = running[1 - killed]
        assert other.wait() == 1
        assert f"RankLostError: rank {killed} has vanished" in other.output()
    run = the_run(root)
    assert run.state == ("failed" if killed else "died")
    assert parts_in(run.directory) == {"rank1": "died" if killed else "failed"}
