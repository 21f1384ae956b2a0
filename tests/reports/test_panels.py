"""The axes of charts and pictures: ticks and labels."""

from __future__ import annotations

import pytest

from keisei.reports.panels import labels, ticks


def test_ticks_are_round_and_their_labels_short_and_different() -> None:
    """Thousands and millions by a letter, and as many digits as it takes."""
    assert ticks(0, 1000, 5) == [0, 200, 400, 600, 800, 1000]
    assert ticks(0.13, 0.37, 3) == pytest.approx([0.2, 0.3])
    assert labels([0, 200_000, 400_000]) == ["0", "200k", "400k"]
    assert labels([0, 0.5, 1]) == ["0", "0.5", "1.0"]
    assert labels([4_999_990, 4_999_992]) == ["4.999990M", "4.999992M"]
    assert labels([2e-9, 1e-9]) == ["2e-09", "1e-09"]
    assert labels([-5, 0]) == ["-5", "0"]
