"""Hooks that run in forked children."""

from __future__ import annotations

import os

import pytest

from keisei._io.forks import after_in_child
from tests.support.forks import in_child

_seen: list[int] = []


@pytest.mark.skipif(not hasattr(os, "fork"), reason="this system has no fork")
def test_a_hook_runs_in_each_child_and_not_in_the_parent() -> None:
    """It has run when the fork returns in the child."""
    after_in_child(lambda: _seen.append(os.getpid()))
    for _ in range(2):
        assert in_child(lambda: _seen == [os.getpid()]) == "returned True"
    assert _seen == []


def test_without_fork_there_is_nothing_to_do(monkeypatch: pytest.MonkeyPatch) -> None:
    """On a system that cannot fork the hook is never called, and registering it is no error."""
    monkeypatch.delattr(os, "register_at_fork", raising=False)
    after_in_child(lambda: _seen.append(0))
    assert _seen == []
