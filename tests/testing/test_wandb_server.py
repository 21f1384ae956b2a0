"""The loopback W&B server and the run file's reader, tried with the real SDK.

The SDK keeps state for its whole process, and each client needs a second to start: they are
processes of their own, all of them started at once, and the tests look at how each one fared.
"""

from __future__ import annotations

import http.client
import json
import subprocess
import sys
import threading
import time
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from contextlib import ExitStack, closing
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import pytest

from keisei.testing.wandb_cloud import RecordedRun
from keisei.testing.wandb_modes import Mode
from keisei.testing.wandb_server import WandbServer
from tests.support.wandb_client import (
    ClientReport,
    ClientRun,
    client_environ,
    client_report,
    start_client,
    sync,
)
from tests.support.wandb_file import (
    NotARunFileError,
    RunFile,
    find_run_files,
    read_run_file,
    wait_for_exit_record,
)

# What the other tests' server is like for the SDK changes with the SDK alone.
pytestmark = [pytest.mark.storm, pytest.mark.xdist_group("clients")]

BIG = {"blob": "x" * 100_000, "nested": {"list": [1, None, "é"]}}


@dataclass(frozen=True)
class Case:
    """A client, and its server's mode."""

    run: ClientRun
    mode: Mode = "ok"
    endpoint: str | None = None
    seconds: float = 1.0


@dataclass(frozen=True)
class Outcome:
    """How a client fared, and what its server and its directory then held."""

    report: ClientReport
    server: WandbServer
    directory: Path

    @property
    def run(self) -> RecordedRun:
        return self.server.runs["a"]

    @property
    def local(self) -> RunFile:
        return wait_for_exit_record(find_run_files(self.directory)[0])


HASTY = ClientRun("a", init_timeout=2.0)
CASES = {
    "ok": Case(ClientRun("a", exit_code=3)),
    "offline": Case(ClientRun("a", mode="offline", rows=100, config=BIG)),
    "silent": Case(HASTY, "silent"),
    "refuses": Case(HASTY, "refuses"),
    "500": Case(HASTY, "500"),
    "401": Case(HASTY, "401"),
    "404": Case(HASTY, "404"),
    "closes": Case(HASTY, "closes"),
    "slow": Case(ClientRun("a"), "slow", "UpsertBucket", 0.5),
    "too slow": Case(HASTY, "slow", "UpsertBucket", 60.0),
    "flaps": Case(ClientRun("a"), "flaps", "file_stream"),
    "silent from finish": Case(ClientRun("a", finish_timeout=1.0), "silent_from_finish"),
    "silent stream": Case(ClientRun("a", finish_timeout=1.0), "silent", "file_stream"),
}


@pytest.fixture(scope="module")
def outcomes(tmp_path_factory: pytest.TempPathFactory) -> Iterator[dict[str, Outcome]]:
    """Every case's outcome; the servers stay up, in their cases' modes."""
    with ExitStack() as servers:
        started = {}
        for name, case in CASES.items():
            server = servers.enter_context(WandbServer())
            server.set_mode(case.mode, endpoint=case.endpoint, seconds=case.seconds)
            directory = tmp_path_factory.mktemp("client")
            started[name] = (start_client(case.run, directory, server.environ()), server, directory)
        yield {
            name: Outcome(client_report(process, timeout=60.0), server, directory)
            for name, (process, server, directory) in started.items()
        }


def connect(server: WandbServer) -> http.client.HTTPConnection:
    """Return a connection to the server, not yet opened."""
    return http.client.HTTPConnection(server.url.removeprefix("http://"), timeout=5.0)


def post(server: WandbServer, path: str, body: dict[str, Any]) -> Any:
    """Send the server a request as the SDK would; return the status and the decoded answer."""
    with closing(connect(server)) as connection:
        connection.request("POST", path, json.dumps(body))
        answer = connection.getresponse()
        return answer.status, json.loads(answer.read())


def upsert(server: WandbServer, run_id: str = "a") -> Any:
    """Make a run on the server."""
    request = {"operationName": "UpsertBucket", "variables": {"name": run_id, "project": "p"}}
    return post(server, "/graphql", request)


