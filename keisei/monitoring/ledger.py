"""The ledger of a run: what it has cost, over all its attempts, ranks and members.

It is made of the run's events alone, each taken once and in any order of the parts:

- `cost`: an amount that the program has logged.
- `tokens`: tokens of a language model, with their price where there is one. One of the same id
  that comes later counts in place of the earlier one: it is priced.
- `usage.cost`: how long a process has had its node by now, and the prices of that time.
- `usage.resources`: the energy and the GPUs that the sampler has seen.

Money is never rounded before it is summed, amounts of different currencies are kept apart, and
what has no price is listed as such.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from decimal import Decimal

from keisei.monitoring.money import EXACT, add, currency_of, digits, texts
from keisei.monitoring.node_time import (
    Held,
    by_node,
    covered,
    held_by,
    in_seconds,
    number_in,
    until,
)

COST, TOKENS, HELD, RESOURCES = "cost", "tokens", "usage.cost", "usage.resources"
NAMES = (COST, TOKENS, HELD, RESOURCES)
MOST_LINES = 1000  # of amounts that are told apart by what they were for
OTHERS = "others"
COUNTS = ("input", "output", "cached_input", "cache_write", "reasoning")
_JOULES = Decimal(3_600_000)  # of a kWh
_HOUR = Decimal(3600)
_FINE = Decimal("1e-9")  # to which what time and energy cost is rounded
_NO_GPUS = "GPU hours: how many GPUs is not known (set cost.gpus, or install keisei[monitoring])"


@dataclass(frozen=True, slots=True)
class Line:
    """One line of the ledger.

    Attributes:
        kind: `cost`, `tokens`, `gpu`, `node` or `energy`.
        what: what it was for: the program's own word, the model, the resource.
        currency: the currency of the amount.
        amount: how much.
        quantity: of what that is the price, in words; empty where the program has said the amount.
        prices: which price table the amounts are from.
    """

    kind: str
    what: str
    currency: str
    amount: Decimal
    quantity: str = ""
    prices: tuple[str, ...] = ()


@dataclass(frozen=True, slots=True)
class Ledger:
    """What a run has cost by now.

    Attributes:
        lines: what for, in this order: logged amounts, tokens, resources.
        totals: the total of each currency.
        unpriced: what was used and has no price, in words.
        hours: the wall time of the owner's processes, summed over the attempts, in hours.
        energy_kwh: the energy that was measured, in kWh; ``None`` where none was.
        currency: the currency of the run's own prices, the last attempt's.
    """

    lines: tuple[Line, ...] = ()
    totals: Mapping[str, Decimal] = field(default_factory=dict)
    unpriced: tuple[str, ...] = ()
    hours: Decimal = Decimal(0)
    energy_kwh: Decimal | None = None
    currency: str | None = None

    def __bool__(self) -> bool:
        return bool(self.lines or self.unpriced)

    @property
    def total(self) -> Decimal | None:
        """The total in the run's own currency, or in the only one that there is."""
        if self.currency is not None and self.currency in self.totals:
            return self.totals[self.currency]
        return next(iter(self.totals.values())) if len(self.totals) == 1 else None

    def in_short(self) -> dict[str, object]:
        """Return what lists of runs have of it, as plain data; empty where there is nothing.

        `total`, `currency` and `totals` as in `as_data`, but that the total is a float;
        `energy_kwh` where energy was measured, and how many things are `unpriced` where any are.
        """
        more: dict[str, object] = {}
        if self.energy_kwh is not None:
            more["energy_kwh"] = float(self.energy_kwh)
        if self.unpriced:
            more["unpriced"] = len(self.unpriced)
        if not self.totals and not more:
            return {}
        total = None if self.total is None else float(self.total)
        return {"total": total, "currency": self.currency, "totals": texts(self.totals), **more}

    def as_data(self) -> dict[str, object]:
        """Return it as plain data that `json.dumps` takes; amounts are texts: they are exact."""
        return {
            "total": None if self.total is None else digits(self.total),
            "currency": self.currency if self.total is not None else None,
            "totals": texts(self.totals),
            "lines": [
                {
                    "kind": line.kind,
                    "what": line.what,
                    "amount": digits(line.amount),
                    "currency": line.currency,
                    "quantity": line.quantity or None,
                    "prices": list(line.prices),
                }
                for line in self.lines
            ],
            "unpriced": list(self.unpriced),
            "hours": float(self.hours),
            "energy_kwh": None if self.energy_kwh is None else float(self.energy_kwh),
        }


