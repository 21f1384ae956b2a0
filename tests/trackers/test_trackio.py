"""The trackio tracker, read back with trackio's own reader."""

from __future__ import annotations

import math
import os
import sqlite3
import subprocess
import sys
import threading
from functools import partial
from pathlib import Path
from typing import Any

import pytest
import trackio
import trackio.fragments
import trackio.sqlite_storage
import trackio.utils
from trackio.sqlite_storage import SQLiteStorage

from keisei.errors import TrackerError
from keisei.journal.records import Event, Row
from keisei.run.status import FINAL, check_final
from keisei.testing import check_tracker
from keisei.trackers.base import Position, Record, RunInfo
from keisei.trackers.trackio import TrackioRun, TrackioTracker

ROOT = Path(__file__).parents[2]
BASE_TIME = 1_700_000_000.0


@pytest.fixture(autouse=True)
def store(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """A store of each test's own, also for its subprocesses."""
    for name in [name for name in os.environ if name.startswith("TRACKIO_")]:
        monkeypatch.delenv(name)
    return use(tmp_path / "store", monkeypatch)


def use(store: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """Move the store there: trackio reads the variable when it is imported."""
    monkeypatch.setenv("TRACKIO_DIR", str(store))
    for module in (trackio.utils, trackio.sqlite_storage):
        monkeypatch.setattr(module, "TRACKIO_DIR", store)
    return store


def info_of(session_id: str = "session-1", attempt: int = 1, text: str = "{}") -> RunInfo:
    return RunInfo(session_id, "a-run", attempt, "/a/directory", text)


def rows_of(count: int, attempt: int = 1, first: int = 0) -> list[Record]:
    return [
        Row(seq, BASE_TIME + attempt * 100 + seq / 8, seq, attempt, {"loss": 1.0 / (seq + 1)})
        for seq in range(first, first + count)
    ]


def started(info: RunInfo | None = None, **options: Any) -> TrackioRun:
    return TrackioTracker(**options).start(info or info_of())


def logs_of(session_id: str = "session-1", project: str = "keisei") -> list[dict[str, Any]]:
    logs: list[dict[str, Any]] = SQLiteStorage.get_logs(project, run_id=session_id)
    return logs


def steps_of(session_id: str = "session-1") -> list[int]:
    return [row["step"] for row in logs_of(session_id)]


def read(info: RunInfo) -> dict[str, list[tuple[int | None, float]]]:
    """Return steps and values by metric."""
    series: dict[str, list[tuple[int | None, float]]] = {}
    for row in logs_of(info.session_id):
        step = row.pop("step")
        del row["timestamp"]
        for name, value in row.items():
            series.setdefault(name, []).append((step, value))
    return series


def python(program: str) -> subprocess.Popen[str]:
    """Run a program that has this package and this store."""
    command = [sys.executable, "-W", "error", "-c", program]
    return subprocess.Popen(
        command, text=True, stdout=subprocess.PIPE, stderr=subprocess.PIPE, cwd=ROOT
    )


def test_it_keeps_to_the_protocol() -> None:
    """The conformance check has nothing against it."""
    assert len(check_tracker(TrackioTracker, read)) == 9


def test_rows_keep_their_times_and_what_is_not_finite() -> None:
    """They come back as they were sent, with names and numbers that trackio has for itself."""
    values: list[dict[str, float | int | bool]] = [
        {"a": math.nan, "b": math.inf, "c": -math.inf, "d": True, "e": 2**64 - 1, "f": -(2**63)},
        {"step": 7.0, "timestamp": 8, "__a": 9, "deep/er": 1.5, "nul\0": 2, "\ud800": 3},
        {"huge": 10**400, "minus": -(10**400), "over": 2**64},
        {},
    ]
    run = started()
    run.send([Row(i, BASE_TIME + i / 4, i, 1, value) for i, value in enumerate(values)])
    first, second, third, _ = logs_of()
    assert math.isnan(first.pop("a"))
    assert first == {
        **{"b": math.inf, "c": -math.inf, "d": True, "e": 2**64 - 1, "f": -(2**63)},
        **{"step": 0, "timestamp": "2023-11-14T22:13:20.000000+00:00"},
    }
    assert second == {
        **{"__step": 7.0, "__timestamp": 8, "____a": 9, "deep/er": 1.5, "nul\0": 2, "?": 3},
        **{"step": 1, "timestamp": "2023-11-14T22:13:20.250000+00:00"},
    }
    assert (third["huge"], third["minus"], third["over"]) == (math.inf, -math.inf, 2.0**64)


def test_a_row_without_a_step_gets_the_next_one() -> None:
    """It counts on from the largest step of the run, in a later attempt too."""
    steps = [None, None, 10, None, 3, None, 2**70, None, -(2**70)]
    rows = [Row(i, BASE_TIME + i, step, 1, {"a": 1}) for i, step in enumerate(steps)]
    run = started()
    run.send(rows[:6])
    assert steps_of() == [0, 1, 10, 11, 3, 12]
    again = started(info_of(attempt=2))
    again.send([Row(0, BASE_TIME + 5.5, None, 2, {"a": 1})])
    assert steps_of()[-1] == 13
    run.send(rows[6:])
    assert steps_of()[-3:] == [2**63 - 1, 2**63 - 1, -(2**63) + 1]


def test_a_resumed_run_is_one_run_with_the_newer_config() -> None:
    """Trackio's own interface sees one run, and keys of trackio's own are not overwritten."""
    run = started(info_of(text='{"_Group": "mine", "lr": 0.5, "deep": {"n": 1e999}}'), group="g")
    run.send(rows_of(3))
    again = started(info_of(attempt=2, text='{"lr": 0.25, "big": 1' + "0" * 30 + "}"), group="g")
    (seen,) = trackio.Api().runs("keisei")
    assert (seen.name, seen.id) == ("a-run", "session-1")
    deep = {"n": "Infinity"}  # its reader turns only the outermost values back
    assert seen.config == {"config_Group": "mine", "lr": 0.5, "deep": deep, "_Group": "g"}
    again.send(rows_of(2, attempt=2))
    run.send(rows_of(1, first=3))  # late, from a process that has not ended yet
    (seen,) = trackio.Api().runs("keisei")
    assert seen.config == {"lr": 0.25, "big": 1e30, "_Group": "g"}
    assert steps_of() == [0, 1, 2, 3, 0, 1]


def test_events_and_the_end_are_alerts(capfd: pytest.CaptureFixture[str]) -> None:
    """Each is there once, with its step and without secrets; and nothing is printed."""
    run = started()
    run.send(rows_of(5))
    events: list[Record] = [
        Event(5, BASE_TIME + 200, 1, "checkpoint", {"path": "ü.pt", "hf_token": "hidden-it-is"}),
        Event(6, BASE_TIME + 201, 1, "\ud800", "x" * 5000),
        Event(7, BASE_TIME + 202, 1, "bare", None),
    ]
    run.send(events)
    run.send(events)
    alerts = sorted(trackio.Api().alerts("keisei"), key=lambda alert: alert["timestamp"])
    found = [(a["title"], a["text"], a["level"], a["step"]) for a in alerts]
    long = '"' + "x" * 3999 + "..."
    assert found == [
        ("checkpoint", '{"path": "ü.pt", "hf_token": "**********"}', "info", 4),
        ("?", long, "info", 4),
        ("bare", None, "info", 4),
    ]
    assert alerts[0]["timestamp"] == "2023-11-14T22:16:40.000000+00:00"
    for attempt, status in enumerate(sorted(FINAL), 2):
        run = started(info_of(attempt=attempt))
        run.send(rows_of(1, attempt))
        run.finish(check_final(status))
        run.finish(check_final(status))
    ends = [a for a in trackio.Api().alerts("keisei") if a["title"].startswith("run ")]
    assert sorted((a["title"], a["level"], a["text"]) for a in ends) == [
        ("run cancelled", "warn", "attempt 2"),
        ("run completed", "info", "attempt 3"),
        ("run failed", "error", "attempt 4"),
        ("run preempted", "warn", "attempt 5"),
    ]
    assert capfd.readouterr() == ("", "")


def test_who_resumes_a_run_only_to_end_it_leaves_the_end() -> None:
    """A process that was killed has sent the rows; of a run without rows the end is there, too."""
    started().send(rows_of(5))
    started().finish("failed")
    started(info_of("session-2")).finish("completed")
    ends = trackio.Api().alerts("keisei")
    assert sorted((end["title"], end["step"]) for end in ends) == [
        ("run completed", 0),
        ("run failed", 4),
    ]


def test_rows_without_a_step_keep_theirs_when_they_are_sent_again() -> None:
    """After a kill before the cursor was stored, what comes next counts on without a gap."""
    rows = [Row(i, BASE_TIME + i, None, 1, {"a": i}) for i in range(30)]
    started().send(rows[:20])
    started().send(rows[8:])
    assert steps_of() == list(range(30))


SENDS_WITHOUT_END = """
from keisei.journal.reader import Row
from keisei.trackers.base import RunInfo
from keisei.trackers.trackio import TrackioTracker
run = TrackioTracker().start(RunInfo("session-1", "a-run", 1, "/a/directory", "{}"))
seq = 0
while True:
    run.send([
        Row(n, 1_700_000_100.0 + n / 8, n, 1, {"loss": 1.0 / (n + 1)}) for n in range(seq, seq + 50)
    ])
    seq += 50
    print(seq, flush=True)
"""


def test_what_was_sent_before_a_kill_is_there_once() -> None:
    """A process is killed while it sends; another one sends the whole again."""
    child = python(SENDS_WITHOUT_END)
    assert child.stdout is not None
    while int(child.stdout.readline() or "1000") < 200:
        pass
    child.kill()
    rest = child.communicate()[0].split()
    sent = int(rest[-1]) if rest else 200
    assert steps_of()[:sent] == list(range(sent))
    started().send(rows_of(sent + 100))
    assert steps_of() == list(range(sent + 100))


def short_waits(monkeypatch: pytest.MonkeyPatch) -> None:
    """Make trackio wait 0.1 s and not 30 for a lock of SQLite's."""
    waiting = partial(SQLiteStorage._get_connection, timeout=0.1)
    monkeypatch.setattr(SQLiteStorage, "_get_connection", staticmethod(waiting))


def test_a_locked_store_is_an_error_and_then_works_again(
    store: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """While another program holds the write lock nothing is half there."""
    short_waits(monkeypatch)
    run = started(info_of(text='{"lr": 1}'))
    rows = [*rows_of(4), Row(4, BASE_TIME + 300, None, 1, {"loss": 0.0})]
    other = sqlite3.connect(store / "keisei.db", isolation_level=None)
    other.execute("BEGIN IMMEDIATE")
    for _ in range(2):
        with pytest.raises(sqlite3.OperationalError, match="locked"):
            run.send(rows)
        with pytest.raises(sqlite3.OperationalError, match="locked"):
            started(info_of("session-2"))
    other.execute("ROLLBACK")
    other.close()
    run.send(rows)
    assert steps_of() == [0, 1, 2, 3, 4]
    assert trackio.Api().runs("keisei")[0].config == {"lr": 1, "_Group": None}


def test_a_full_store_is_an_error_and_then_works_again(
    tiny_disk: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """What was sent before is there, what failed is not, and it is taken once there is space."""
    used = use(tiny_disk / "store", monkeypatch)
    subprocess.run(["mount", "-o", "remount,size=1m", str(tiny_disk)], check=True)
    run = started()
    sent = 0
    with pytest.raises(sqlite3.OperationalError, match="full|disk I/O"):
        while True:
            run.send(rows_of(500, first=sent))
            sent += 500
    assert steps_of() == list(range(sent))
    subprocess.run(["mount", "-o", "remount,size=8m", str(tiny_disk)], check=True)
    run.send(rows_of(500, first=sent))
    assert steps_of() == list(range(sent + 500))
    assert used.is_dir()


def test_a_store_that_cannot_be_made_is_an_error(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """The start fails; keisei goes on without trackio."""
    (tmp_path / "file").write_text("")
    use(tmp_path / "file" / "store", monkeypatch)
    with pytest.raises(OSError, match="file"):
        started()


def test_sessions_of_one_name_do_not_mix() -> None:
    """Two send to one project at the same time, and each has its own rows, all of them."""

    def work(session_id: str, first: int) -> None:
        run = started(info_of(session_id))
        for start in range(first, first + 100, 20):
            run.send(rows_of(20, first=start))
        run.finish("completed")

    threads = [threading.Thread(target=work, args=(f"session-{i}", i * 1000)) for i in range(2)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert steps_of("session-0") == list(range(100))
    assert steps_of("session-1") == list(range(1000, 1100))
    assert sorted(run.id for run in trackio.Api().runs("keisei")) == ["session-0", "session-1"]


def test_where_trackio_writes_no_database_its_inbox_gets_the_rows(
    store: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """As on a network file system; its dashboard imports them, each once."""
    monkeypatch.setenv("TRACKIO_STORAGE_MODE", "jsonl")
    run = started(info_of(text='{"lr": 1}'))
    rows = [*rows_of(3), Row(3, BASE_TIME + 300, None, 1, {"loss": math.nan})]
    for _ in range(2):
        run.send([*rows, Event(4, BASE_TIME + 301, 1, "note", None)])
    run.finish("failed")
    assert list(store.glob("*.db")) == []
    trackio.fragments.import_inbox_dir()
    assert steps_of() == [0, 1, 2, 3]
    assert math.isnan(logs_of()[3]["loss"])
    assert logs_of()[0]["timestamp"].startswith("2023-11-14T22:15:00")
    assert trackio.Api().runs("keisei")[0].config == {"lr": 1, "_Group": None}
    assert [a["title"] for a in trackio.Api().alerts("keisei")] == ["run failed", "note"]


def test_options_are_checked() -> None:
    """What trackio could not do for the run is said before it starts."""
    with pytest.raises(TrackerError, match=r"'space_id'.*`trackio sync` takes them to a Space"):
        TrackioTracker(space_id="me/space")
    with pytest.raises(ValueError, match="registry-"):
        started(project="registry-mine")
    run = started(project="../of my\ud800 own", group="\ud800")
    run.send(rows_of(2))
    assert sorted(os.listdir(trackio.utils.TRACKIO_DIR)) == ["ofmyown.db", "ofmyown.lock"]
    assert len(logs_of(project="../of my? own")) == 2


def test_a_remote_store_in_the_environment_is_not_used(
    monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    """One warning says so."""
    monkeypatch.setenv("TRACKIO_SERVER_URL", "http://127.0.0.1:9/")
    started().send(rows_of(1))
    assert caplog.text.count("TRACKIO_SERVER_URL is set") == 1
    assert steps_of() == [0]


DISTURBS_NOTHING = """
import gc, logging, os, signal, sys, threading
from keisei.journal.reader import Row
from keisei.trackers.base import RunInfo
from keisei.trackers.trackio import TrackioTracker

calls = []
watched = {"socket.connect", "socket.getaddrinfo", "socket.bind"}
sys.addaudithook(lambda event, args: calls.append(event) if event in watched else None)

def state():
    root = logging.getLogger()
    handlers = {n: signal.getsignal(n) for n in (signal.SIGINT, signal.SIGTERM)}
    return (
        dict(os.environ), threading.enumerate(), handlers, sys.excepthook,
        sys.getswitchinterval(), gc.isenabled(), gc.get_freeze_count(),
        (root.level, root.handlers, logging.getLogger("httpx").level),
    )

tracker = TrackioTracker()
assert "trackio" not in sys.modules and "numpy" not in sys.modules
before = state()
run = tracker.start(RunInfo("a-session", "a-run", 1, "/", '{"a": 1}'))
run.send([Row(0, 1.7e9, 0, 1, {"loss": 1.0})])
run.finish("completed")
assert state() == before
assert calls == [], calls
context = sys.modules["trackio.context_vars"]
assert context.current_run.get() is None and context.current_project.get() is None
"""


def test_nothing_else_of_the_program_is_disturbed() -> None:
    """No thread, handler, network, print or setting; trackio is imported at the start only."""
    child = python(DISTURBS_NOTHING)
    assert child.communicate() == ("", "")
    assert child.returncode == 0


WITHOUT = """
import sys
sys.modules["trackio"] = None
from keisei.errors import MissingExtraError
from keisei.trackers.base import RunInfo
from keisei.trackers.trackio import TrackioTracker
try:
    TrackioTracker().start(RunInfo("a-session", "a-run", 1, "/", "{}"))
except MissingExtraError as exc:
    print(exc)
"""


def test_without_trackio_the_extra_is_named() -> None:
    """The start says what to install."""
    out, err = python(WITHOUT).communicate()
    assert (out.count("pip install 'keisei[trackio]'"), err) == (1, "")


@pytest.mark.requirement("CKPT-7")
@pytest.mark.parametrize("steps", [[*range(20)], [None] * 20])
def test_a_resumed_run_has_the_rows_of_one_that_was_not_interrupted(steps: list[Any]) -> None:
    """What it has left behind is removed, and rows without a step are counted as if it were not."""
    rows = [row._replace(step=step) for row, step in zip(rows_of(20), steps, strict=True)]  # type: ignore[call-arg]
    run = started()
    run.send(rows)
    run.send([Event(20, BASE_TIME + 50, 1, "checkpoint", None)])
    run.finish("preempted")
    other = started(info_of("session-11"))
    other.send(rows_of(20))
    run = started(info_of(attempt=2))
    for _ in range(2):  # asked again after a kill, it changes nothing
        assert run.rewind(Position(1, 11))
    again = [row._replace(attempt=2, seq=row.seq - 12) for row in rows[12:]]
    run.send([Event(20, BASE_TIME + 50, 1, "checkpoint", None), *again])
    run.finish("completed")
    assert steps_of() == [*range(20)]
    assert [row["loss"] for row in logs_of()] == [1.0 / (step + 1) for step in range(20)]
    assert steps_of("session-11") == [*range(20)]


def test_rows_in_the_inbox_stay(monkeypatch: pytest.MonkeyPatch) -> None:
    """They are another process's to import: it says that it cannot drop them."""
    monkeypatch.setenv("TRACKIO_STORAGE_MODE", "jsonl")
    run = started()
    run.send(rows_of(3))
    assert run.rewind(Position(1, 0)) is False
