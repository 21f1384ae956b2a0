"""Rows and events that W&B gets of a run: each once, whatever is killed, with the real SDK."""

from __future__ import annotations

import json
import math
import os
import re
import subprocess
import sys
import threading
from collections.abc import Callable, Iterator
from contextlib import ExitStack
from pathlib import Path
from typing import Any

import pytest

from keisei.journal.reader import Event, Row
from keisei.testing.wandb_server import WandbServer
from keisei.trackers.base import Position, Record, RunInfo
from keisei.trackers.wandb import rows, run_file, sdk
from keisei.trackers.wandb.link import link_of
from keisei.trackers.wandb.rows import last_number
from keisei.trackers.wandb.tracker import WandbRun, WandbTracker
from tests.support.wandb_client import client_environ
from tests.support.wandb_conformance import local_rows
from tests.support.wandb_file import find_run_files, wait_for_exit_record
from tests.support.wandb_sender import SESSION_ID, Sender, records

KINDS = ["offline", "online"]
Start = Callable[..., WandbRun]
kills = pytest.mark.skipif(os.name == "nt", reason="kills processes as POSIX does")


def module(home: Path, name: str, *arguments: str, **environ: str) -> subprocess.Popen[str]:
    """Start a module of the tests' support as a program."""
    return subprocess.Popen(
        [sys.executable, "-m", f"tests.support.{name}", *arguments],
        env=client_environ(home, environ) | {"PYTHONPATH": os.pathsep.join(filter(None, sys.path))},
        cwd=home,
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
        text=True,
    )


@pytest.fixture(scope="module", autouse=True)
def checks(tmp_path_factory: pytest.TempPathFactory) -> Iterator[dict[str, subprocess.Popen[str]]]:
    """The checks of the protocol, which go on beside the other tests."""
    homes = {kind: tmp_path_factory.mktemp(kind) for kind in KINDS}
    running = {kind: module(homes[kind], "wandb_conformance", kind) for kind in KINDS}
    yield running
    for process in running.values():
        process.kill()
        process.communicate()


@pytest.fixture
def start(tmp_path: Path) -> Start:
    """Starts an offline run in this process."""

    def start(attempt: int = 1) -> WandbRun:
        info = RunInfo(f"run-of-{tmp_path.name}"[-60:], "r", attempt, str(tmp_path), "{}")
        return WandbTracker(mode="offline").start(info)

    return start


@pytest.fixture
def sender(tmp_path: Path) -> Iterator[Callable[..., Sender]]:
    """Starts processes that send, and kills what is left of them."""
    with ExitStack() as stack:

        def start(attempt: int, mode: str, server: WandbServer | None = None) -> Sender:
            sender = Sender(tmp_path, attempt, mode, server.environ() if server else None)
            stack.callback(sender.kill)
            return sender

        yield start


def ended(run: WandbRun) -> list[dict[str, Any]]:
    """End a run; returns its rows."""
    run.finish("completed")
    assert run.directory is not None
    (file,) = find_run_files(Path(run.directory).parent.parent)[:1]
    return wait_for_exit_record(file).history


def numbers(rows: list[dict[str, Any]]) -> list[tuple[int, int]]:
    """Return the rows' hidden numbers."""
    return [(int(a), int(b)) for a, b in (row["_keisei"].split("/") for row in rows)]


def wanted(*sent: tuple[int, int]) -> list[tuple[int, int]]:
    """Return the numbers of the rows of attempts of which so many records were sent."""
    return [(attempt, n) for attempt, last in sent for n in range(last) if n % 10 != 9]


def row(seq: int, values: dict[str, Any], step: int | None = None) -> Row:
    """Make a row of the first attempt."""
    return Row(seq, 1.7e9 + seq, step, 1, values)


def test_a_row_has_its_values_time_and_step(start: Start) -> None:
    """The step is a metric, over which the others are drawn, and W&B's own step counts on."""
    run = start()
    assert run.directory is not None
    (path,) = Path(run.directory).glob("run-*.wandb")
    own = {"global_step": 3.0, "ownglobal_step": 4.0}
    run.send([row(0, {"loss": 0.5, "train/ok": True}, 700), row(1, own, 701)])
    if not run.rows.lags:
        assert rows.last_number(str(path)) == (1, 1)  # once it has returned, the file has them
    run.native.log({"picture": 1})
    run.send([row(2, {"loss": 0.25}, 20)])
    found = ended(run)
    expected = {"loss": 0.5, "train/ok": True, "global_step": 700, "_timestamp": 1.7e9}
    assert found[0].items() >= (expected | {"_keisei": "1/0"}).items()
    assert found[1]["global_step"] == 701
    assert (found[1]["ownglobal_step"], found[1]["ownownglobal_step"]) == (3.0, 4.0)
    assert (found[2]["picture"], found[3]["global_step"]) == (1, 20)
    assert [each["_step"] for each in found] == [0, 1, 2, 3]
    kinds = [run_file.parsed(p).metric for p in run_file.last_payloads(str(path), b"*")]
    assert ("*", "global_step") in [(metric.glob_name, metric.step_metric) for metric in kinds]