@dataclass(slots=True)
class _Sum:
    amount: Decimal = Decimal(0)
    counts: dict[str, int] = field(default_factory=dict)
    calls: int = 0
    unpriced: dict[str, int] = field(default_factory=dict)
    unpriced_calls: int = 0
    prices: dict[str, None] = field(default_factory=dict)


Part = tuple[int, str | None]
Signs = Callable[[int, str | None], float | None]


class Accounts:
    """Takes the events of a run, one by one, and returns the ledger that they make."""

    def __init__(self) -> None:
        self._sums: dict[tuple[str, str, str], _Sum] = {}
        self._waiting: dict[tuple[int, str | None, str], _Sum] = {}  # for their price
        self._held: dict[tuple[int, str | None, float], Held] = {}
        self._seen: dict[Part, Mapping[str, object]] = {}

    def take(self, attempt: int, part: str | None, name: str, data: object) -> None:
        """Take an event; what is none of the ledger's, or damaged, changes nothing.

        Args:
            attempt: the attempt that has logged it.
            part: the part of the run that has; ``None`` for the owner's own.
            name: the event's name.
            data: what it says.
        """
        if not isinstance(data, Mapping):
            return
        if name == COST:
            self._take_cost(data)
        elif name == TOKENS:
            self._take_tokens(attempt, part, data)
        elif name == HELD:
            held = held_by(attempt, part, data)
            if held is not None:
                self._held[attempt, part, held.started] = held
        elif name == RESOURCES:
            self._seen[attempt, part] = data

    def _take_cost(self, data: Mapping[str, object]) -> None:
        amount, currency = _money(data)
        if amount is not None:
            one = self._sum(COST, str(data.get("what")), currency)
            one.amount = EXACT.add(one.amount, amount)
            one.calls += 1

    def _take_tokens(self, attempt: int, part: str | None, data: Mapping[str, object]) -> None:
        counts = {name: _count(data.get(name)) for name in COUNTS}
        amount, currency = _money(data)
        model, key = str(data.get("model")), (attempt, part, str(data.get("id")))
        waits = self._waiting.pop(key, None)
        if waits is not None:
            if amount is None:
                return
            waits.unpriced_calls -= 1
            _add_counts(waits.unpriced, counts, -1)
        one = self._sum(TOKENS, model, currency if amount is not None else "")
        if amount is None:
            one.unpriced_calls += 1
            _add_counts(one.unpriced, counts)
            if data.get("id") is not None:
                self._waiting[key] = one
            return
        one.calls += 1
        one.amount = EXACT.add(one.amount, amount)
        _add_counts(one.counts, counts)
        one.prices[str(data.get("prices"))] = None

    def _sum(self, kind: str, what: str, currency: str) -> _Sum:
        key = (kind, what, currency)
        if key not in self._sums and len(self._sums) >= MOST_LINES:
            key = (kind, OTHERS, currency)
        return self._sums.setdefault(key, _Sum())

    def ledger(self, last_sign: Signs = lambda attempt, part: None) -> Ledger:
        """Return the ledger of what was taken by now.

        Args:
            last_sign: returns when a process that has recorded no end has shown its last sign of
                life, in seconds since the epoch, by its attempt and its part.
        """
        lines, unpriced = self._spent()
        held = [until(one, last_sign(one.attempt, one.part)) for one in self._held.values()]
        currency = max(held, key=lambda one: one.attempt).currency if held else None
        joules = list(self._energy(held).values())
        kwh = None
        if joules:
            kwh = EXACT.quantize(EXACT.divide(sum(joules, Decimal(0)), _JOULES), _FINE)
        more, lacking = self._resources(held)
        totals: dict[str, Decimal] = {}
        for line in (*lines, *more):
            add(totals, line.currency, line.amount)
        own = (one for one in held if one.part is None)
        seconds = sum((in_seconds(one.ended - one.started) for one in own), Decimal(0))
        hours = EXACT.quantize(EXACT.divide(seconds, _HOUR), _FINE)
        return Ledger((*lines, *more), totals, (*unpriced, *lacking), hours, kwh, currency)

    def _spent(self) -> tuple[list[Line], list[str]]:
        lines, unpriced = [], []
        for (kind, what, currency), one in sorted(self._sums.items()):
            if one.calls:
                quantity = _in_words(one.counts, one.calls) if kind == TOKENS else ""
                lines.append(Line(kind, what, currency, one.amount, quantity, tuple(one.prices)))
            if one.unpriced_calls:
                unpriced.append(f"{what}: {_in_words(one.unpriced, one.unpriced_calls)}")
        return lines, unpriced

    def _resources(self, held: list[Held]) -> tuple[list[Line], list[str]]:
        """Return the lines of nodes, GPUs and energy, and what of these is not known."""
        sums: dict[tuple[str, str], tuple[Decimal, Decimal]] = {}
        lacking: dict[str, None] = {}
        joules = self._energy(held)

        def charge(kind: str, one: Held, price: Decimal, quantity: Decimal) -> None:
            before, amount = sums.get((kind, one.currency), (Decimal(0), Decimal(0)))
            paid = EXACT.add(amount, EXACT.multiply(price, quantity))
            sums[kind, one.currency] = EXACT.add(before, quantity), paid

        for (attempt, host), processes in by_node(held).items():
            priced = next((one for one in processes if one.prices), None)
            if priced is None:
                continue
            hours = EXACT.divide(
                in_seconds(covered((p.started, p.ended) for p in processes)), _HOUR
            )
            prices = priced.prices
            if "node_hour" in prices:
                charge("node", priced, prices["node_hour"], hours)
            if "gpu_hour" in prices:
                gpus = self._gpus(processes)
                if gpus is None:
                    lacking[_NO_GPUS] = None
                else:
                    charge("gpu", priced, prices["gpu_hour"], EXACT.multiply(hours, Decimal(gpus)))
            if "kwh" in prices:
                found = joules.get((attempt, host))
                if found is None:
                    lacking["energy: unmeasured"] = None
                else:
                    charge("energy", priced, prices["kwh"], EXACT.divide(found, _JOULES))
        names = {"node": "node hours", "gpu": "GPU hours", "energy": "kWh"}
        lines = [
            Line(
                kind,
                names[kind],
                currency,
                EXACT.quantize(amount, _FINE),
                f"{quantity:.4g} {names[kind]}",
            )
            for (kind, currency), (quantity, amount) in sums.items()
        ]
        return lines, list(lacking)

    def _gpus(self, processes: list[Held]) -> int | None:
        """Return how many GPUs of a node its processes have; ``None`` where that is not known."""
        named = [one.gpus for one in processes if one.gpus is not None]
        if named:
            return max(named)
        parts = dict.fromkeys((one.attempt, one.part) for one in processes)
        seen = [self._seen.get(part, {}).get("gpus") for part in parts]  # each is one process's
        counts = [count for count in seen if type(count) is int and count >= 0]
        return sum(counts) if counts else None

    def _energy(self, held: list[Held]) -> dict[tuple[int, str], Decimal]:
        """Return the energy that each node has used, in joules, by attempt and host.

        The sampler sees to it that of the processes of a node only one reads a counter.
        """
        hosts = {(one.attempt, one.part): one.host for one in held}
        found: dict[tuple[int, str], Decimal] = {}
        for (attempt, part), data in self._seen.items():
            joules = number_in(data.get("energy_j"))
            if joules is not None:
                node = attempt, hosts.get((attempt, part), "")
                found[node] = EXACT.add(found.get(node, Decimal(0)), joules)
        return found


def _money(data: Mapping[str, object]) -> tuple[Decimal | None, str]:
    amount = number_in(data.get("amount"))
    try:
        return amount, currency_of(data.get("currency"))
    except ValueError:
        return None, ""


def _count(value: object) -> int:
    return value if type(value) is int and value >= 0 else 0


def _add_counts(totals: dict[str, int], counts: Mapping[str, int], sign: int = 1) -> None:
    for name, count in counts.items():
        if count:
            totals[name] = totals.get(name, 0) + sign * count


def _in_words(counts: Mapping[str, int], calls: int) -> str:
    names = [f"{counts[name]:,} {name.replace('_', ' ')}" for name in COUNTS if counts.get(name)]
    return f"{', '.join(names) or '0'} tokens in {calls:,} {'call' if calls == 1 else 'calls'}"