def stream(server: WandbServer, offset: int, xs: list[int]) -> Any:
    """Send history rows of the run `a`."""
    content = [json.dumps({"x": x, "_step": x}) for x in xs]
    files = {"wandb-history.jsonl": {"offset": offset, "content": content}}
    return post(server, "/files/tester/p/a/file_stream", {"files": files})


def test_online_run_is_recorded(outcomes: dict[str, Outcome]) -> None:
    """The server knows an online run's names, config, rows, summary, files and end."""
    report, run = outcomes["ok"].report, outcomes["ok"].run
    assert (report.init_error, report.finish_error) == ("", "")
    assert (run.entity, run.project, run.display_name) == ("tester", "checks", "name of a")
    assert run.config == CASES["ok"].run.config
    assert [(row["x"], row["_step"]) for row in run.history] == [(0, 0), (1, 1), (2, 2)]
    assert (run.rows_received, run.summary["x"]) == (3, 2)
    assert "config.yaml" in run.uploads
    assert (run.complete, run.exit_code, run.state) == (True, 3, "failed")
    assert run.ended_at is not None
    assert run.created_at < run.ended_at < time.monotonic()


def test_local_file_of_online_run_says_the_same(outcomes: dict[str, Outcome]) -> None:
    """The run file's reader and the server agree about a run."""
    recorded, local = outcomes["ok"].run, outcomes["ok"].local
    assert (local.run_id, local.project, local.display_name) == ("a", "checks", "name of a")
    assert (local.torn, local.exit_code, recorded.exit_code) == (False, 3, 3)
    assert local.config == recorded.config
    assert local.history == recorded.history
    assert local.summary["x"] == recorded.summary["x"]


def test_resumed_run_appends(tmp_path: Path) -> None:
    """A second attempt under the same id appends its rows."""
    with WandbServer() as server:
        for attempt, first in enumerate((0, 3)):
            run = ClientRun("a", resume="allow", first=first, exit_code=attempt)
            process = start_client(run, tmp_path / str(attempt), server.environ())
            assert client_report(process).init_error == ""
        recorded = server.runs["a"]
        assert [(row["x"], row["_step"]) for row in recorded.history] == [(i, i) for i in range(6)]
        assert (recorded.rows_received, recorded.exit_code) == (6, 1)


def test_public_api_sees_the_run(outcomes: dict[str, Outcome]) -> None:
    """The SDK's public API reads back a run's state and how much of its history is there."""
    server, directory = outcomes["ok"].server, outcomes["ok"].directory
    code = "import wandb; run = wandb.Api(timeout=20).run('tester/checks/a');"
    code += "print(run.state, run.lastHistoryStep, run.config['lr'])"
    done = subprocess.run(
        [sys.executable, "-c", code],
        cwd=directory,
        env=client_environ(directory, server.environ()),
        capture_output=True,
        text=True,
        timeout=60,
    )
    assert done.stdout.split() == ["failed", "2", "0.5"], done.stderr


def test_offline_run_is_synced_once(outcomes: dict[str, Outcome]) -> None:
    """An offline run sends nothing; `wandb sync` brings all rows under any id, and only once."""
    server, directory = outcomes["offline"].server, outcomes["offline"].directory
    assert server.requests == []
    sync(directory, server.environ(), "--id", "original")
    run = server.runs["original"]
    assert [row["x"] for row in run.history] == list(range(100))
    assert (run.complete, run.exit_code, run.config) == (True, 0, BIG)
    assert "Skipped 1 synced run" in sync(directory, server.environ())
    assert run.rows_received == 100


def test_syncing_again_by_force_shows_as_duplicates(outcomes: dict[str, Outcome]) -> None:
    """Rows that a client sends as new ones, though they are there, are seen twice."""
    with WandbServer() as server:
        for _ in range(2):
            sync(outcomes["offline"].directory, server.environ(), "--include-synced")
        run = server.runs["a"]
        assert (run.rows_received, len(run.history)) == (200, 200)


@pytest.mark.parametrize("name", ["silent", "refuses", "500", "too slow"])
def test_init_runs_into_its_timeout(outcomes: dict[str, Outcome], name: str) -> None:
    """Against a server that is dark, refuses, fails or dawdles, init fails after its timeout."""
    report = outcomes[name].report
    assert report.init_error.startswith("CommError: Timed out")
    assert 1.9 < report.init_s < 10


