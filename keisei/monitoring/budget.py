"""A budget: how far a run is, what that means, and when to look again."""

from __future__ import annotations

from dataclasses import dataclass
from decimal import Decimal

from keisei.config.usage import BudgetConfig
from keisei.monitoring.ledger import Ledger
from keisei.monitoring.money import EXACT, rounded


@dataclass(frozen=True, slots=True)
class Standing:
    """How far a run is with one limit of its budget.

    Attributes:
        field: the limit's field of the config, as `budget.money`.
        used: how much it has used.
        limit: how much it may.
        unit: the unit of both.
    """

    field: str
    used: Decimal
    limit: Decimal
    unit: str

    @property
    def share(self) -> float:
        """How much of the limit is used: 1 is all of it."""
        return float(EXACT.divide(self.used, self.limit))

    @property
    def is_spent(self) -> bool:
        """Whether nothing is left."""
        return self.used >= self.limit

    def __str__(self) -> str:
        return f"{rounded(self.used)} of {rounded(self.limit)} {self.unit}"

    def source(self) -> str:
        """Return what ends the run, in a few words."""
        return f"budget: {self} (raise {self.field} to go on)"


def standings(budget: BudgetConfig, ledger: Ledger, currency: str) -> list[Standing]:
    """Return how far a run is with each limit that is set.

    Args:
        budget: the limits.
        ledger: what the run has used.
        currency: the currency of `budget.money`.
    """
    kwh = ledger.energy_kwh or Decimal(0)
    found = [
        ("budget.money", ledger.totals.get(currency, Decimal(0)), budget.money, currency),
        ("budget.hours", ledger.hours, budget.hours, "h"),
        ("budget.energy_kwh", kwh, budget.energy_kwh, "kWh"),
    ]
    return [
        Standing(field, used, Decimal(repr(limit)), unit)
        for field, used, limit, unit in found
        if limit is not None
    ]


def uncounted(budget: BudgetConfig, ledger: Ledger, currency: str) -> dict[str, str]:
    """Return what no limit holds although one is meant for its kind, by the limit's field.

    Args:
        budget: the limits.
        ledger: what the run has used.
        currency: the currency of `budget.money`.
    """
    found = {}
    others = sorted(name for name in ledger.totals if name != currency)
    if budget.money is not None and others:
        found["budget.money"] = f"what is spent in {', '.join(others)}: it is in {currency}"
    if budget.energy_kwh is not None and ledger.energy_kwh is None:
        found["budget.energy_kwh"] = "any energy: none is measured"
    return found


def due_in(now: list[Standing], later: list[Standing], interval: float) -> float:
    """Return after how many seconds a limit is reached, at most the interval.

    Args:
        now: how far the run is.
        later: how far it will be after the interval, where only time goes by.
        interval: in seconds.
    """
    due = interval
    for one, then in zip(now, later, strict=True):
        if then.used > one.used:
            left = EXACT.divide(one.limit - one.used, then.used - one.used)
            due = min(due, max(0.0, float(left) * interval))
    return due
