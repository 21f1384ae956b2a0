"""The journal's writer: what may be logged, what becomes of it, and what it costs nobody."""

from __future__ import annotations

import errno
import math
import os
import signal
import threading
from collections.abc import Callable, Iterator
from contextlib import suppress
from pathlib import Path
from types import MappingProxyType
from typing import Any

import anyio
import anyio.from_thread
import numpy as np
import pytest
from anyio.lowlevel import current_token
from hypothesis import given, settings
from hypothesis import strategies as st

from keisei.errors import JournalError
from keisei.journal import encoding
from keisei.journal.encoding import dump
from keisei.journal.lane import Policy
from keisei.journal.reader import read_run
from keisei.journal.writer import Journal


@pytest.fixture
def run(tmp_path: Path) -> str:
    """A run's directory."""
    place = tmp_path / "run"
    place.mkdir()
    return str(place)


class Disk:
    """The disk under the journal, which hangs or refuses as the test says."""

    def __init__(self, monkeypatch: pytest.MonkeyPatch) -> None:
        self.free = threading.Event()
        self.free.set()
        self.reached = threading.Event()
        self.refuse: dict[str, int] = {}
        self.calls: list[str] = []
        for name in ("write", "fsync"):
            self._replace(monkeypatch, name)

    def _replace(self, monkeypatch: pytest.MonkeyPatch, name: str) -> None:
        real = getattr(os, name)

        def call(fd: int, *args: Any) -> Any:
            if threading.current_thread().name != "keisei-journal":
                return real(fd, *args)
            self.calls.append(name)
            self.reached.set()
            assert self.free.wait(30)
            if self.refuse.get(name, 0):
                self.refuse[name] -= 1
                raise OSError(errno.ENOSPC, os.strerror(errno.ENOSPC))
            return real(fd, *args)

        monkeypatch.setattr(f"keisei.journal.file.os.{name}", call)

    def hang(self) -> None:
        """Let the next call wait for `free`."""
        self.reached.clear()
        self.free.clear()


@pytest.fixture
def disk(monkeypatch: pytest.MonkeyPatch) -> Iterator[Disk]:
    """A disk that can be told to hang or refuse."""
    disk = Disk(monkeypatch)
    yield disk
    disk.free.set()


def hold(journal: Journal, disk: Disk) -> None:
    """Log one row, and have the journal's thread hang in writing it."""
    disk.hang()
    journal.log_metrics({"first": 1.0})
    assert disk.reached.wait(10)


def series(run: str, key: str = "x") -> list[Any]:
    """Give the values of one metric."""
    return list(read_run(run).columns(key)[1])


numbers = st.one_of(
    st.floats(), st.booleans(), st.integers(), st.integers(-(2**200), 2**200), st.just(2**53 + 1)
)
names = st.text(min_size=1, max_size=8).filter(lambda name: "/" not in name)
trees = st.recursive(numbers, lambda inner: st.dictionaries(names, inner, max_size=3), max_leaves=6)
rows = st.lists(
    st.tuples(st.dictionaries(names, trees, max_size=4), st.none() | st.integers(-(2**70), 2**70)),
    max_size=6,
)


def flat(tree: dict[str, Any], prefix: str = "") -> dict[str, Any]:
    """Join the names of nested mappings."""
    found: dict[str, Any] = {}
    for name, value in tree.items():
        inner = flat(value, f"{prefix}{name}/") if isinstance(value, dict) else None
        found |= {prefix + name: value} if inner is None else inner
    return found


def same(a: Any, b: Any) -> bool:
    """Say whether two numbers are of the same type and value, NaN being itself."""
    if type(a) is not type(b):
        return False
    if isinstance(a, float) and math.isnan(a):
        return math.isnan(b)
    return bool(a == b) and math.copysign(1, a) == math.copysign(1, b)


@settings(max_examples=25, deadline=None)
@given(rows)
def test_what_is_logged_is_read(logged: list[tuple[dict[str, Any], int | None]]) -> None:
    """Floats of all kinds, bools, and ints of any size come back exactly, under their names."""
    import tempfile

    with tempfile.TemporaryDirectory() as run:
        journal = Journal(run, 1)
        for metrics, step in logged:
            journal.log_metrics(metrics, step)
        journal.close()
        found = list(read_run(run).rows())
    assert [row.seq for row in found] == list(range(len(logged)))
    assert [row.step for row in found] == [step for _, step in logged]
    for row, (metrics, _) in zip(found, logged, strict=True):
        expected = flat(metrics)
        assert list(row.values) == list(expected)
        assert all(same(row.values[key], expected[key]) for key in expected)


