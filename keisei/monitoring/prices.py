"""Prices of language models' tokens, from the table that the package `genai-prices` holds.

The table is the installed one: nothing is fetched. Where the program itself lets that package
update its prices, those count, and the amount says so. The package takes 65 ms to import and 70 us
to price a call: it is imported once, where no loop runs, and calls are priced where they are made.
"""

from __future__ import annotations

import threading
from collections.abc import Mapping
from dataclasses import dataclass
from datetime import UTC, datetime
from decimal import Decimal, localcontext
from typing import Any

from keisei._log import logger
from keisei.errors import describe
from keisei.monitoring.money import EXACT

_loading = threading.Lock()
_package: Any = None
_is_missing = False
_USAGE = {
    "input": "input_tokens",
    "output": "output_tokens",
    "cached_input": "cache_read_tokens",
    "cache_write": "cache_write_tokens",
    "reasoning": "output_reasoning_tokens",
}


@dataclass(frozen=True, slots=True)
class Price:
    """What a call has cost.

    Attributes:
        amount: how much, in USD.
        table: which table says so, with its version, and its date where it was updated.
    """

    amount: Decimal
    table: str


def are_known() -> bool:
    """Return whether calls can be priced now, or never; else `load` has to be called first."""
    return _package is not None or _is_missing


def load() -> None:
    """Import the table; it blocks. Where it is not installed, one warning says so."""
    global _package, _is_missing
    with _loading:
        if are_known():
            return
        try:
            import genai_prices
            import genai_prices.data  # the table itself
        except ImportError as exc:
            _is_missing = True
            text = (
                "tokens are counted without a price: genai-prices cannot be imported (%s). "
                "Install it with `pip install 'keisei[cost]'`"
            )
            logger.warning(text, describe(exc))
            return
        _package = genai_prices


def price_of(
    model: str, counts: Mapping[str, int], provider: str | None, when: float
) -> Price | None:
    """Return what a call has cost; ``None`` where there is no price.

    Args:
        model: the model's name.
        counts: the tokens, by the names that `log_tokens` has for them.
        provider: who has served it, as `genai-prices` calls them; ``None``: the model's own.
        when: when that was, in seconds since the epoch: prices change.
    """
    if _package is None:
        return None
    try:
        with localcontext(EXACT):
            used = _package.Usage(**{_USAGE[name]: count for name, count in counts.items()})
            found = _package.calc_price(
                used,
                model,
                provider_id=provider,
                genai_request_timestamp=datetime.fromtimestamp(when, UTC),
            )
    except Exception:  # noqa: BLE001 - of another library: no model, no provider, no such tokens
        return None
    table = f"genai-prices {_package.__version__}"
    if found.auto_update_timestamp is not None:
        table += f", updated {found.auto_update_timestamp:%Y-%m-%d %H:%M}"
    return Price(Decimal(found.total_price), table)
