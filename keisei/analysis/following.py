"""Which verdicts have changed while a run goes on."""

from __future__ import annotations

from collections.abc import Mapping

from keisei.analysis.verdicts import Verdict


class Changes:
    """What is new in the verdicts of one look after the other.

    A verdict is new once two looks in a row have come to it: whoever looks often enough finds one
    look among them that is out of the noise band by chance.
    """

    def __init__(self) -> None:
        self._said: dict[str, str] = {}
        self._last: dict[str, str] = {}

    def of(self, verdicts: Mapping[str, Verdict]) -> dict[str, Verdict]:
        """Return the verdicts that are new; at first nothing but `undecided` is known.

        Args:
            verdicts: those of this look, by metric.
        """
        found = {
            key: one
            for key, one in verdicts.items()
            if one.outcome == self._last.get(key)
            and one.outcome != self._said.get(key, "undecided")
        }
        self._last = {key: one.outcome for key, one in verdicts.items()}
        self._said |= {key: one.outcome for key, one in found.items()}
        return found
