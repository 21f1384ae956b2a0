"""`keisei sync` against a server on loopback: every row of every run arrives, and arrives once.

The SDK keeps global state, so every session and every sync is a process of its own.
"""

from __future__ import annotations

import json
import os
import subprocess
import sys
import time
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import pytest

from keisei.testing.wandb_server import WandbServer
from tests.support.wandb_client import client_environ
from tests.support.wandb_file import find_run_files, read_run_file
from tests.support.wandb_program import Program, wait_until_nothing_is_left

pytestmark = pytest.mark.skipif(os.name == "nt", reason="kills processes as POSIX does")

SESSION = """
import json, sys
from keisei import SessionManager, load_config
from keisei.trackers.wandb.in_process import InProcessWandbTracker
name, *overrides = sys.argv[1:]


def start_substitute(self, run):
    return self.init(self.load(), run, "offline", f"{run.session_id}-{run.attempt}")


if name == "substitute":
    InProcessWandbTracker.start = start_substitute
config = load_config(overrides=["logging.wandb_enabled=true", "wandb.in_process=true",
                                *overrides])
session = SessionManager(config, run_name=name)
session.setup_directories()
session.save_effective_config()
session.setup_wandb()
print(session.session_id, flush=True)
for line in sys.stdin:
    first, last = map(int, line.split())
    for n in range(first, last):
        session.wandb_run.log({"n": n})
    print(last, flush=True)
session.finalize_session()
"""
SYNC = "from keisei.cli import main; main()"
LENIENCE = 20.0  # what a busy machine may add; a silent server, not left in time, takes for ever


class Session:
    """A program with one session, which logs what it is told to."""

    def __init__(
        self, home: Path, environ: dict[str, str], mode: str, name: str, finish_timeout: float
    ) -> None:
        self.home = home
        self._process = subprocess.Popen(
            [
                *(sys.executable, "-c", SESSION, name, f"wandb.mode={mode}"),
                f"wandb.finish_timeout={finish_timeout}",
            ],
            env=client_environ(home, environ) | {"KEISEI_LOG_DIR": str(home / "runs")},
            cwd=home,
            stdin=subprocess.PIPE,
            stdout=subprocess.PIPE,
            stderr=subprocess.PIPE,
            text=True,
        )
        self.id = self._line()

    def log(self, first: int, last: int) -> None:
        """Log the rows from one number to another one."""
        assert self._process.stdin is not None
        self._process.stdin.write(f"{first} {last}\n")
        self._process.stdin.flush()
        assert self._line() == str(last)

    def end(self) -> str:
        """End the session; gives the run's id."""
        _, errors = self._process.communicate(timeout=90)
        assert self._process.returncode == 0, errors
        return self.id

    def kill(self) -> str:
        """Kill the program; gives the run's id."""
        with self._process:
            self._process.kill()
        return self.id

    def _line(self) -> str:
        assert self._process.stdout is not None
        line = self._process.stdout.readline().strip()
        assert line, self._process.communicate()[1]
        return line


@dataclass
class Synced:
    """How `keisei sync` fared."""

    code: int
    out: str
    errors: str
    seconds: float

    @property
    def json(self) -> list[dict[str, Any]]:
        """What it printed under `--json`."""
        found: list[dict[str, Any]] = json.loads(self.out)
        return found


