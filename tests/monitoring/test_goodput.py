"""What the time of a run was used for, folded over its attempts and ranks."""

from __future__ import annotations

import pytest
from hypothesis import given
from hypothesis import strategies as st

from keisei.monitoring.goodput import Behind, Life, throughput, time_used, together

SECONDS = st.floats(0, 1e5, allow_nan=False)
PHASES = st.dictionaries(st.sampled_from(["training", "evaluation", "stall"]), SECONDS, max_size=3)


@st.composite
def lives_of(draw: st.DrawFn) -> list[Life]:
    """Some attempts, each of which has said something of its time, and lived on or not."""
    lives, now = [], draw(st.floats(1e9, 2e9))
    for attempt in range(1, draw(st.integers(1, 5)) + 1):
        started = now
        said = []
        phases: dict[str, float] = {}
        for more in draw(st.lists(PHASES, max_size=3)):
            for name, seconds in more.items():
                phases[name] = phases.get(name, 0.0) + seconds
            now = started + sum(phases.values())
            said.append((now, {"seconds": dict(phases)}))
        now += draw(SECONDS)
        lives.append(Life(attempt, started, now, said))
        now += draw(SECONDS)
    return lives


@pytest.mark.requirement("MON-3")
@given(lives_of(), st.lists(st.tuples(SECONDS, SECONDS), max_size=3))
def test_all_of_the_time_is_accounted_for(
    lives: list[Life], behind: list[tuple[float, float]]
) -> None:
    """From the first start to the last sign of life, whatever the resumes have left behind."""
    left = [
        Behind(life.attempt, life.started + min(pair), life.started + max(pair))
        for life, pair in zip(lives, behind, strict=False)
    ]
    used = time_used(lives, left)
    elapsed = lives[-1].seen - lives[0].started
    assert used.wall_s == pytest.approx(elapsed, abs=1e-3)
    assert all(value >= 0 for value in used.seconds.values())
    assert used.goodput is None or 0 <= used.goodput <= 1 + 1e-9


def test_what_a_resume_leaves_behind_is_lost() -> None:
    """Training after the checkpoint; an evaluation was one all the same, and so was a save."""
    said = [
        (160.0, {"seconds": {"training": 50.0, "evaluation": 10.0}}),
        (200.0, {"seconds": {"training": 90.0, "evaluation": 10.0}}),
    ]
    lives = [Life(1, 100.0, 210.0, said), Life(2, 250.0, 300.0)]
    used = time_used(lives, [Behind(1, 160.0, float("inf"))])
    assert used.seconds == {
        "training": 50.0 + 50.0,  # until the checkpoint, and in the next attempt
        "evaluation": 10.0,
        "lost": 50.0,  # of which 10 s came after its last word
        "down": 40.0,
    }
    assert used.goodput == 100.0 / 200.0
    assert used.attempts == 2


def test_ranks_are_added_up() -> None:
    """Two ranks for an hour have used two hours."""
    one = time_used([Life(1, 0.0, 3600.0)], [])
    both = together([one, one])
    assert both.seconds == {"training": 7200.0}
    assert both.attempts == 1


def test_what_is_no_record_is_left_out() -> None:
    """A journal may hold whatever a program has logged under the event's name."""
    said = [(10.0, {"seconds": {"training": "long", "evaluation": -1, "x": float("nan")}})]
    assert time_used([Life(1, 0.0, 10.0, said)], []).seconds == {}
    assert throughput([Life(1, 0.0, 10.0, [(1.0, {"throughput": {"first_step": None}})])]) is None
    assert throughput([]) is None


def test_steps_that_are_taken_again_do_not_count_twice() -> None:
    """The overall speed is that of the steps that were kept."""

    def life(attempt: int, first: int, last: int) -> Life:
        told = {
            "first_step": first,
            "last_step": last,
            "first_time": 0.0,
            "last_time": 10.0,
            "recent_steps_per_s": 50.0,
            "total_steps": 1000,
        }
        return Life(attempt, 0.0, 10.0, [(10.0, {"throughput": told})])

    known = throughput([life(1, 0, 400), life(2, 300, 600)])
    assert known == {
        "last_step": 600,
        "steps_per_s": 30.0,
        "recent_steps_per_s": 50.0,
        "total_steps": 1000,
        "time_to_go_s": 8.0,
    }
