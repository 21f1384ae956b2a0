"""How often verdicts are wrong, over simulated histories, beside other methods."""

from __future__ import annotations

import numpy as np
import pytest

from tests.support.histories import (
    Draw,
    by_bootstrap,
    by_keisei,
    by_permutation,
    by_rank,
    by_threshold,
    drifting,
    drifting_slowly,
    heavy_tailed,
    noisy_rows,
    normal,
    two_machines,
)
from tests.support.storms import repetitions

KINDS = [normal, heavy_tailed, drifting, drifting_slowly, two_machines, noisy_rows]
FEW = 300


def shares(draw: Draw, baselines: int, runs: int, loss: float, times: int) -> tuple[float, ...]:
    """Return the shares of `worse`, `better` and `same`, and those that others call worse."""
    rng = np.random.default_rng(baselines + runs)
    values = draw(rng, times, baselines, runs)
    earlier, new = values[:, :baselines], values[:, baselines:] - loss
    alarms, same = by_keisei(earlier, new)
    found = [(alarms < 0).mean(), (alarms > 0).mean(), same.mean()]
    for other in (by_rank, by_permutation, by_bootstrap, by_threshold):
        theirs = other(earlier, new)
        found.append((theirs < 0).mean() if loss else (theirs != 0).mean())
    return tuple(100 * float(share) for share in found)


@pytest.mark.requirement("CMP-1")
@pytest.mark.parametrize("draw", KINDS, ids=lambda draw: draw.__name__)
def test_equal_runs_raise_no_alarm(draw: Draw) -> None:
    """Hardly ever: one in a hundred is what is allowed, and three are too many."""
    values = draw(np.random.default_rng(1), FEW, 10, 1)
    alarms, _ = by_keisei(values[:, :10], values[:, 10:])
    assert np.abs(alarms).sum() <= 0.03 * FEW


@pytest.mark.requirement("CMP-1")
def test_a_loss_is_found_with_several_seeds() -> None:
    """A loss of 5 % at a noise of 2 % between runs, with ten baselines and eight new runs."""
    values = normal(np.random.default_rng(2), FEW, 10, 8)
    alarms, same = by_keisei(values[:, :10], values[:, 10:] - 0.05)
    assert (alarms < 0).sum() >= 0.93 * FEW
    assert not (alarms > 0).any()
    assert not same.any()


@pytest.mark.requirement("CMP-1")
def test_a_loss_is_found_with_one_seed_where_the_rows_are_noisy() -> None:
    """A run's end is the mean of many rows, and hardly noisy itself."""
    values = noisy_rows(np.random.default_rng(3), 100, 10, 1)
    alarms, _ = by_keisei(values[:, :10], values[:, 10:] - 0.05)
    assert (alarms < 0).all()


@pytest.mark.storm
def test_ten_thousand_histories() -> None:
    """The table of false alarms, and of losses that are found, beside other methods."""
    times = repetitions(10_000)
    print(f"\n{times} histories a line, 10 baselines but in the last lines; shares in percent")
    print("history, baselines, runs, loss: worse better same | rank permuted bootstrap threshold")
    for draw in KINDS:
        for runs, loss in ((1, 0), (5, 0), (1, 0.05), (1, 0.1), (5, 0.05), (7, 0.05), (8, 0.05)):
            if draw is noisy_rows and (runs, loss) not in ((1, 0), (1, 0.05)):
                continue
            found = shares(draw, 10, runs, loss, times)
            shown = [f"{share:5.1f}" for share in found]
            print(f"{draw.__name__}, 10, {runs}, {loss}:", *shown[:3], "|", *shown[3:], flush=True)
            if not loss and (runs == 1 or draw in (normal, heavy_tailed)):
                assert found[0] + found[1] <= 1.3 + 300 / times
    for loss in (0.0, 0.05, 0.5):
        found = shares(normal, 3, 1, loss, times)
        print(f"normal, 3, 1, {loss}:", *(f"{share:5.1f}" for share in found[:3]))
        assert found[:3] == (0.0, 0.0, 0.0)