@dataclass
class House:
    """A home for runs, and a server for them."""

    server: WandbServer
    home: Path

    def session(self, mode: str, name: str = "r", finish_timeout: float = 60.0) -> Session:
        """Start a session."""
        return Session(self.home, self.server.environ(), mode, name, finish_timeout)

    def offline(self, first: int, last: int, name: str = "r") -> str:
        """Live through an offline session; gives its id."""
        session = self.session("offline", name)
        session.log(first, last)
        return session.end()

    def abandoned(self, first: int, sent: int, last: int) -> str:
        """Live through an online session that could send only some of its rows."""
        session = self.session("online", finish_timeout=1.0)
        self.server.set_mode("silent")
        session.log(first, last)
        session.end()
        self.server.set_mode("ok")
        self.take(session.id, sent - first)
        return session.id

    def take(self, run_id: str, rows: int) -> None:
        """Send the server the first rows of the newest run file, as if the run had sent them.

        The SDK would send them only after 15 s, or all at its end.
        """
        history = read_run_file(self.newest()).history[:rows]
        piece = {
            "offset": len(self.rows(run_id)),
            "content": [json.dumps(row) for row in history],
        }
        self.server._cloud.file_stream(run_id, {"files": {"wandb-history.jsonl": piece}})

    def newest(self) -> Path:
        """Find the newest run file."""
        files = [f for f in find_run_files(self.home) if not f.parent.is_symlink()]
        return max(files, key=lambda file: file.stat().st_mtime)

    def start_sync(self, *options: str, **environ: str) -> subprocess.Popen[str]:
        """Start `keisei sync`."""
        return subprocess.Popen(
            [sys.executable, "-c", SYNC, "sync", "--root", "runs", *options],
            cwd=self.home,
            env=client_environ(
                self.home,
                self.server.environ() | {"WANDB__FILE_STREAM_TRANSMIT_INTERVAL": "0.1"} | environ,
            ),
            stdin=subprocess.DEVNULL,
            stdout=subprocess.PIPE,
            stderr=subprocess.PIPE,
            text=True,
        )

    def sync(self, *options: str, **environ: str) -> Synced:
        """Run `keisei sync` to its end."""
        begun = time.monotonic()
        process = self.start_sync(*options, **environ)
        out, errors = process.communicate(timeout=120)
        return Synced(process.returncode, out, errors, time.monotonic() - begun)

    def rows(self, run_id: str) -> list[int]:
        """Return the rows that the server has of a run."""
        run = self.server.runs.get(run_id)
        return [row["n"] for row in run.history] if run is not None else []

    def complete(self, run_id: str, last: int, exit_code: int = 0) -> None:
        """Check that the server has got a run: each row once, config, summary and exit."""
        run = self.server.runs[run_id]
        assert self.rows(run_id) == list(range(last))
        assert run.rows_received == last
        assert run.config["wandb"]["finish_timeout"] in (1.0, 60.0)
        assert run.summary["n"] == last - 1
        assert run.complete
        assert run.exit_code == exit_code
        assert list(self.server.runs) == [run_id]

    def until(self, holds: Callable[[], object]) -> None:
        """Wait until the server has something."""
        self.server.wait_for(holds, timeout=60)

    def until_local(self, last: int) -> None:
        """Wait until the newest run file holds so many rows."""
        give_up = time.monotonic() + 60
        while True:
            files = [f for f in find_run_files(self.home) if not f.parent.is_symlink()]
            if files and [row["n"] for row in read_run_file(files[-1]).history][-1:] == [last - 1]:
                return
            assert time.monotonic() < give_up
            time.sleep(0.01)


@pytest.fixture
def house(tmp_path: Path) -> Iterator[House]:
    """A house of the test's own."""
    with WandbServer() as server:
        yield House(server, tmp_path)


def test_an_offline_run_arrives_once(house: House) -> None:
    """With its id, rows, config and exit code; a second sync adds nothing."""
    run_id = house.offline(0, 10)
    synced = house.sync("--json")
    assert synced.code == 0, synced.errors
    (told,) = synced.json
    assert (told["run"], told["id"], told["state"], told["rows"]) == ("r", run_id, "uploaded", 10)
    house.complete(run_id, 10)
    again = house.sync("--json")
    assert (again.code, again.json) == (0, [])
    house.complete(run_id, 10)


def test_an_abandoned_online_run_is_completed(house: House) -> None:
    """Only what the server has not got is sent."""
    run_id = house.abandoned(0, 5, 10)
    assert house.rows(run_id) == [0, 1, 2, 3, 4]
    synced = house.sync()
    assert synced.code == 0, synced.errors
    assert "uploaded, 5 rows" in synced.out
    house.complete(run_id, 10)
    assert house.sync().code == 0
    house.complete(run_id, 10)


def test_an_online_run_that_was_killed_is_completed(house: House) -> None:
    """It counts as failed; its rows arrive once."""
    session = house.session("online")
    house.server.set_mode("silent")
    session.log(0, 10)
    house.until_local(10)
    session.kill()
    house.server.set_mode("ok")
    house.take(session.id, 5)
    synced = house.sync()
    assert synced.code == 0, synced.errors
    house.complete(session.id, 10, exit_code=1)


def test_an_offline_run_that_was_killed_arrives(house: House) -> None:
    """Also where its file ends in the middle of a record."""
    session = house.session("offline")
    session.log(0, 10)
    house.until_local(10)
    session.kill()
    (file,) = {f.resolve() for f in find_run_files(house.home)}
    with file.open("ab") as torn:
        torn.write(b"\x01\x02\x03\x04\x40\x00\x01half a record")
    synced = house.sync()
    assert synced.code == 0, synced.errors
    house.complete(session.id, 10, exit_code=1)