def test_what_wandb_would_refuse_or_overwrite_is_mapped(start: Start) -> None:
    """No name and no number stops a row, or takes the place of what is W&B's own."""
    run = start()
    own = {"_step": 1.0, "_timestamp": 2.0, "_runtime": 3.0, "_wandb": 4.0, "_keisei": 5.0, "": 6.0}
    hard = {"nan": math.nan, "inf": -math.inf, "huge": 10**400, "wide": -(10**30), "\ud800": 1.0}
    run.send([row(0, {**own, **hard})])
    (got,) = ended(run)
    assert got["_keisei"] == "1/0"
    assert (got["_step"], got["_timestamp"]) == (0, 1.7e9)
    assert [got[f"own{name}"] for name in own] == list(own.values())
    assert math.isnan(got["nan"])
    assert (got["inf"], got["huge"], got["wide"]) == (-math.inf, math.inf, -1e30)
    assert got["\\ud800"] == 1.0


def test_an_event_is_a_line_of_the_runs_log(start: Start) -> None:
    """With its time, name and data, no secret, and the number by which it is known."""
    run = start()
    run.send([Event(0, 1.7e9, 1, "saved\n", {"path": "7.pt", "api_key": "canary"})])
    assert run.position() == (1, 0)
    assert run.directory is not None
    (path,) = Path(run.directory).glob("run-*.wandb")
    ended(run)
    (payload,) = run_file.last_payloads(str(path), b"saved")
    line = run_file.parsed(payload).output_logger.line
    assert line.startswith('2023-11-14T22:13:20.000+00:00 saved\\n {"path": "7.pt"')
    assert line.endswith(" [_keisei 1/0]\n")
    assert "canary" not in line


def test_without_the_sdks_private_names_the_rows_are_the_same(
    start: Start, monkeypatch: pytest.MonkeyPatch
) -> None:
    """A release that has changed them costs time, and nothing else."""
    sent: list[Record] = [row(n, {"a": n / 3, "b": n, "c": math.inf}, n) for n in range(5)]
    sent.insert(3, Event(5, 1.7e9, 1, "e", None))
    run = start()
    assert link_of(run.native) is not None
    run.send(sent)
    monkeypatch.setattr(rows, "link_of", lambda native: None)
    run.send([each._replace(attempt=2) for each in sent])
    assert run.position() == (2, sent[-1].seq)
    found = ended(run)
    first, second = found[:5], found[5:]
    own = {"_step", "_runtime", "_keisei"}
    assert [{k: v for k, v in each.items() if k not in own} for each in first] == [
        {k: v for k, v in each.items() if k not in own} for each in second
    ]
    assert numbers(second) == [(2, n) for _, n in numbers(first)]


def test_what_users_log_beside_goes_between_whole(start: Start) -> None:
    """Rows from another thread are neither lost nor mixed with ours."""
    run = start()
    logged = threading.Thread(target=lambda: [run.native.log({"user": n}) for n in range(200)])
    logged.start()
    for first in range(0, 300, 30):
        run.send([row(n, {"ours": n}) for n in range(first, first + 30)])
    logged.join()
    found = ended(run)
    assert [each["user"] for each in found if "user" in each] == list(range(200))
    assert [each["ours"] for each in found if "ours" in each] == list(range(300))
    assert not any("user" in each and "ours" in each for each in found)
    assert [each["_step"] for each in found] == list(range(500))


def test_a_run_that_its_user_has_ended_takes_no_rows(start: Start) -> None:
    """It says so, and still tells what it holds."""
    run = start()
    run.send([row(0, {"a": 1})])
    run.native.finish()
    with pytest.raises(Exception, match="ended by its own finish"):
        run.send([row(1, {"a": 2})])
    assert run.position() == (1, 0)


def test_the_position_is_the_last_whole_record_of_the_files(tmp_path: Path) -> None:
    """Wherever the last file was torn, and however long ago its last row of ours is."""
    record = type(run_file.parsed(b""))
    payloads, path = [], tmp_path / "run.wandb"
    for seq in range(24):
        made = record()
        summary = record()
        for items in (made.history.item, summary.summary.update):
            items.add(nested_key=["x" * (seq**2 * 100)], value_json="1")
            items.add(nested_key=["_keisei"], value_json=f'"3/{seq}"')
        payloads += [summary.SerializeToString(), made.SerializeToString()]
    with path.open("wb") as file:
        run_file._write(file, payloads)
    whole = path.read_bytes()
    ends = [end for _, end in run_file._payloads_of(str(path))][1::2]
    assert rows.last_number(str(path)) == (3, 23)
    cuts = {end + by for end in ends for by in (-1, 0, 1)} | set(range(7, len(whole), 20_011))
    for cut in sorted(cut for cut in cuts if cut <= len(whole)):
        path.write_bytes(whole[:cut])
        held = sum(end <= cut for end in ends) - 1
        assert rows.last_number(str(path)) == (Position(3, held) if held >= 0 else None), cut
    other = record()
    other.history.item.add(nested_key=["user"], value_json="1" * 500)
    large = record()
    large.history.item.add(nested_key=["user"], value_json="_keisei" * 500_000)
    with path.open("wb") as file:
        run_file._write(
            file,
            [*payloads, *[other.SerializeToString()] * 4000, large.SerializeToString()],
        )
    assert rows.last_number(str(path)) == (3, 23)