@settings(max_examples=50, deadline=None)
@given(st.lists(numbers | st.none(), max_size=20))
def test_without_that_marshal_the_bytes_are_the_same(values: list[Any]) -> None:
    """The module's own way to pack a row gives what `marshal` gives."""
    assert encoding._dump(values) == dump(values, 2)


def test_a_row_is_a_copy(run: str) -> None:
    """What a caller does to its mapping afterwards changes nothing that was logged."""
    inner = {"y": 1.0}
    metrics: dict[str, object] = {"x": 1.0, "inner": inner}
    plain = {"x": 2.0}
    with Journal(run, 1) as journal:
        journal.log_metrics(metrics)
        inner["y"] = metrics["x"] = 9.0
        for _ in range(2):  # the second one takes the quick way
            journal.log_metrics(plain)
            plain["x"] += 1
    found = [row.values for row in read_run(run).rows()]
    assert found == [{"x": 1.0, "inner/y": 1.0}, {"x": 2.0}, {"x": 3.0}]


def test_rows_keep_their_own_names(run: str) -> None:
    """Rows that differ in nothing but a name, an order or a type are told apart."""
    logged: list[dict[str, float]] = [{"a": 1.0, "b": 2.0}, {"b": 1.0, "a": 2.0}]
    logged += [{"a": 1.0, "c": 2.0}, {"a": 1.0}, {"a": 1.0, "b": 2}, {"a": True, "b": 2.0}, {}]
    with Journal(run, 1) as journal:
        for metrics in logged * 3:
            journal.log_metrics(metrics, 1)
    found = [row.values for row in read_run(run).rows()]
    assert [repr(values) for values in found] == [repr(metrics) for metrics in logged * 3]


class FakeTensor:
    """What torch gives for a number, without torch."""

    ndim = 0

    def item(self) -> float:
        """Give the number."""
        return 0.25


@pytest.mark.parametrize(
    ("value", "expected"),
    [
        (np.float32(0.5), 0.5),
        (np.float64(0.1), 0.1),
        (np.int64(2**62), 2**62),
        (np.bool_(True), True),
        (np.array(3), 3),
        (FakeTensor(), 0.25),
        (signal.SIGTERM, 15),
    ],
)
def test_foreign_numbers_become_plain_ones(run: str, value: object, expected: object) -> None:
    """Scalars of numpy and torch, and enums of ints, are read at the call."""
    with Journal(run, 1) as journal:
        journal.log_metrics({"x": 1.0})
        journal.log_metrics({"x": value}, step=np.int64(4))  # type: ignore[arg-type]
        journal.log_metrics(MappingProxyType({"x": 2.0}))
    assert [type(x) for x in series(run)] == [float, type(expected), float]
    assert series(run)[1] == expected


@pytest.mark.parametrize(
    "value",
    ["text", None, b"gggggggg", [1.0], np.zeros(1), np.zeros(()).astype("M8[s]"), 1j, object()],
)
def test_what_is_no_number_is_refused_by_name(run: str, value: object) -> None:
    """The call raises a TypeError that names the metric, and nothing of the row is kept."""
    with Journal(run, 1) as journal:
        for _ in range(2):  # with and without a shape that fits
            for metrics in ({"a": 1.0, "b": value}, {"a": 1.0, "n": {"b": value}}):
                with pytest.raises(TypeError, match="'(n/)?b' must be a number"):
                    journal.log_metrics(metrics)
            journal.log_metrics({"a": 1.0, "b": 1.0})
    assert [row.values for row in read_run(run).rows()] == [{"a": 1.0, "b": 1.0}] * 2


