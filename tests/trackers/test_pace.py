"""What workers compute beside a loop: one after the other, and a quarter of the time at most."""

from __future__ import annotations

import threading

from keisei.trackers.pace import Pace, Turns


class Waits(threading.Event):
    """Notes how long somebody would wait, and does not."""

    def __init__(self) -> None:
        super().__init__()
        self.taken: list[float | None] = []

    def wait(self, timeout: float | None = None) -> bool:
        """Note it."""
        self.taken.append(timeout)
        return False


def waits_of(pace: Pace, *turns: float) -> list[int]:
    """Return how long those who come at the same instant wait for their turns, in seconds."""
    waits = Waits()
    for expected in turns:
        pace.wait_turn(expected, waits)
    return [round(timeout or 0.0) for timeout in waits.taken]


def test_those_that_are_woken_together_take_turns() -> None:
    """The first computes at once, the others after what those before them compute and rest."""
    assert waits_of(Pace(), 10.0, 10.0, 20.0, 10.0) == [40, 80, 160]


def test_a_turn_costs_what_it_has_taken() -> None:
    """One that found nothing to send holds up nobody; one that took longer does."""
    pace = Pace()
    assert waits_of(pace, 10.0) == []
    pace.end_turn(10.0, 0.0)
    assert waits_of(pace, 10.0) in ([], [0])
    pace.end_turn(10.0, 30.0)
    assert waits_of(pace, 10.0) == [120]


def test_workers_that_begin_together_take_turns_and_wait_for_nobody_at_the_end() -> None:
    """From the end on, and without a pace, nothing is waited for."""
    pace, waits = Pace(), Waits()
    pace.wait_turn(10.0, waits)
    with Turns(pace, waits).next() as done:
        done.append("a row")
    assert [round(timeout or 0.0) for timeout in waits.taken] == [40]
    waits.set()
    for turns in (Turns(pace, waits), Turns(None, Waits())):
        with turns.next():
            pass
    assert len(waits.taken) == 1
