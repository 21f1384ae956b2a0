"""At which safe point the ranks of a preempted run end: at the same one, without a barrier.

Ranks that train in step cannot leave it one by one: the others would wait for them inside their
next collective operation. So each rank publishes which safe point it has come to, and whether it
waits there or has gone on. A rank goes on while another one is further; they all end where they all
wait at the same step.
"""

from __future__ import annotations

import threading
from collections.abc import Sequence
from typing import Literal, NamedTuple

from keisei._io import files
from keisei._io.directories import OpenDirectory
from keisei._io.held import HeldDirectory
from keisei.run.layout import PARTS
from keisei.run.part_file import part_of_rank

LOOK = 0.02  # seconds between two looks at the others
State = Literal["waits", "goes on", "ends"]
Decision = Literal["end", "go on", "wait"]


class Standing(NamedTuple):
    """Where a rank that knows of the preemption is.

    Attributes:
        step: its last safe point; -1 before the first.
        state: whether it waits there, has gone on from there, or ends without another one.
    """

    step: int
    state: State

    def text(self) -> bytes:
        """Return it as the text of its file."""
        return f"{self.step} {self.state}\n".encode()

    @staticmethod
    def parsed(text: bytes) -> Standing | None:
        """Read one back; ``None`` where the text is none."""
        step, _, state = text.decode("ascii", "replace").strip().partition(" ")
        for known in ("waits", "goes on", "ends"):
            if state == known and step.lstrip("-").isdigit():
                return Standing(int(step), known)
        return None


def decide(step: int, others: Sequence[Standing | None]) -> Decision:
    """Decide what a rank does at a safe point, once the run is preempted.

    Args:
        step: the safe point.
        others: where the other ranks are; ``None`` for one that does not know of it yet.
    """
    known = [other for other in others if other is not None]
    if any(other.state == "ends" for other in known):
        return "end"
    if any(o.step > step or (o.step == step and o.state == "goes on") for o in known):
        return "go on"
    if len(known) == len(others) and all(other.step == step for other in known):
        return "end"
    return "wait"


class Meeting:
    """The ranks of one attempt, as one of them agrees with the others on where to end.

    Args:
        home: the run's directory.
        attempt: which attempt it is.
        rank: which rank this is.
        world_size: how many there are.
    """

    def __init__(self, home: HeldDirectory, attempt: int, rank: int, world_size: int) -> None:
        self._home, self._attempt, self._rank = home, attempt, rank
        self._others = [other for other in range(world_size) if other != rank]
        self._own: Standing | None = None
        self._publishing = threading.Lock()

    def learn(self, step: int | None, *, ends: bool) -> None:
        """Publish where this rank is as it learns of the preemption; it blocks.

        Args:
            step: its last safe point.
            ends: whether it ends without another one.
        """
        with self._publishing:
            if ends or self._own is None:
                last = -1 if step is None else step
                self._publish(Standing(last, "ends" if ends else "goes on"))

    def look(self, step: int) -> Decision:
        """Publish that this rank waits at a safe point, and decide what it does; it blocks.

        Args:
            step: the safe point.

        Raises:
            OSError: the files of the others cannot be read, or its own cannot be written.
        """
        with self._publishing:
            if self._own == Standing(step, "goes on"):
                return "go on"  # it learned of the preemption here, and others may have read so
            if self._own != Standing(step, "waits"):
                self._publish(Standing(step, "waits"))
            decision = decide(step, self._read())
            if decision == "go on":
                self._publish(Standing(step, "goes on"))
            return decision

    def _publish(self, own: Standing) -> None:
        with self._home.entered(checked=False) as directory:
            directory.make(PARTS, sync=False)
            with directory.inside(PARTS) as parts:
                files.write_atomic(parts, self._name(self._rank), own.text(), sync_name=False)
        self._own = own

    def _read(self) -> list[Standing | None]:
        with self._home.entered(checked=False) as directory, directory.inside(PARTS) as parts:
            return [_standing(parts, self._name(rank)) for rank in self._others]

    def _name(self, rank: int) -> str:
        return f"{self._attempt}.{part_of_rank(rank)}.stop"


def _standing(parts: OpenDirectory, name: str) -> Standing | None:
    text = parts.read(name)
    return None if text is None else Standing.parsed(text)
