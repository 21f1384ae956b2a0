"""The journal's queue and writer: durability, full queues, faults, signals."""

from __future__ import annotations

import os
import signal
import threading
import time
from collections.abc import Iterator
from itertools import islice
from pathlib import Path
from typing import Any

import anyio
import anyio.from_thread
import pytest
from anyio.lowlevel import current_token

from keisei._io.background_writer import Policy
from keisei.errors import JournalError
from keisei.journal.reader import read_run
from keisei.journal.writer import Journal
from tests.support.journal import Disk, hold, series


@pytest.fixture
def run(tmp_path: Path) -> str:
    """A run's directory."""
    directory = tmp_path / "run"
    directory.mkdir()
    return str(directory)


@pytest.fixture
def disk(monkeypatch: pytest.MonkeyPatch) -> Iterator[Disk]:
    """A disk that can be told to hang or refuse."""
    disk = Disk(monkeypatch)
    yield disk
    disk.free.set()


@pytest.mark.parametrize("durability", ["buffered", "line", "fsync"])
def test_a_flush_makes_durable_what_was_logged(run: str, disk: Disk, durability: Any) -> None:
    """After it returns the rows are in the file, and with `fsync` synced after the write."""
    journal = Journal(run, 1, durability=durability, max_delay=3600)
    for x in range(100):
        journal.log_metrics({"x": x})
    journal.flush(10)
    assert series(run) == list(range(100))
    assert (disk.calls[-1] == "fsync") == (durability == "fsync")
    journal.log_metrics({"x": 100})
    journal.flush(10)
    assert series(run) == list(range(101))
    assert journal.counters == (101, 101, 0, 0, os.path.getsize(journal.path), 0)
    journal.close()


@pytest.mark.parametrize(("durability", "max_delay"), [("line", 3600), ("buffered", 0.01)])
def test_rows_are_written_without_a_flush(
    run: str, disk: Disk, durability: Any, max_delay: float
) -> None:
    """At once with `line`, and within the delay with `buffered`."""
    journal = Journal(run, 1, durability=durability, max_delay=max_delay)
    journal.log_metrics({"x": 1.0}, 1)
    assert disk.reached.wait(60)
    first = next(read_run(run).follow(poll=0.001))
    assert first.values == {"x": 1.0}
    journal.close()


async def test_a_loop_awaits_durability_without_polling(run: str) -> None:
    """`on_durable` calls back from a writer's thread; logging does not block the loop."""
    journal = Journal(run, 1, durability="fsync")
    token, durable = current_token(), anyio.Event()
    errors: list[JournalError | None] = []

    def tell(error: JournalError | None) -> None:
        errors.append(error)
        anyio.from_thread.run_sync(durable.set, token=token)

    for x in range(10):
        journal.log_metrics({"x": x}, x)
    journal.log_event("here")
    journal.on_durable(tell)
    with anyio.fail_after(60):
        await durable.wait()
    assert errors == [None]
    assert await anyio.to_thread.run_sync(series, run) == list(range(10))
    await anyio.to_thread.run_sync(journal.close)


def test_a_callback_that_raises_harms_nobody(
    run: str, disk: Disk, caplog: pytest.LogCaptureFixture
) -> None:
    """It is logged; the thread lives, and other waiters are answered."""
    journal = Journal(run, 1)
    hold(journal, disk)

    def fail(_: object) -> None:
        raise ZeroDivisionError("mine")

    journal.on_durable(fail)
    threading.Timer(0, disk.free.set).start()
    journal.flush(10)
    journal.close()
    assert "mine" in caplog.text
    assert journal.counters.written == 1


def test_each_write_of_rows_is_told(run: str, disk: Disk, caplog: pytest.LogCaptureFixture) -> None:
    """Before their flush returns, not for a write that failed, and also where it raises."""
    told: list[int] = []

    def tell() -> None:
        told.append(journal.counters.written)
        raise ZeroDivisionError("mine")

    journal = Journal(run, 1, max_delay=3600, on_written=tell)
    journal.flush(10)
    assert told == []
    journal.log_metrics({"x": 1.0})
    disk.refuse["write"] = 1000
    with pytest.raises(JournalError):
        journal.flush(10)
    assert told == []
    disk.refuse.clear()
    journal.flush(10)
    assert told == [1]
    journal.log_metrics({"x": 2.0})
    journal.log_event("last")
    journal.close(10)
    assert told == [1, 3]
    assert caplog.text.count("ZeroDivisionError: mine") == 2


def test_a_callback_may_log_though_the_queue_is_full(run: str, disk: Disk) -> None:
    """A writer's thread does not wait for itself: there the oldest row is dropped."""
    journal = Journal(run, 1, capacity=2)
    hold(journal, disk)
    logged = threading.Event()

    def log(_: object) -> None:
        for x in range(10):
            journal.log_metrics({"x": x})
        logged.set()

    journal.on_durable(log)
    disk.free.set()
    assert logged.wait(60)
    journal.close(5)
    assert series(run) == [8, 9]
    assert journal.counters[:4] == (11, 3, 8, 0)