@pytest.mark.parametrize(("name", "says"), [("401", "401"), ("404", "404"), ("closes", "EOF")])
def test_init_fails_at_once(outcomes: dict[str, Outcome], name: str, says: str) -> None:
    """A refusal by status, or half an answer, ends init without a retry."""
    outcome = outcomes[name]
    assert says in outcome.report.init_error
    assert len([r for r in outcome.server.requests if r.operation == "UpsertBucket"]) == 1


@pytest.mark.parametrize("name", ["silent", "refuses", "500", "401", "404", "closes", "too slow"])
def test_failed_init_may_leave_an_open_run(outcomes: dict[str, Outcome], name: str) -> None:
    """Where only the answer was lost or late, the server has a run, and it stays open."""
    states = [run.state for run in outcomes[name].server.runs.values()]
    assert states == (["running"] if name in ("closes", "too slow") else [])


def test_slow_server_is_waited_for(outcomes: dict[str, Outcome]) -> None:
    """Init takes at least as long as the server takes to answer."""
    report = outcomes["slow"].report
    assert report.init_error == ""
    assert report.init_s >= 0.5
    assert outcomes["slow"].run.complete


def test_flapping_server_gets_every_row_once(outcomes: dict[str, Outcome]) -> None:
    """Where every other piece of the stream fails, it is sent again, and no row is doubled."""
    run = outcomes["flaps"].run
    pieces = [r for r in outcomes["flaps"].server.requests if r.endpoint == "file_stream"]
    assert {piece.mode for piece in pieces} == {"500", "ok"}
    assert [row["x"] for row in run.history] == [0, 1, 2]
    assert (run.rows_received, run.complete) == (3, True)


@pytest.mark.parametrize("name", ["silent from finish", "silent stream"])
def test_finish_runs_into_its_timeout(outcomes: dict[str, Outcome], name: str) -> None:
    """Where the end of a run is never answered, finish gives up, and the local file is whole."""
    outcome = outcomes[name]
    assert outcome.report.init_error == ""
    assert outcome.report.finish_error == "TimeoutError: Timed out finishing run."
    assert 0.9 < outcome.report.finish_s < 10
    assert not outcome.run.complete
    assert [row["x"] for row in outcome.local.history] == [0, 1, 2]


def test_rows_sent_again_take_their_place() -> None:
    """Rows go where their offset says, and the raw count tells that some came twice."""
    with WandbServer() as server:
        upsert(server)
        stream(server, 2, [2, 3])
        stream(server, 0, [0, 1, 2])
        run = server.runs["a"]
        assert [row["x"] for row in run.history] == [0, 1, 2, 3]
        assert run.rows_received == 5


def test_unknown_requests_are_answered() -> None:
    """What the server does not know is a GraphQL error, or 404."""
    with WandbServer() as server:
        status, answer = post(server, "/graphql", {"query": "query Strange { x }"})
        assert (status, "Strange" in answer["errors"][0]["message"]) == (200, True)
        assert stream(server, 0, [1])[0] == 404
        assert post(server, "/elsewhere", {})[0] == 404


def test_narrower_setting_goes_before_wider() -> None:
    """An operation's mode goes before its endpoint's, and that before the whole server's."""
    with WandbServer() as server:
        server.set_mode("404")
        server.set_mode("500", endpoint="graphql")
        server.set_mode("ok", endpoint="UpsertBucket")
        assert upsert(server)[0] == 200
        assert post(server, "/graphql", {"operationName": "Viewer"})[0] == 500
        assert stream(server, 0, [1])[0] == 404
        server.set_mode("ok")
        assert post(server, "/graphql", {"operationName": "Viewer"})[0] == 200


def test_refusing_server_comes_back_on_its_port() -> None:
    """Connections are refused while the port is kept, and accepted again afterwards."""
    with WandbServer() as server:
        for _ in range(3):
            server.set_mode("refuses")
            with pytest.raises(ConnectionRefusedError):
                upsert(server)
            server.set_mode("ok")
            assert upsert(server)[0] == 200


