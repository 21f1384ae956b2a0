"""How the time of one attempt is shared out to phases. All times are arguments, in seconds.

At each instant the time goes in equal parts to the phases that the program is in then, each
counted once, however many tasks or threads are in it. A phase that was entered within another is
the inner one: the outer one counts only while none of its inner ones lasts. What keisei does by
itself (a checkpoint, a wait) counts where the program is in no other phase, and where nothing at
all is known, the time is the attempt's own: its set-up, its training, its end.
"""

from __future__ import annotations

from collections import deque
from typing import Any

SETUP, TRAINING, EVALUATION = "setup", "training", "evaluation"
CHECKPOINT, WAITING, STALL = "checkpoint", "waiting", "stall"
DOWN, LOST = "down", "lost"
EVENT = "usage.phases"  # what a journal has of it
RESERVED = frozenset([STALL, DOWN, LOST])  # which no program can be in
OTHER = "other"  # the phases beyond `MOST`

MOST = 100  # names of phases that an attempt tells apart
LONGEST = 100  # characters of a name
_STRETCHES = 1024  # among which a stall is looked for


def checked_name(name: object) -> str:
    """Return the name of a phase.

    Raises:
        TypeError: it is no text.
        ValueError: no program can be in a phase of that name.
    """
    if not isinstance(name, str):
        raise TypeError(f"a phase's name is a text, such as 'evaluation': {type(name).__name__}")
    if not name.strip() or len(name) > LONGEST or not name.isprintable():
        raise ValueError(f"a phase's name is 1 to {LONGEST} printable characters: {name[:200]!r}")
    if name in RESERVED:
        raise ValueError(
            f"phase {name!r} is found by keisei itself: use another name, such as 'waiting'"
        )
    return name


class Entry:
    """One block that is in a phase.

    Attributes:
        name: the phase's name.
        own: whether it is keisei's own, and not the program's.
        outer: the entry within which it was entered, in the same attempt.
        over: whether the block was left.
        inner: how many blocks within it last.
    """

    __slots__ = ("inner", "name", "outer", "over", "own")

    def __init__(self, name: str, outer: Entry | None, *, own: bool) -> None:
        self.name, self.outer, self.own = name, outer, own
        self.over = False
        self.inner = 0


class PhaseClock:
    """Shares out the time of one attempt; the caller lets one thread at a time in.

    Args:
        now: when the attempt has begun.

    Attributes:
        base: the phase in which the attempt is where nothing else is known.
        begun: when it has begun.
        entered: how often each phase of the program was entered.
    """

    def __init__(self, now: float) -> None:
        self.base, self.begun = SETUP, now
        self.entered: dict[str, int] = {}
        self._now = now
        self._seconds: dict[str, float] = {}
        self._lasting: dict[str, float] = {}  # the time in which a phase was entered at all
        self._program: dict[str, int] = {}
        self._own: dict[str, int] = {}
        # The times that went to the base, which nothing explains but a stall.
        self._unexplained: deque[tuple[float, float, str]] = deque(maxlen=_STRETCHES)

    def enter(self, name: str, outer: Entry | None, now: float, *, own: bool = False) -> Entry:
        """Enter a phase, and return what `leave` takes.

        Args:
            name: the phase's name.
            outer: what it is entered within, if it lasts.
            now: the time.
            own: whether it is keisei's own.
        """
        self._pass(now)
        if not own and name not in self.entered and len(self.entered) >= MOST:
            name = OTHER
        entry = Entry(name, outer, own=own)
        if outer is not None:
            if not outer.inner:
                self._remove(outer)
            outer.inner += 1
        if not own:
            self.entered[name] = self.entered.get(name, 0) + 1
        self._add(entry)
        return entry

    def leave(self, entry: Entry, now: float) -> None:
        """Leave a phase, whatever lasts within it; a second call changes nothing."""
        if entry.over:
            return
        self._pass(now)
        entry.over = True
        if not entry.inner:
            self._remove(entry)
        if (outer := entry.outer) is not None:
            outer.inner -= 1
            if not outer.inner and not outer.over:
                self._add(outer)

    def begin(self, base: str, now: float) -> None:
        """Go over to another phase where nothing else is known."""
        self._pass(now)
        self.base = base

    def stalled(self, begun: float, ended: float) -> float:
        """Take what a stall has held off the training, or the set-up, where no phase explains it.

        Args:
            begun: when the loop was held.
            ended: when it went on.

        Returns:
            How much of the stall was in no phase, in seconds.
        """
        self._pass(ended)
        taken, kept = 0.0, list[tuple[float, float, str]]()
        for first, last, base in self._unexplained:
            low, high = max(first, begun), min(last, ended)
            if low >= high:
                kept.append((first, last, base))
                continue
            held = min(high - low, self._seconds[base])
            self._seconds[base] -= held
            taken += held
            kept += [(a, b, base) for a, b in ((first, low), (high, last)) if a < b]
        if taken > 0:
            self._unexplained = deque(kept, maxlen=_STRETCHES)
            self._seconds[STALL] = self._seconds.get(STALL, 0.0) + taken
        return taken

    @property
    def ended(self) -> float:
        """Up to when the time is shared out."""
        return self._now

    def seconds(self, now: float) -> dict[str, float]:
        """Return the time of each phase by now; together they are the time of the attempt."""
        self._pass(now)
        return dict(self._seconds)

    def record(self, now: float) -> dict[str, Any]:
        """Return what is known by now as plain data."""
        self._pass(now)
        return {
            "wall_s": round(self._now - self.begun, 6),
            "seconds": {name: round(value, 6) for name, value in self._seconds.items()},
            "lasting_s": {name: round(value, 6) for name, value in self._lasting.items()},
            "entered": dict(self.entered),
        }

    def _pass(self, now: float) -> None:
        """Share out the time since the last call; a clock that goes back stands still."""
        passed = now - self._now
        if passed <= 0:
            return
        seconds, lasting = self._seconds, self._lasting
        there = self._program or self._own
        if there:
            share = passed / len(there)
            for name in there:
                seconds[name] = seconds.get(name, 0.0) + share
                lasting[name] = lasting.get(name, 0.0) + passed
        else:
            seconds[self.base] = seconds.get(self.base, 0.0) + passed
            first, stretches = self._now, self._unexplained
            if stretches and stretches[-1][1:] == (first, self.base):
                first = stretches.pop()[0]
            stretches.append((first, now, self.base))
        self._now = now

    def _add(self, entry: Entry) -> None:
        there = self._own if entry.own else self._program
        there[entry.name] = there.get(entry.name, 0) + 1

    def _remove(self, entry: Entry) -> None:
        there = self._own if entry.own else self._program
        count = there[entry.name] - 1
        if count:
            there[entry.name] = count
        else:
            del there[entry.name]