def test_other_mistakes_are_refused(run: str) -> None:
    """Names that are no strings, names given twice, endless nesting, steps that are no integers."""
    endless: dict[str, object] = {}
    endless["again"] = endless
    wrong: list[Any] = [{1: 1.0}, {"a": {None: 1.0}}, {"a/b": 1.0, "a": {"b": 2.0}}, endless]
    with Journal(run, 1) as journal:
        for metrics in wrong:
            with pytest.raises(TypeError):
                journal.log_metrics(metrics)
        for step in (1.0, "1", object()):
            with pytest.raises(TypeError):
                journal.log_metrics({}, step)  # type: ignore[arg-type]
        for data in (object(), {"a": endless}):
            with pytest.raises(TypeError, match="'ckpt'"):
                journal.log_event("ckpt", data)
        with pytest.raises(TypeError):
            journal.log_event(3)  # type: ignore[arg-type]
    assert journal.counters.logged == 0
    assert os.listdir(run) == []
    for arguments in ({"durability": "none"}, {"policy": "none"}, {"capacity": 0}):
        with pytest.raises(ValueError, match="must be one of|begin at"):
            Journal(run, 1, **arguments)


def test_events_keep_their_place_and_data(run: str) -> None:
    """An event holds JSON's data, and shares the numbers of the rows."""
    data = {"path": "models/\udc80é", "nested": [1, None, True, {"x": 0.5}]}
    with Journal(run, 3) as journal:
        journal.log_metrics({"x": 1.0})
        journal.log_event("checkpoint", data)
        journal.log_metrics({"x": 2.0})
    (event,) = read_run(run).events()
    assert (event.seq, event.attempt, event.name, event.data) == (1, 3, "checkpoint", data)
    assert [row.seq for row in read_run(run).rows()] == [0, 2]


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
    assert disk.reached.wait(10)
    first = next(read_run(run).follow(poll=0.001))
    assert first.values == {"x": 1.0}
    journal.close()


async def test_a_loop_awaits_durability_without_polling(run: str) -> None:
    """`on_durable` calls back from the journal's thread; logging does not block the loop."""
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
    with anyio.fail_after(10):
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
    assert done.wait(10)
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
    monkeypatch.setattr("keisei.journal.lane.LONGEST_WAIT", 0.05)
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
    started = []

    def interrupted(thread: threading.Thread) -> None:
        started.append(thread)
        if len(started) < 3:
            journal.log_metrics({"x": 2.0})
            journal.on_durable(lambda _: None)
        start(thread)

    monkeypatch.setattr(threading.Thread, "start", interrupted)
    journal.log_metrics({"x": 1.0})
    journal.close(10)
    assert len(started) == 1
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


def test_rows_that_cannot_be_written_at_the_end_are_counted(run: str, disk: Disk) -> None:
    """`close` says how many are lost and why; what comes later is refused."""
    journal = Journal(run, 1)
    disk.refuse["write"] = 1000
    for x in range(3):
        journal.log_metrics({"x": x})
    with pytest.raises(JournalError, match="3 rows are lost: .*No space left"):
        journal.close(10)
    assert journal.counters[:4] == (3, 0, 3, 0)


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
    reopened = ["fsync"]  # of the directory
    assert disk.calls == ["write", "fsync", *reopened, "write", "fsync", "write", "fsync"]
    assert series(run) == list(range(101))
    assert read_run(run).damage() == (0, 0, 0, 0, 0)
    assert os.path.getsize(journal.path) > 1.8 * journal.counters.bytes
    journal.close()


def test_a_second_journal_of_an_attempt_touches_nothing(run: str) -> None:
    """The file is made anew or not at all."""
    with Journal(run, 1) as journal:
        journal.log_metrics({"x": 1.0})
    before = Path(journal.path).read_bytes()
    second = Journal(run, 1)
    second.log_metrics({"x": 2.0})
    with pytest.raises(JournalError, match="exists"):
        second.flush(10)
    with pytest.raises(JournalError, match="1 rows are lost"):
        second.close(10)
    assert Path(journal.path).read_bytes() == before


def test_a_planted_link_is_not_followed(run: str, tmp_path: Path) -> None:
    """A symlink in the journal's place is an error, and its target is left alone."""
    target = tmp_path / "target"
    target.write_text("mine")
    os.symlink(target, os.path.join(run, "metrics.1.journal"))
    journal = Journal(run, 1)
    journal.log_metrics({"x": 1.0})
    with pytest.raises(JournalError):
        journal.close(10)
    assert target.read_text() == "mine"