def test_two_offline_attempts_arrive_in_their_order(house: House) -> None:
    """As one run."""
    run_id = house.offline(0, 5)
    assert house.offline(5, 9) == run_id
    synced = house.sync("--json")
    assert synced.code == 0, synced.errors
    assert [told["rows"] for told in synced.json] == [5, 4]
    house.complete(run_id, 9)
    assert [row["_step"] for row in house.server.runs[run_id].history] == list(range(9))


@pytest.mark.storm
def test_an_abandoned_attempt_behind_a_complete_one(house: House) -> None:
    """Its missing rows are added, and the run's end stays that of the last attempt."""
    run_id = house.abandoned(0, 5, 10)
    session = house.session("online")
    session.log(10, 14)
    assert session.end() == run_id
    synced = house.sync("--json")
    assert synced.code == 0, synced.errors
    assert [told["rows"] for told in synced.json] == [5]
    run = house.server.runs[run_id]
    assert sorted(house.rows(run_id)) == list(range(14))
    assert len({row["_step"] for row in run.history}) == 14
    assert run.rows_received == 14
    assert run.summary["n"] == 13
    assert (run.complete, run.exit_code) == (True, 0)


@pytest.mark.storm
def test_two_abandoned_attempts_are_completed(house: House) -> None:
    """What each has sent is told apart."""
    run_id = house.abandoned(0, 5, 10)
    assert house.abandoned(10, 13, 16) == run_id
    synced = house.sync("--json")
    assert synced.code == 0, synced.errors
    assert [told["rows"] for told in synced.json] == [5, 3]
    assert sorted(house.rows(run_id)) == list(range(16))
    assert house.server.runs[run_id].rows_received == 16
    assert house.server.runs[run_id].summary["n"] == 15


def test_a_substitute_arrives_under_the_true_id(house: House) -> None:
    """The run's own id is the session's, whatever the file says."""
    run_id = house.offline(0, 10, "substitute")
    (file,) = {f.resolve() for f in find_run_files(house.home)}
    assert file.name == f"run-{run_id}-1.wandb"
    synced = house.sync()
    assert synced.code == 0, synced.errors
    house.complete(run_id, 10)


@pytest.mark.parametrize("begin", ["abandoned", pytest.param("offline", marks=pytest.mark.storm)])
def test_a_sync_that_was_killed_goes_on(house: House, begin: str) -> None:
    """No row is sent twice, although the server had taken some in."""
    if begin == "offline":
        run_id, before = house.offline(0, 5000), 0
    else:
        run_id, before = house.abandoned(0, 5, 5000), 5
    house.server.set_mode("slow", endpoint="file_stream", seconds=1)
    process = house.start_sync()
    house.until(lambda: len(house.rows(run_id)) > before)
    with process:
        process.kill()
    house.server.set_mode("ok", endpoint="file_stream")
    synced = house.sync()
    assert synced.code == 0, synced.errors
    house.complete(run_id, 5000)


def test_a_dark_server_is_waited_for_once(house: House) -> None:
    """Within the limit, and every run is listed as remaining."""
    house.offline(0, 3, "a")
    house.offline(0, 3, "b")
    start = house.sync("--dry-run").seconds  # imports, on this machine as busy as it is
    house.server.set_mode("silent")
    synced = house.sync("--timeout", "2", "--json")
    assert synced.code == 1
    assert [told["state"] for told in synced.json] == ["remaining"] * 2
    assert all("W&B does not answer" in told["reason"] for told in synced.json)
    assert synced.seconds < 2 + 2 + 3 * start + LENIENCE
    house.server.set_mode("ok")
    house.server.set_mode("silent", endpoint="file_stream")
    synced = house.sync("a", "--timeout", "2")
    assert synced.code == 1
    assert "a: remaining: W&B did not take it within 2 s" in synced.out
    assert synced.seconds < 2 + 3 + 3 * start + LENIENCE
    house.server.set_mode("ok")
    assert house.sync().code == 0
    assert [run.rows_received for run in house.server.runs.values()] == [3, 3]


