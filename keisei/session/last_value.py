"""The last value of one metric, for what is saved by it."""

from __future__ import annotations

from collections.abc import Mapping

from keisei.journal.values import Number, Unread, number_or_unread


class LastValue:
    """The last value of one metric.

    Attributes:
        name: the metric; ``None`` while none is looked for.
    """

    def __init__(self) -> None:
        self.name: str | None = None
        self._known: dict[str, Number | Unread] = {}

    def note(self, metrics: Mapping[str, object]) -> None:
        """Keep the metric's value, where it is among those that were just logged."""
        name = self.name or ""
        if (value := _value_of(metrics, name)) is not None:
            self._known = {name: number_or_unread(name, value)}

    def now(self) -> dict[str, Number | Unread]:
        """Return the value by the metric's name; nothing where it was never logged."""
        return {name: value for name, value in self._known.items() if name == self.name}


def _value_of(metrics: Mapping[str, object], name: str) -> object | None:
    """Return a metric's value by its name, which may be joined of nested ones with `/`."""
    if (value := metrics.get(name)) is not None:
        return None if isinstance(value, Mapping) else value
    head, slash, rest = name.partition("/")
    while slash:
        inner = metrics.get(head)
        if isinstance(inner, Mapping) and (value := _value_of(inner, rest)) is not None:
            return value
        more, slash, rest = rest.partition("/")
        head += f"/{more}"
    return None
