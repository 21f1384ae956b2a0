"""Reads from the journals of a run, in one pass, what it has used and what that has cost."""

from __future__ import annotations

from dataclasses import dataclass, field
from typing import Any

from keisei.monitoring import lag_table, resources
from keisei.monitoring.lag_table import LAG, STALL
from keisei.monitoring.ledger import NAMES, Accounts, Ledger
from keisei.monitoring.run_events import RunEvents


@dataclass
class Spent:
    """What a run has used.

    Attributes:
        resources: of its machines, as `read_resources_used` returns it.
        cost: what it has cost.
        lag: what has held its event loops, as `folded` of `keisei.monitoring.lag_table` returns it.
    """

    resources: dict[str, Any] | None = None
    cost: Ledger = field(default_factory=Ledger)
    lag: dict[str, Any] | None = None


def read_spent(directory: str) -> Spent:
    """Return what a run has used, over all its attempts and parts; what cannot be read is left out.

    Args:
        directory: the run's directory.
    """
    events, accounts = RunEvents(directory, (*NAMES, resources.EVENT, LAG, STALL)), Accounts()
    used: list[tuple[int, str, object]] = []
    held: dict[tuple[int, str | None], list[tuple[str, object]]] = {}
    try:
        for event in events.read():
            accounts.take(event.attempt, event.part, event.name, event.data)
            if event.name == resources.EVENT:
                used.append((event.attempt, event.part or "", event.data))
            elif event.name in (LAG, STALL):
                own = held.setdefault((event.attempt, event.part), [])
                own.append((event.name, event.data))
        ledger = accounts.ledger(events.last_sign)
    finally:
        events.close()
    return Spent(resources.folded(used), ledger, lag_table.folded(held.values()))
