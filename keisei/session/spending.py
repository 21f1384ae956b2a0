"""What a session, or a member, logs of the money that it spends: amounts, and tokens."""

from __future__ import annotations

import asyncio
import sys
import threading
import time
from collections import deque
from collections.abc import Callable, Mapping
from contextlib import suppress
from typing import Any
from uuid import uuid4

from keisei._text import one_line
from keisei.errors import JournalError, quoted
from keisei.journal.writer import Journal
from keisei.monitoring import prices
from keisei.monitoring.ledger import TOKENS
from keisei.monitoring.money import amount_of, currency_of, digits

LONGEST = 200  # characters of what an amount is for

OnSpent = Callable[[str, Mapping[str, object]], object]


def cost_event(amount: object, what: str, currency: str) -> dict[str, object]:
    """Return the event of an amount.

    Raises:
        TypeError: the amount is no number, or what it is for no text.
        ValueError: the amount is negative or not finite, or the currency none.
    """
    exact = digits(amount_of(amount))
    return {"amount": exact, "currency": currency_of(currency), "what": _named(what, "what")}


def tokens_event(
    model: str, counts: Mapping[str, object], provider: str | None
) -> dict[str, object]:
    """Return the event of a model's tokens, without a price.

    Raises:
        TypeError: a count is no whole number, or a name no text.
        ValueError: a count is negative, or more of the input is cached than there is.
    """
    found = {name: _count(name, value) for name, value in counts.items()}
    if found["cached_input"] + found["cache_write"] > found["input"]:
        raise ValueError("input is the number of all input tokens, cached ones among them")
    if found["reasoning"] > found["output"]:
        raise ValueError("output is the number of all output tokens, those of reasoning among them")
    event: dict[str, object] = {"model": _named(model, "model")}
    if provider is not None:
        event["provider"] = _named(provider, "provider")
    return {**event, **{name: n for name, n in found.items() if n or name in ("input", "output")}}


class Spending:
    """Prices what is spent, and logs it, whatever thread or loop it is called on.

    Attributes:
        on_spent: called with each event that is logged, on the same thread.
        currency: the currency of amounts that come without one.
    """

    def __init__(self) -> None:
        self.on_spent: OnSpent = lambda name, data: None
        self.currency = "USD"
        self._unpriced: deque[tuple[Callable[[], Journal | None], dict[str, Any], float]] = deque()
        self._pricing = threading.Lock()

    def priced(self, event: dict[str, Any]) -> dict[str, Any]:
        """Return an event of tokens with its price, as far as that is known now.

        The table of prices is imported where no loop runs. Until it is, the event gets an id, and
        comes again with its price: see `price_later`.

        Args:
            event: the event.
        """
        if not prices.are_known() and not _loop_runs():
            prices.load()
        if prices.are_known():
            return _priced(event, time.time())
        return {**event, "id": uuid4().hex[:16]}

    def price_later(self, event: dict[str, Any], journal: Callable[[], Journal | None]) -> None:
        """Price an event that was logged before the table was there, on a thread.

        Args:
            event: the event; one that needs no price any more is left as it is.
            journal: returns the journal that it was logged in.
        """
        if "id" in event:
            self._unpriced.append((journal, event, time.time()))
            with suppress(RuntimeError):  # no thread is left: at the end
                thread = threading.Thread(target=self.settle, name="keisei-prices", daemon=True)
                thread.start()

    def settle(self) -> None:
        """Price what has come before the table, and log it again; it blocks."""
        if not self._unpriced:
            return
        prices.load()
        with self._pricing:
            while self._unpriced:
                journal, event, when = self._unpriced.popleft()
                priced = _priced(event, when)
                if "amount" in priced and (opened := journal()) is not None:
                    with suppress(JournalError):
                        opened.log_event(TOKENS, priced)
                        self.on_spent(TOKENS, priced)


def _priced(event: dict[str, Any], when: float) -> dict[str, Any]:
    counts = {name: count for name, count in event.items() if type(count) is int}
    found = prices.price_of(event["model"], counts, event.get("provider"), when)
    if found is None:
        return event
    amount = digits(amount_of(found.amount))
    return {**event, "amount": amount, "currency": "USD", "prices": found.table}


def _loop_runs() -> bool:
    """Return whether an event loop runs in this thread."""
    trio: Any = sys.modules.get("trio")
    if trio is not None and trio.lowlevel.in_trio_run():
        return True
    try:
        asyncio.get_running_loop()
    except RuntimeError:
        return False
    return True


def _named(value: object, name: str) -> str:
    if not isinstance(value, str) or not value:
        raise TypeError(f"{name} is a text that is not empty: {quoted(value, 60)}")
    return one_line(value)[:LONGEST]


def _count(name: str, value: object) -> int:
    if isinstance(value, bool) or not hasattr(value, "__index__"):
        raise TypeError(f"{name} is a whole number of tokens: {quoted(value, 60)}")
    count: int = value.__index__()
    if not 0 <= count < 10**15:
        raise ValueError(f"{name} is a number of tokens from 0 on: {quoted(value, 60)}")
    return count