@pytest.mark.parametrize(("policy", "kept"), [("drop_oldest", [5, 6, 7, 8]), ("latest", [8])])
def test_a_full_queue_drops_by_its_policy(
    run: str, disk: Disk, policy: Policy, kept: list[int]
) -> None:
    """While the disk hangs, memory stays bounded, and what was dropped is counted and a gap."""
    journal = Journal(run, 1, capacity=4, policy=policy)
    hold(journal, disk)
    for x in range(8):
        journal.log_metrics({"x": x})
    assert journal.counters[:4] == (9, 0, 4, 5)
    journal.log_metrics({"x": 8})
    disk.free.set()
    journal.close()
    assert series(run) == kept
    assert journal.counters[:4] == (10, len(kept) + 1, 9 - len(kept), 0)
    assert read_run(run).damage().missing == 9 - len(kept)
    assert [row.seq for row in read_run(run).rows()][-1] == 9


def test_waiting_loses_nothing(run: str, disk: Disk) -> None:
    """With `wait` a thread waits for room, and goes on when there is some."""
    journal = Journal(run, 1, capacity=4)
    hold(journal, disk)
    done = threading.Event()

    def log() -> None:
        for x in range(100):
            journal.log_metrics({"x": x})
        done.set()

    threading.Thread(target=log).start()
    assert not done.wait(0.05)
    assert journal.counters.queued <= 6
    disk.free.set()
    assert done.wait(60)
    journal.close()
    assert series(run) == list(range(100))
    assert journal.counters.dropped == 0


async def test_waiting_never_holds_a_loop(run: str, disk: Disk) -> None:
    """On a loop's thread `wait` drops the oldest row instead, and counts it."""
    journal = Journal(run, 1, capacity=4)
    await anyio.to_thread.run_sync(hold, journal, disk)
    for x in range(10):
        journal.log_metrics({"x": x})
    assert journal.counters.dropped == 6
    disk.free.set()
    await anyio.to_thread.run_sync(journal.close)
    assert await anyio.to_thread.run_sync(series, run) == [6, 7, 8, 9]


def test_waiting_has_an_end(run: str, disk: Disk, monkeypatch: pytest.MonkeyPatch) -> None:
    """A disk that hangs stops the training once, for a bounded time, and then no more."""
    monkeypatch.setattr("keisei._io.background_writer.LONGEST_WAIT", 0.05)
    journal = Journal(run, 1, capacity=4)
    hold(journal, disk)
    for x in range(1000):
        journal.log_metrics({"x": x})
    assert journal.counters.dropped == 996
    disk.free.set()
    journal.flush(10)
    assert series(run) == [996, 997, 998, 999]
    journal.close()


def test_many_threads_lose_nothing_and_keep_their_order(run: str) -> None:
    """Each thread's rows are there once, in its order, whatever shapes they have."""
    journal = Journal(run, 1, max_delay=0.001, capacity=64)
    start = threading.Barrier(9)

    def log(number: int) -> None:
        start.wait()
        for x in range(500):
            journal.log_metrics({"thread": number, f"x{number if x % 3 else 99}": x}, x)

    threads = [threading.Thread(target=log, args=(number,)) for number in range(8)]
    for thread in threads:
        thread.start()
    start.wait()
    for thread in threads:
        thread.join()
    journal.close()
    found = list(read_run(run).rows())
    assert [row.seq for row in found] == list(range(4000))
    for number in range(8):
        assert [row.step for row in found if row.values["thread"] == number] == list(range(500))


@pytest.mark.skipif(not hasattr(signal, "setitimer"), reason="this system has no interval timer")
def test_a_signal_handler_may_log(run: str) -> None:
    """A handler that logs and asks for durability in the middle of a call does no harm."""
    journal = Journal(run, 1, max_delay=0.0)
    handled = 0

    def handler(*_: object) -> None:
        nonlocal handled
        handled += 1
        journal.log_metrics({"signal": handled})
        journal.on_durable(lambda _: None)
        signal.setitimer(signal.ITIMER_REAL, 0.0002)

    before = signal.signal(signal.SIGALRM, handler)
    signal.setitimer(signal.ITIMER_REAL, 0.0002)
    try:
        for x in range(5000):
            journal.log_metrics({"x": x} if x % 2 else {"x": x, "y": 0.5})
    finally:
        signal.setitimer(signal.ITIMER_REAL, 0)
        signal.signal(signal.SIGALRM, before)
    journal.close(10)
    assert series(run) == list(range(5000))
    assert series(run, "signal") == list(range(1, handled + 1))
    assert handled > 10


