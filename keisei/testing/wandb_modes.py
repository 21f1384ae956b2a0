"""The ways in which the loopback W&B server fails, and which requests each way governs."""

from __future__ import annotations

import itertools
from collections.abc import Sequence
from dataclasses import dataclass, field
from typing import Literal, get_args

Mode = Literal[
    "ok", "silent", "slow", "refuses", "401", "404", "500", "closes", "flaps", "silent_from_finish"
]
"""How requests are treated.

| mode | the server takes the request in | the client sees |
|---|---|---|
| `ok` | yes | the answer |
| `slow` | yes, on arrival | the answer, some seconds later (at once when the mode is replaced) |
| `closes` | yes | half of the answer, then the end of the connection |
| `silent` | no | nothing, then the end of the connection when the mode is replaced |
| `401`, `404`, `500` | no | an answer with that status |
| `refuses` | no | a refused connection; those that were open are closed |
| `flaps` | | the modes of a schedule in turn, one for each request |
| `silent_from_finish` | | `ok` until a request brings the end of a run, `silent` from it on |
"""

MODES: tuple[Mode, ...] = get_args(Mode)
_COMPOUND = {"refuses", "flaps", "silent_from_finish"}


@dataclass
class Fault:
    """A mode that was set, and how far it has come.

    Args:
        mode: The mode.
        seconds: The delay of `slow`.
        schedule: The modes that `flaps` goes through, over and over.
        replaced: Whether another one has taken its place.
    """

    mode: Mode
    seconds: float = 1.0
    schedule: Sequence[Mode] = ("500", "ok")
    replaced: bool = False
    _ended: bool = field(default=False, repr=False)

    def __post_init__(self) -> None:
        if self.mode not in MODES:
            raise ValueError(f"no such mode: {self.mode!r}; there are {', '.join(MODES)}")
        if _COMPOUND.intersection(self.schedule):
            raise ValueError(f"a schedule cannot hold {', '.join(sorted(_COMPOUND))}")
        self._turns = itertools.cycle(self.schedule)

    def next_mode(self, ends_run: bool) -> Mode:
        """Return the simple mode for the next request.

        Args:
            ends_run: Whether the request brings the end of a run.
        """
        if self.mode == "flaps":
            return next(self._turns)
        if self.mode == "silent_from_finish":
            self._ended = self._ended or ends_run
            return "silent" if self._ended else "ok"
        return self.mode


class Faults:
    """Which fault governs which requests; a more specific setting goes before a wider one."""

    def __init__(self) -> None:
        self._set: dict[str | None, Fault] = {None: Fault("ok")}

    def put(self, fault: Fault, endpoint: str | None) -> None:
        """Set the fault that governs an endpoint; for None, that of all, and of none alone."""
        if endpoint is not None and fault.mode == "refuses":
            raise ValueError("a connection is refused before its endpoint is known")
        over = self._set if endpoint is None else {endpoint: self._set.get(endpoint)}
        for old in list(over.values()):
            if old is not None:
                old.replaced = True
        if endpoint is None:
            self._set.clear()
        self._set[endpoint] = fault

    def governing(self, operation: str, endpoint: str) -> Fault:
        """Return the fault that governs a request to this operation of this endpoint."""
        return next(self._set[key] for key in (operation, endpoint, None) if key in self._set)
