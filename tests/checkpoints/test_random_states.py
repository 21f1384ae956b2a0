"""Random states are taken and put back; what does not fit stays as it is."""

from __future__ import annotations

import logging
import random

import numpy as np
import pytest

from keisei.checkpoints import random_states
from tests.support.packed_states import round_trip


@pytest.mark.requirement("CKPT-6")
def test_what_is_drawn_is_what_was_drawn() -> None:
    """Python's and numpy's generators go on from where they were, the halves of pairs included."""
    random.gauss(0, 1)
    np.random.standard_normal()
    states = round_trip(random_states.take())
    drawn = [random.random(), random.gauss(0, 1), np.random.rand(), np.random.standard_normal()]
    assert {"random", "numpy"} <= set(random_states.put_back(states))
    again = [random.random(), random.gauss(0, 1), np.random.rand(), np.random.standard_normal()]
    assert drawn == again


@pytest.mark.parametrize(
    "states",
    [
        {"random": None},
        {"random": (3, (1,), None)},
        {"random": "x" * 10_000},
        {"numpy": {}},
        {"numpy": {"bit_generator": "PCG64", "state": {"key": [1], "pos": 0}}},
        {"numpy": {"bit_generator": "MT19937", "state": {"key": [-1] * 624, "pos": 1}}},
        {"numpy": [1]},
    ],
    ids=range(7),
)
def test_a_state_that_does_not_fit_is_left_out(
    states: dict[str, object], caplog: pytest.LogCaptureFixture
) -> None:
    """The generator goes on as before, with one warning; nothing else comes of it."""
    before = random.getstate(), np.random.get_state()[1].tolist()  # type: ignore[index]
    with caplog.at_level(logging.WARNING, "keisei"):
        assert random_states.put_back({**states, "os": "rm", "sys": 1}) == ()
    assert "stays as it is" in caplog.text
    assert before == (random.getstate(), np.random.get_state()[1].tolist())  # type: ignore[index]