def test_end_of_silence_drops_what_hangs() -> None:
    """A request that hung is not answered later: its connection ends when the mode changes."""
    with WandbServer() as server:
        server.set_mode("silent")
        with ThreadPoolExecutor() as threads:
            hanging = threads.submit(upsert, server)
            server.wait_for(lambda: server.requests)
            server.set_mode("500", endpoint="file_stream")
            assert not hanging.done()
            server.set_mode("ok")
            assert isinstance(hanging.exception(timeout=5.0), http.client.RemoteDisconnected)
        assert server.runs == {}


def test_close_does_not_wait_for_what_hangs() -> None:
    """A server with hanging and idle connections closes at once, and leaves no thread."""
    before = set(threading.enumerate())
    server = WandbServer()
    idle = connect(server)
    idle.connect()
    server.set_mode("silent")
    with ThreadPoolExecutor(10) as threads:
        for _ in range(10):
            threads.submit(upsert, server)
        server.wait_for(lambda: len(server.requests) == 10)
        begun = time.monotonic()
        server.close()
        assert time.monotonic() - begun < 2.0
    idle.close()
    assert set(threading.enumerate()) <= before


def test_waiting_is_bounded() -> None:
    """What does not happen is a `TimeoutError` that tells what did."""
    with WandbServer() as server:
        upsert(server, "seen")
        with pytest.raises(TimeoutError, match="seen"):
            server.wait_for(lambda: server.runs["never"].complete, timeout=0.05)


def test_impossible_settings_are_refused() -> None:
    """A mode that is not there, or that cannot be, is a `ValueError`."""
    with WandbServer() as server:
        with pytest.raises(ValueError, match="no such mode"):
            server.set_mode("dark")  # type: ignore[arg-type]
        with pytest.raises(ValueError, match="refused"):
            server.set_mode("refuses", endpoint="graphql")
        with pytest.raises(ValueError, match="schedule"):
            server.set_mode("flaps", schedule=("ok", "refuses"))


def test_server_as_a_program() -> None:
    """Started by hand, the server prints its address and ends with its standard input."""
    done = subprocess.run(
        [sys.executable, "-m", "keisei.testing.wandb_server", "--mode", "401"],
        cwd=Path(__file__).parents[2],
        input="ok\nsilent graphql\n",
        capture_output=True,
        text=True,
        timeout=60,
    )
    assert done.returncode == 0, done.stderr
    assert done.stdout.startswith("export WANDB_BASE_URL=http://127.0.0.1:")


def test_reader_bears_a_torn_tail(outcomes: dict[str, Outcome], tmp_path: Path) -> None:
    """A file cut anywhere in its last record keeps everything before it, and says it is torn."""
    whole = find_run_files(outcomes["offline"].directory)[0].read_bytes()
    cut = tmp_path / "run-a.wandb"
    assert outcomes["offline"].local.config == BIG
    for length in range(len(whole) - 1, len(whole) - 12, -1):
        cut.write_bytes(whole[:length])
        run = read_run_file(cut)
        assert (run.torn, run.exit_code, len(run.history)) == (True, None, 100)
    for length in range(0, len(whole), 4999):
        cut.write_bytes(whole[:length])
        assert len(read_run_file(cut).history) <= 100


def test_reader_checks_the_checksums(outcomes: dict[str, Outcome], tmp_path: Path) -> None:
    """A flipped bit ends the reading there: no damaged record is taken for a true one."""
    content = bytearray(find_run_files(outcomes["offline"].directory)[0].read_bytes())
    content[-40_000] ^= 1
    damaged = tmp_path / "run-a.wandb"
    damaged.write_bytes(content)
    run = read_run_file(damaged)
    assert (run.torn, run.exit_code) == (True, None)
    assert [row["x"] for row in run.history] == list(range(len(run.history)))


def test_reader_refuses_other_files(tmp_path: Path) -> None:
    """A file that does not begin as W&B's do is refused, and a missing exit record times out."""
    other = tmp_path / "run-a.wandb"
    other.write_bytes(b"something else")
    with pytest.raises(NotARunFileError):
        read_run_file(other)
    with pytest.raises(TimeoutError):
        wait_for_exit_record(tmp_path / "absent.wandb", timeout=0.02)
