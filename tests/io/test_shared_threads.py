"""Members that share a few threads: each is served, by one at a time, and waits for no hang."""

from __future__ import annotations

import threading
import time
from collections.abc import Callable

import pytest

from keisei._io.shared_threads import SharedThreads, join_threads, on_shared_thread
from tests.support.forks import in_child


class Fake:
    """A member that notes when it is served, and does what the test says meanwhile."""

    def __init__(self, work: Callable[[], float | None] = lambda: None) -> None:
        self.over = False
        self.served = self.inside = self.most_inside = 0
        self.gone = threading.Event()
        self._work = work
        self._more = threading.Semaphore(0)

    def serve(self) -> float | None:
        """Note it, and work."""
        self.inside += 1
        self.most_inside = max(self.inside, self.most_inside)
        self.served += 1
        pause = self._work()
        self.inside -= 1
        self._more.release()
        return pause

    def left(self) -> None:
        """Note it."""
        self.gone.set()

    def wait(self, times: int = 1) -> None:
        """Wait until it has been served so many times more."""
        for _ in range(times):
            assert self._more.acquire(timeout=60)

    def leave(self, threads: SharedThreads) -> None:
        """Be served for the last time."""
        self.over = True
        threads.call(self, 0.0)
        assert self.gone.wait(60)


def names() -> list[str]:
    """Return the names of the shared threads that run."""
    found = (thread.name for thread in threading.enumerate())
    return sorted(name for name in found if name.startswith("keisei-writer"))


def joined(*members: Fake) -> SharedThreads:
    """Have members join, and return the threads, which are the same for all."""
    (threads,) = {join_threads(member) for member in members}
    return threads


def test_many_share_two_threads_which_end_with_the_last() -> None:
    """The clock and one worker serve a hundred members; the next one gets new threads."""
    members = [Fake() for _ in range(100)]
    threads = joined(*members)
    for member in members:
        threads.call(member, 0.001)
    for member in members:
        member.wait()
    assert names() == ["keisei-writer", "keisei-writers"]
    for member in members:
        member.leave(threads)
    threads.join()
    assert names() == []
    later = Fake()
    again = join_threads(later)
    assert again is not threads
    later.leave(again)
    again.join()
    assert names() == []


def test_who_is_called_while_it_is_served_is_served_again_afterwards() -> None:
    """No call is lost, and no two threads serve one member at the same time."""
    entered, go_on = threading.Event(), threading.Event()

    def work() -> None:
        entered.set()
        assert go_on.wait(60)

    member = Fake(work)
    threads = join_threads(member)
    threads.call(member, 0.0)
    assert entered.wait(60)
    threads.call(member, 0.0)
    other = Fake()
    assert join_threads(other) is threads
    threads.call(other, 0.0)
    other.wait()  # the clock has seen the call of the first one, which still hangs
    go_on.set()
    member.wait(2)
    assert (member.served, member.most_inside) == (2, 1)
    for one in (member, other):
        one.leave(threads)
    threads.join()


def test_whoever_hangs_holds_up_nobody() -> None:
    """Beside three that hang the others are served; when they go on, one worker is left."""
    go_on = threading.Event()

    def hang() -> None:
        assert go_on.wait(60)

    hung = [Fake(hang) for _ in range(6)]
    healthy = [Fake() for _ in range(20)]
    threads = joined(*hung, *healthy)
    for member in (*hung, *healthy):
        threads.call(member, 0.0)
    for member in healthy:
        member.wait()
    assert len(names()) > 1 + len(hung)
    go_on.set()
    for member in hung:
        member.wait()
    give_up = time.monotonic() + 10
    while len(names()) > 2 and time.monotonic() < give_up:
        threads.call(healthy[0], 0.0)
        healthy[0].wait()
    assert names() == ["keisei-writer", "keisei-writers"]
    for member in (*hung, *healthy):
        member.leave(threads)
    threads.join()


def test_a_pause_is_kept_unless_somebody_calls() -> None:
    """What a member asks for is when it is served next; an earlier call comes first."""
    pauses = iter([0.001, 3600.0, None, None])
    member = Fake(lambda: next(pauses))
    threads = join_threads(member)
    threads.call(member, 0.0)
    member.wait(2)
    assert member.served == 2
    threads.call(member, 0.0)
    member.wait()
    member.leave(threads)
    threads.join()


def test_without_a_second_thread_the_clock_serves(monkeypatch: pytest.MonkeyPatch) -> None:
    """Where the system has one thread left, it has to do; where it has none, joining fails."""
    start = threading.Thread.start

    def scarce(thread: threading.Thread) -> None:
        if thread.name in scarce_names:
            raise RuntimeError("can't start new thread")
        start(thread)

    monkeypatch.setattr(threading.Thread, "start", scarce)
    scarce_names = ["keisei-writers", "keisei-writer"]
    with pytest.raises(RuntimeError):
        join_threads(Fake())
    scarce_names = ["keisei-writer"]
    members = [Fake(), Fake()]
    threads = joined(*members)
    for member in members:
        threads.call(member, 0.0)
    for member in members:
        member.wait()
    assert names() == ["keisei-writers"]
    for member in members:
        member.leave(threads)
    threads.join()


def test_a_forked_child_has_threads_of_its_own() -> None:
    """It neither waits for its parent's, nor counts its members."""
    parent = Fake()
    threads = join_threads(parent)

    def work() -> list[str]:
        member = Fake()
        own = join_threads(member)
        assert own is not threads
        own.call(member, 0.0)
        member.wait()
        member.leave(own)
        own.join()
        return names()

    assert in_child(work) == "returned []"
    parent.leave(threads)
    threads.join()
    assert not on_shared_thread()
