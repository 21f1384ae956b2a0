"""The time of an attempt is shared out to phases: nothing of it is lost, or counted twice."""

from __future__ import annotations

import math
from dataclasses import dataclass

import pytest
from hypothesis import given
from hypothesis import strategies as st

from keisei.monitoring.phases import MOST, OTHER, Entry, PhaseClock, checked_name

NAMES = ["evaluation", "rollout", "training", "checkpoint"]
BASES = ["setup", "training", "waiting"]


@dataclass
class Block:
    """A block as the oracle has it: what it knows of all blocks, it finds out at each instant."""

    name: str
    own: bool
    outer: Block | None
    lasts: bool = True


def shared(blocks: list[Block], base: str) -> set[str]:
    """Return the phases that an instant goes to."""
    inner = {id(block.outer) for block in blocks if block.lasts and block.outer is not None}
    there = [block for block in blocks if block.lasts and id(block) not in inner]
    named = {block.name for block in there if not block.own}
    return named or {block.name for block in there} or {base}


@pytest.mark.requirement("MON-3")
@given(st.data())
def test_the_shares_sum_to_the_wall_time(data: st.DataObject) -> None:
    """Whatever is nested, at once, or left in another order than it was entered."""
    clock, now, expected = (
        PhaseClock(0.0),
        0,
        dict.fromkeys([*NAMES, *BASES], 0.0),
    )
    blocks: list[Block] = []
    entries: list[Entry] = []
    for _ in range(data.draw(st.integers(0, 30))):
        passed = data.draw(st.integers(0, 12))
        there = shared(blocks, clock.base)
        for name in there:
            expected[name] += passed / len(there)
        now += passed
        lasting = [i for i, block in enumerate(blocks) if block.lasts]
        match data.draw(st.sampled_from(["enter", "leave", "begin"])):
            case "enter":
                at = data.draw(st.sampled_from([None, *lasting]))
                name, own = data.draw(st.sampled_from(NAMES)), data.draw(st.booleans())
                outer = None if at is None else entries[at]
                entries.append(clock.enter(name, outer, float(now), own=own))
                blocks.append(Block(name, own, None if at is None else blocks[at]))
            case "leave" if blocks:
                at = data.draw(st.integers(0, len(blocks) - 1))
                blocks[at].lasts = False
                clock.leave(entries[at], float(now))
            case "begin":
                clock.begin(data.draw(st.sampled_from(BASES)), float(now))
    seconds = clock.seconds(float(now))
    assert math.isclose(sum(seconds.values()), now, abs_tol=1e-6)
    for name in expected:
        assert seconds.get(name, 0.0) == pytest.approx(expected[name], abs=1e-6), name


@given(
    st.lists(st.tuples(st.booleans(), st.integers(0, 5)), max_size=20),
    st.integers(0, 60),
    st.integers(0, 60),
)
def test_a_stall_takes_what_no_phase_explains(
    blocks: list[tuple[bool, int]], one: int, other: int
) -> None:
    """A stall is what of it no phase explains, second by second; the sum stays the wall time."""
    clock, now = PhaseClock(0.0), 0
    unexplained: list[int] = []
    clock.begin("training", 0.0)
    for named, passed in blocks:
        if named:
            entry = clock.enter("evaluation", None, float(now))
            clock.leave(entry, float(now + passed))
        else:
            unexplained += range(now, now + passed)
        now += passed
        clock.seconds(float(now))
    begun, ended = sorted((min(one, now), min(other, now)))
    clock.stalled(float(begun), float(ended))
    clock.stalled(float(begun), float(ended))  # what is told twice is taken once
    seconds = clock.seconds(float(now))
    held = [second for second in unexplained if begun <= second < ended]
    assert seconds.get("stall", 0.0) == pytest.approx(len(held))
    assert sum(seconds.values()) == pytest.approx(now)


def test_a_clock_that_goes_back_stands_still() -> None:
    """No phase gets a negative time."""
    clock = PhaseClock(10.0)
    entry = clock.enter("evaluation", None, 12.0)
    clock.leave(entry, 11.0)
    assert clock.seconds(13.0) == {"setup": 3.0}


def test_names_are_bounded() -> None:
    """A program that makes up names gets one phase for all that are too many."""
    clock = PhaseClock(0.0)
    for number in range(3 * MOST):
        clock.leave(clock.enter(f"phase {number}", None, float(number)), number + 1.0)
    seconds = clock.seconds(3.0 * MOST)
    assert len(seconds) == MOST + 1
    assert seconds[OTHER] == 2.0 * MOST


@pytest.mark.parametrize("name", ["", " ", "a\nb", "stall", "down", "lost", "x" * 101])
def test_what_is_no_name_is_refused(name: str) -> None:
    """A name is printable, short, and none of what keisei finds by itself."""
    with pytest.raises(ValueError, match="phase"):
        checked_name(name)


def test_a_name_is_a_text() -> None:
    """What is none is refused by its kind."""
    with pytest.raises(TypeError, match="int"):
        checked_name(3)
