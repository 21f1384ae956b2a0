"""The table of `keisei show --lag`."""

from __future__ import annotations

import io

import pytest
from rich.console import Console

from keisei.cli.show_lag import print_lag

LAG = {
    "stalls": 6,
    "seconds": 1.843,
    "left_out": 1,
    "functions": [
        {
            "function": "fetch_batch",
            "file": "train.py",
            "line": 7,
            "count": 6,
            "seconds": 1.843,
            "longest_s": 0.348,
            "causes": {"code": 5, "gc": 1},
        }
    ],
}


@pytest.mark.parametrize(("columns", "longest"), [(40, False), (80, True)])
def test_a_function_can_be_read_in_a_narrow_terminal(columns: int, longest: bool) -> None:
    """Its longest stall and its causes go first; its name and where it is stay whole."""
    written = io.StringIO()
    print_lag(LAG, Console(file=written, width=columns))
    said = written.getvalue()
    for text in ("fetch_batch", "train.py:7", "1.843 s"):
        assert text in said
    assert ("0.348 s" in said) == ("code 5, gc 1" in said) == longest
    assert max(map(len, said.splitlines())) <= columns
