"""A regular expression that is compiled at its first use."""

from __future__ import annotations

import re
from functools import cached_property


class Rule:
    """A regular expression, compiled at its first use: all of them would cost each import 5 ms.

    No rule backtracks far: each starts only at the start of a word or of a stretch of characters,
    and is possessive (`*+`, `(?>`) or bounded.
    """

    def __init__(self, pattern: str, flags: int = 0) -> None:
        self._pattern, self._flags = pattern, flags

    @cached_property
    def regex(self) -> re.Pattern[str]:
        """The compiled expression."""
        return re.compile(self._pattern, self._flags)
