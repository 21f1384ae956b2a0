"""Blocking calls that are made side by side."""

from __future__ import annotations

import threading

import pytest

from keisei._io import files


def test_calls_are_made_side_by_side() -> None:
    """Each waits for all the others, as if its disk took as long as theirs."""
    together = threading.Barrier(4, timeout=60)
    files.at_once([together.wait] * 4)
    files.at_once([])


def test_all_are_made_and_the_first_error_counts(monkeypatch: pytest.MonkeyPatch) -> None:
    """Also where the system has no thread left."""
    made: list[int] = []

    def fail(number: int) -> None:
        made.append(number)
        raise OSError(number)

    calls = [lambda: made.append(0), lambda: fail(1), lambda: fail(2)]
    for _ in range(2):
        with pytest.raises(OSError, match="1"):
            files.at_once(calls)
        assert sorted(made) == [0, 1, 2]
        made.clear()
        monkeypatch.setattr(threading.Thread, "start", _no_thread)


def _no_thread(thread: threading.Thread) -> None:
    raise RuntimeError("can't start new thread")
