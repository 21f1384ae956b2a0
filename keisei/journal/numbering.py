"""Which records of a journal have been read: some are there twice, and some are missing."""

from __future__ import annotations

from bisect import bisect_right

_MOST_STRETCHES = 1000


class Numbers:
    """The sequence numbers that were read, as stretches without a gap.

    Args:
        first: the first one that there could be.

    Attributes:
        missing: how many before the last one were not read.
    """

    def __init__(self, first: int = 0) -> None:
        self.missing = 0
        self._begins, self._ends = [first], [first]

    def add(self, seq: int, count: int) -> bool:
        """Add the numbers of a block of records.

        Args:
            seq: the first one.
            count: how many there are.

        Returns:
            Whether they are new; if not all of them are, nothing is added.
        """
        begins, ends, behind = self._begins, self._ends, seq + count
        if seq == ends[-1]:
            ends[-1] = behind
            return True
        at = bisect_right(begins, seq)
        if (at and seq < ends[at - 1]) or (at < len(begins) and begins[at] < behind):
            return False
        if at == len(begins):
            self.missing += seq - ends[-1]
        elif at:
            self.missing -= count
        begins.insert(at, seq)
        ends.insert(at, behind)
        if len(begins) > _MOST_STRETCHES:  # what is between the first two comes no more
            del begins[1], ends[0]
        return True
