"""Amounts of money: exact decimal numbers, each in its currency."""

from __future__ import annotations

import math
import re
from collections.abc import Mapping
from decimal import ROUND_HALF_EVEN, Context, Decimal, DivisionByZero, InvalidOperation, Overflow
from typing import SupportsFloat, SupportsIndex

from keisei.errors import quoted

MOST = Decimal("1e15")  # what one amount is below
PLACES = 18  # decimal places that are kept of an amount

# The program's own context may have any precision, and is not touched.
EXACT = Context(
    prec=80, rounding=ROUND_HALF_EVEN, traps=[InvalidOperation, DivisionByZero, Overflow]
)
_CURRENCY = re.compile(r"[A-Z]{3}")
_UNIT = Decimal(1).scaleb(-PLACES)


def amount_of(value: object) -> Decimal:
    """Return an amount exactly as it was given; a float is what its shortest digits say.

    Args:
        value: a whole number, a float, a decimal, a text with one of these, or what numpy has for
            them. What is beyond 18 decimal places is rounded.

    Raises:
        TypeError: it is no number.
        ValueError: it is negative, not finite, or 1e15 or more.
    """
    amount = _decimal(value)
    if not amount.is_finite() or amount < 0 or amount >= MOST:
        raise ValueError(
            f"an amount is a finite number from 0 to below {MOST:.0e}, not {quoted(value, 60)}"
        )
    return EXACT.quantize(amount, _UNIT)


def _decimal(value: object) -> Decimal:
    if isinstance(value, bool):
        raise TypeError(f"an amount is a number, not {quoted(value)}")
    if isinstance(value, Decimal):
        return value
    if isinstance(value, str):
        try:
            return EXACT.create_decimal(value.strip())
        except InvalidOperation:
            raise ValueError(f"{quoted(value, 60)} is no amount") from None
    if isinstance(value, float) or (
        isinstance(value, SupportsFloat) and not isinstance(value, SupportsIndex)
    ):
        number = float(value)
        return Decimal(repr(number)) if math.isfinite(number) else Decimal(number)
    if isinstance(value, SupportsIndex):
        number = value.__index__()
        return Decimal(number) if abs(number) < MOST else Decimal("Infinity")
    raise TypeError(f"an amount is a number, not {quoted(value, 60)}")


def currency_of(value: object) -> str:
    """Return a currency if it is one by its three letters.

    Raises:
        ValueError: it is none.
    """
    if not isinstance(value, str) or _CURRENCY.fullmatch(value) is None:
        raise ValueError(f"a currency is three capital letters, such as 'USD': {quoted(value, 60)}")
    return value


def add(totals: dict[str, Decimal], currency: str, amount: Decimal) -> None:
    """Add an amount to the total of its currency."""
    totals[currency] = EXACT.add(totals.get(currency, Decimal(0)), amount)


def digits(amount: Decimal) -> str:
    """Return an amount's digits in full: without an exponent, and without zeros at the end."""
    text = f"{amount:f}"
    return text.rstrip("0").rstrip(".") if "." in text else text


def rounded(amount: Decimal) -> str:
    """Return an amount as people read it: to the cent, or to two digits where it is below one."""
    if 0 < amount < Decimal("0.01"):
        return digits(EXACT.quantize(amount, Decimal(1).scaleb(amount.adjusted() - 1)))
    return f"{EXACT.quantize(amount, Decimal('0.01')):,f}"


def texts(totals: Mapping[str, Decimal]) -> dict[str, str]:
    """Return totals as plain data: the digits of each by its currency, which are sorted."""
    return {currency: digits(totals[currency]) for currency in sorted(totals)}
