"""The error of an adapter whose framework is not installed."""

from __future__ import annotations

from keisei.errors import MissingExtraError


def missing(what: str, package: str, extra: str) -> MissingExtraError:
    """Return the error that a framework is not installed; it names the extra that brings it.

    Args:
        what: what needs it.
        package: the framework's package.
        extra: keisei's extra.
    """
    return MissingExtraError(
        f"{what} needs {package}: install it with `pip install 'keisei[{extra}]'`"
    )