@kills
def test_each_record_is_held_once_whatever_is_killed(
    sender: Callable[..., Sender], tmp_path: Path
) -> None:
    """First the process while it sends, then the service too; what was acknowledged is there."""
    first = sender(1, "offline")
    assert first.held() == (1, -1)
    first.tell("send for ever", 1, 0)
    acknowledged = [first.answer() for _ in range(4)][-1]
    first.kill()
    second = sender(2, "offline")
    attempt, held = second.held()
    assert attempt == 1
    assert held >= acknowledged
    second.ask("send", 1, held + 1, 1000)
    second.ask("send", 2, 0, 100)
    second.ask("kill the service")
    assert second.ask("fail to send", 2, 100, 150) is not None
    attempt, held = second.ask("position")
    assert attempt == 2
    assert held == 99 or (held < 99 and sdk.lags(sdk.load_sdk()))  # which its file never got
    second.kill()
    about = RunInfo(SESSION_ID, "r", 3, str(tmp_path / "run"), "{}")
    tracker = WandbTracker(mode="offline")
    third = tracker.init(tracker.load(), about, "offline", f"{SESSION_ID}-3")
    assert third.upload_as == SESSION_ID
    found = third.position()
    assert found is not None
    assert found == (2, held) or (found < (2, held) and sdk.lags(sdk.load_sdk()))
    held = found.seq
    third.send(records(2, held + 1, 150))
    third.finish("completed")
    assert third.directory is not None
    wait_for_exit_record(Path(third.directory, f"run-{third.run_id}.wandb"))
    assert numbers(local_rows(str(tmp_path))) == wanted((1, 1000), (2, 150))


@kills
@pytest.mark.parametrize("mode", KINDS)
def test_another_process_gives_the_rest_and_sync_gives_all_to_the_server(
    sender: Callable[..., Sender], tmp_path: Path, mode: str
) -> None:
    """An online run that was killed while its server was away: each row once, each with a step.

    The server may have got less than the run's file has, or what the file has lost.
    """
    with WandbServer() as server:
        first = sender(1, "online", server)
        assert first.held() == (1, -1)
        first.ask("send", 1, 0, 40)
        server.set_mode("refuses")
        first.ask("send", 1, 40, 100)
        first.kill()
        server.set_mode("ok")
        (path,) = {each.resolve() for each in find_run_files(tmp_path)}
        rows, expected = local_rows(str(tmp_path)), last_number(str(path)) or (1, -1)
        if mode == "online":
            os.truncate(path, path.stat().st_size // 2)
        taken = [json.dumps(each) for each in (rows if mode == "online" else rows[:30])]
        piece = {"offset": 0, "content": taken}
        server._cloud.file_stream(SESSION_ID, {"files": {"wandb-history.jsonl": piece}})
        if mode == "online":
            expected = numbers(server.runs[SESSION_ID].history)[-1]
        second = sender(1, mode, server)
        held = second.held()
        assert held == expected
        second.ask("send", 1, held[1] + 1, 120)
        second.ask("log", {"user": 1})
        second.ask("finish")
        second.ask("sync")
        second.end()
        run = server.runs[SESSION_ID]
        ours = [each for each in run.history if "user" not in each]
        assert numbers(ours) == wanted((1, 120))
        assert run.rows_received == len(run.history) == len(ours) + 1
        assert [each["_step"] for each in run.history] == list(range(len(ours) + 1))
        assert (run.complete, run.exit_code, run.summary["n"]) == (True, 0, 118)
        events = [re.findall(r"\[_keisei 1/(\d+)\]", line) for line in run.console]
        if mode == "offline":
            assert [int(n) for (n,) in events] == list(range(9, 120, 10))


@pytest.mark.parametrize("kind", KINDS)
def test_wandbs_tracker_keeps_to_the_protocol(
    checks: dict[str, subprocess.Popen[str]], kind: str
) -> None:
    """Read from its files, and from a server after an upload: all of it, and nothing twice."""
    out, errors = checks[kind].communicate(timeout=300)
    assert checks[kind].returncode == 0, errors
    assert len(out.splitlines()) == 9