@pytest.mark.parametrize("mode", ["401", pytest.param("500", marks=pytest.mark.storm)])
def test_a_server_that_refuses_leaves_all_where_it_is(house: House, mode: Any) -> None:
    """It ends in time, says why, and never shows the key."""
    house.offline(0, 3)
    start = house.sync("--dry-run").seconds
    house.server.set_mode(mode)
    synced = house.sync("--timeout", "3")
    assert synced.code == 1
    assert "r: remaining:" in synced.out
    assert house.server.api_key not in synced.out + synced.errors
    assert synced.seconds < 3 + 3 + 3 * start + LENIENCE


def test_the_service_of_another_program_is_left_alone(house: House) -> None:
    """A training program that starts the command has named its own in the environment."""
    run_id = house.offline(0, 3)
    synced = house.sync(WANDB_SERVICE="4-1-unix-/gone")
    assert synced.code == 0, synced.errors
    house.complete(run_id, 3)


def test_a_dry_run_touches_nothing(house: House) -> None:
    """It lists, without the network and without a mark on the disk."""
    run_id = house.offline(0, 3)
    before = sorted(house.home.joinpath("runs").rglob("*"))
    asked = len(house.server.requests)
    synced = house.sync("--dry-run", "--json", WANDB_API_KEY="")
    assert synced.code == 1, synced.errors  # something remains
    (told,) = synced.json
    assert told["state"] == "would upload"
    assert (told["id"], told["rows"]) == (run_id, 3)
    assert Path(told["file"]).is_file()
    assert sorted(house.home.joinpath("runs").rglob("*")) == before
    assert len(house.server.requests) == asked


def test_a_live_run_is_left_alone(house: House) -> None:
    """It is said to be running, and one that was named but is not there to be missing."""
    session = house.session("offline")
    session.log(0, 3)
    house.until_local(3)
    synced = house.sync("r", "--json")
    assert [told["state"] for told in synced.json] == ["running"]
    assert house.server.runs == {}
    session.end()
    missing = house.sync("nobody")
    assert missing.code == 2
    assert "there is no run 'nobody'" in missing.errors


def test_without_a_key_it_says_how_to_log_in(house: House) -> None:
    """And never asks for one."""
    house.offline(0, 3)
    synced = house.sync(WANDB_API_KEY="")
    assert synced.code == 1
    assert "wandb login" in synced.out
    assert house.server.runs == {}


def test_without_its_extra_the_program_names_it(house: House) -> None:
    """In one line."""
    program = f"import sys; sys.modules['typer'] = None; {SYNC}"
    done = subprocess.run([sys.executable, "-c", program], capture_output=True, text=True)
    assert done.returncode == 2
    assert done.stderr == 'keisei: the program needs typer: pip install "keisei[cli]"\n'


@pytest.mark.requirement("HOST-2", "HOST-3")
@pytest.mark.parametrize(
    "mode",
    [
        ("silent", "UpsertBucket"),
        pytest.param(("silent", None), marks=pytest.mark.storm),
        pytest.param(("silent", "file_stream"), marks=pytest.mark.storm),
        pytest.param(("401", None), marks=pytest.mark.storm),
        pytest.param(("500", None), marks=pytest.mark.storm),
        pytest.param(("closes", None), marks=pytest.mark.storm),
    ],
)
@pytest.mark.parametrize("began", [pytest.param(True, marks=pytest.mark.storm), False])
def test_a_sync_ends_in_time_whatever_the_server_does(
    house: House, mode: tuple[Any, str | None], began: bool
) -> None:
    """What W&B has in part, or never got, remains; nothing is left over, and later all arrives."""
    if not began:
        house.server.set_mode("silent")
    program = Program(
        house.server,
        house.home,
        "blocking",
        f"wandb.init_timeout={60 if began else 4}",
        "wandb.finish_timeout=0.5",
        "wandb.offline_fallback=false",
        "tracking.linger=0.5",
    )
    assert program.started()["active"] is began
    house.server.set_mode("silent")
    run_id = program.end().facts["id"]
    wait_until_nothing_is_left(house.home, LENIENCE)
    house.server.set_mode("ok")
    house.server.set_mode(mode[0], endpoint=mode[1])
    status, said, took = program.sync("--timeout", "2")
    assert (status, [outcome["state"] for outcome in said]) == (1, ["remaining"])
    assert took < 2 + LENIENCE
    wait_until_nothing_is_left(house.home, LENIENCE)
    house.server.set_mode("ok")
    status, said, _ = program.sync()
    assert status == 0, said
    assert house.rows(run_id) == list(range(10))
    run = house.server.runs[run_id]
    assert (run.rows_received, run.complete, run.exit_code) == (10, True, 0)
    assert program.sync()[:2] == (0, [])
