"""The pauses between retries."""

from __future__ import annotations

from keisei._io.backoff import Backoff


def test_each_pause_is_twice_the_one_before_up_to_the_limit() -> None:
    """After a success the first pause comes again."""
    backoff = Backoff(0.05, 0.3)
    assert [backoff.next() for _ in range(5)] == [0.05, 0.1, 0.2, 0.3, 0.3]
    backoff.reset()
    assert backoff.next() == 0.05