def test_a_signal_while_the_thread_starts_starts_no_second_one(
    run: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    """A handler that logs at that moment leaves its row to the thread that is about to run."""
    journal = Journal(run, 1)
    start = threading.Thread.start
    started: list[str] = []

    def interrupted(thread: threading.Thread) -> None:
        started.append(thread.name)
        if len(started) == 1:
            journal.log_metrics({"x": 2.0})
            journal.on_durable(lambda _: None)
        start(thread)

    monkeypatch.setattr(threading.Thread, "start", interrupted)
    journal.log_metrics({"x": 1.0})
    journal.close(10)
    assert started == ["keisei-writers", "keisei-writer"]
    assert series(run) == [1.0, 2.0]


def test_a_full_disk_delays_and_loses_nothing(tiny_disk: Path) -> None:
    """With ENOSPC callers go on, a flush says why, and all is written, in order, when it ends."""
    filler = tiny_disk / "filler"
    filler.write_bytes(bytes(236 * 1024))
    journal = Journal(str(tiny_disk), 1, policy="drop_oldest")
    for x in range(2000):
        journal.log_metrics({"x": x, "y": x / 7, "z": 0.5})
    with pytest.raises(JournalError, match=r"metrics.1.journal.*No space left") as caught:
        journal.flush(10)
    assert caught.value.path == journal.path
    assert isinstance(caught.value.__cause__, OSError)
    assert str(journal.error) == str(caught.value)
    journal.log_metrics({"x": 2000, "y": 0.0, "z": 0.5})
    assert journal.counters.errors >= 1
    assert journal.counters.logged == journal.counters.written + journal.counters.queued == 2001
    assert journal.counters.queued > 0
    filler.unlink()
    journal.flush(10)
    assert journal.error is None
    assert series(str(tiny_disk)) == list(range(2001))
    assert read_run(tiny_disk).damage() == (0, 0, 0, 0, 0)
    journal.close()


def test_after_a_failed_fsync_the_rows_are_written_again(run: str, disk: Disk) -> None:
    """Through a new descriptor; they are read once all the same."""
    journal = Journal(run, 1, durability="fsync", max_delay=3600)
    journal.log_metrics({"x": 0})
    journal.flush(10)
    disk.calls.clear()
    disk.refuse["fsync"] = 1
    for x in range(1, 100):
        journal.log_metrics({"x": x})
    with pytest.raises(JournalError):
        journal.flush(10)
    journal.log_metrics({"x": 100})
    journal.flush(10)
    assert disk.calls == ["write", "fsync", "write", "fsync", "write", "fsync"]
    assert series(run) == list(range(101))
    assert read_run(run).damage() == (0, 0, 0, 0, 0)
    assert os.path.getsize(journal.path) > 1.8 * journal.counters.bytes
    journal.close()


def test_no_thread_to_be_had_is_told_and_tried_again(
    run: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Rows wait, a flush says why, and all is written when there is a thread."""
    journal = Journal(run, 1)
    start = threading.Thread.start

    def fail(_: threading.Thread) -> None:
        raise RuntimeError("can't start new thread")

    monkeypatch.setattr(threading.Thread, "start", fail)
    journal.log_metrics({"x": 1.0})
    with pytest.raises(JournalError, match="no thread"):
        journal.flush(10)
    monkeypatch.setattr(threading.Thread, "start", start)
    journal.log_metrics({"x": 2.0})
    journal.close(10)
    assert series(run) == [1.0, 2.0]


def test_a_disk_that_hangs_under_one_journal_stops_no_other(
    tmp_path: Path, run: str, disk: Disk
) -> None:
    """Others are flushed meanwhile, and what hung is written when it goes on."""
    hung = Journal(run, 1)
    hold(hung, disk)
    disk.only(run)
    others = []
    for number in range(20):
        directory = tmp_path / str(number)
        directory.mkdir()
        others.append(Journal(str(directory), 1))
    for number, journal in enumerate(others):
        journal.log_metrics({"x": number})
    for number, journal in enumerate(others):
        journal.flush(10)
        assert series(str(tmp_path / str(number))) == [number]
        journal.close(10)
    assert hung.counters.written == 0
    disk.free.set()
    hung.close(10)
    assert series(run, "first") == [1.0]


def test_a_row_that_comes_during_a_write_is_written_after_it(run: str, disk: Disk) -> None:
    """Nobody flushes and no other row comes: the writer looks once more before it rests."""
    journal = Journal(run, 1, max_delay=0.0)
    hold(journal, disk)
    journal.log_metrics({"x": 1.0})
    disk.free.set()
    give_up = time.monotonic() + 10
    rows = read_run(run).follow(poll=0.001, stop=lambda: time.monotonic() > give_up)
    assert [row.values for row in islice(rows, 2)] == [{"first": 1.0}, {"x": 1.0}]
    journal.close(10)