def test_the_file_is_the_users_own(run: str) -> None:
    """Its mode is 0600."""
    with Journal(run, 1) as journal:
        journal.log_metrics({"x": 1.0})
    assert os.stat(journal.path).st_mode & 0o777 == 0o600


def test_after_the_end_nothing_is_taken(run: str) -> None:
    """Each call says that the journal is closed; closing again is no error; no thread is left."""
    journal = Journal(run, 1)
    journal.log_metrics({"x": 1.0})
    journal.close()
    journal.close()
    for call in _calls(journal):
        with pytest.raises(JournalError, match="closed"):
            call()
    assert journal.counters[:4] == (1, 1, 0, 0)
    empty = Journal(run, 2)
    empty.close()
    with pytest.raises(JournalError, match="closed"):
        empty.log_metrics({})
    assert os.listdir(run) == ["metrics.1.journal"]
    assert not [t for t in threading.enumerate() if t.name == "keisei-journal" and t.is_alive()]


def test_no_row_is_lost_between_a_call_and_the_end(run: str) -> None:
    """Of calls that race with `close`, each row is in the file or its call has raised."""
    for turn in range(40):
        place = os.path.join(run, str(turn))
        os.mkdir(place)
        journal = Journal(place, 1, max_delay=0.0)
        taken = [0, 0]
        begun = threading.Barrier(3)

        def log(
            number: int,
            journal: Journal = journal,
            taken: list[int] = taken,
            begun: threading.Barrier = begun,
        ) -> None:
            begun.wait()
            with suppress(JournalError):
                for x in range(3000):
                    journal.log_metrics({f"x{number}": x})
                    taken[number] = x + 1

        threads = [threading.Thread(target=log, args=(number,)) for number in range(2)]
        for thread in threads:
            thread.start()
        begun.wait()
        journal.close()
        for thread in threads:
            thread.join()
        for number in range(2):
            found = series(place, f"x{number}")
            assert found[: taken[number]] == list(range(taken[number]))
            assert len(found) <= taken[number] + 1


@pytest.mark.skipif(not hasattr(os, "fork"), reason="this system does not fork")
@pytest.mark.filterwarnings("ignore:.*multi-threaded.*fork:DeprecationWarning")
def test_a_forked_child_cannot_write(run: str) -> None:
    """It is told so at each call, writes nothing at its end, and the parent goes on."""
    journal = Journal(run, 1, max_delay=3600)
    unused = Journal(run, 2)
    journal.log_metrics({"x": 1.0})
    child = os.fork()
    if child == 0:
        os._exit(sum(map(_refusals, (journal, unused))) + 100 * (journal.counters.queued > 0))
    assert os.waitstatus_to_exitcode(os.waitpid(child, 0)[1]) == 6
    journal.log_metrics({"x": 3.0})
    journal.close()
    assert series(run) == [1.0, 3.0]
    assert os.listdir(run) == ["metrics.1.journal"]


def _refusals(journal: Journal) -> int:
    refused = 0
    for call in _calls(journal):
        try:
            call()
        except JournalError as exc:
            refused += "forked" in str(exc)
    journal.close(1)
    return refused


def _calls(journal: Journal) -> list[Callable[[], object]]:
    return [
        lambda: journal.log_metrics({"x": 2.0}),
        lambda: journal.log_event("e"),
        lambda: journal.flush(1),
    ]


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


def test_ever_new_names_take_no_more_memory(run: str, monkeypatch: pytest.MonkeyPatch) -> None:
    """The shapes that are remembered are bounded, and all their rows are read."""
    monkeypatch.setattr("keisei.journal.writer._MOST_SHAPES", 8)
    with Journal(run, 1) as journal:
        for x in range(50):
            journal.log_metrics({f"x{x % 25}": x})
        assert len(journal._shapes) <= 8
    assert [row.values for row in read_run(run).rows()] == [{f"x{x % 25}": x} for x in range(50)]


def test_a_row_takes_under_200_bytes(run: str) -> None:
    """Ten random floats, with time, step and their share of everything else."""
    with Journal(run, 1) as journal:
        for x in range(1000):
            journal.log_metrics({f"metric/{k}": math.sin(x * k) for k in range(10)}, x)
    size = os.path.getsize(journal.path) / 1000
    print(f"bytes per row of 10 floats: {size:.1f} (json.dumps: 242)")
    assert size < 200
