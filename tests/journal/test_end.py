"""A journal's end: nothing is lost on the way, and nothing is taken after it, nor in a fork."""

from __future__ import annotations

import os
import threading
from collections.abc import Callable, Iterator
from contextlib import suppress
from pathlib import Path

import pytest

from keisei.errors import JournalError
from keisei.journal.writer import Journal
from tests.support.journal import Disk, series


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


def test_rows_that_cannot_be_written_at_the_end_are_counted(run: str, disk: Disk) -> None:
    """`close` says how many are lost and why; what comes later is refused."""
    journal = Journal(run, 1)
    disk.refuse["write"] = 1000
    for x in range(3):
        journal.log_metrics({"x": x})
    with pytest.raises(JournalError, match="3 rows are lost: .*No space left"):
        journal.close(0.5)
    assert journal.counters[:4] == (3, 0, 3, 0)
    assert journal.kept == 0


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
    assert not [t for t in threading.enumerate() if t.name.startswith("keisei-writer")]


def test_no_row_is_lost_between_a_call_and_the_end(run: str) -> None:
    """Of calls that race with `close`, each row is in the file or its call has raised."""
    for turn in range(40):
        directory = os.path.join(run, str(turn))
        os.mkdir(directory)
        journal = Journal(directory, 1, max_delay=0.0)
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
            found = series(directory, f"x{number}")
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


def test_without_a_thread_the_end_writes(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """A flush says that none can be started; the end's own thread writes what is queued."""

    def refuse(self: threading.Thread) -> None:
        raise RuntimeError("can't start new thread")

    journal = Journal(str(tmp_path), 1)
    with monkeypatch.context() as patch:
        patch.setattr(threading.Thread, "start", refuse)
        for step in range(50):
            journal.log_metrics({"x": 1.0}, step)
        with pytest.raises(JournalError, match="no thread can be started"):
            journal.flush(10)
        journal.close(10)
    assert series(str(tmp_path)) == [1.0] * 50
    assert journal.counters.written == 50
    journal.close()
