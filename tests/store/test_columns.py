"""The columns of a list: their names, their values, their order."""

from __future__ import annotations

import math

import pytest

from keisei.errors import QueryError
from keisei.store.columns import check_column, ordered, value_of
from keisei.store.rows import MetricSummary, RunRow


def row(name: str, seed: object = None, loss: float | None = None, **more: object) -> RunRow:
    config = {} if seed is None else {"env": {"seed": seed}}
    metrics = {} if loss is None else {"train/loss": MetricSummary(last=loss)}
    return RunRow(name, f"/runs/{name}", config=config, metrics=metrics, **more)  # type: ignore[arg-type]


def test_a_column_is_a_field_a_metric_or_a_config_path() -> None:
    """A column is named as a query names it."""
    one = row(
        "a",
        seed=3,
        loss=0.5,
        tags=("x", "y"),
        duration_s=2.5,
        checkpoints={"count": 2, "latest": 9},
    )
    values = {
        "name": "a",
        "tag": ["x", "y"],
        "Duration": 2.5,
        "train/loss.last": 0.5,
        "checkpoints": 2,
        "latest_checkpoint": 9,
        "best_checkpoint": None,
        "env.seed": 3,
        "config.env.seed": 3,
        "env.device": None,
        "train/kl.last": None,
        "note": None,
    }
    assert {name: value_of(one, check_column(name)) for name in values} == values


@pytest.mark.parametrize("name", ["", "colour", ".", "loss", "\x1b"])
def test_an_unknown_column_is_an_error_that_lists_them(name: str) -> None:
    """What is no column is an error that says which there are."""
    with pytest.raises(QueryError, match=r"started.*loss|started.*last|started"):
        check_column(name)


def test_rows_are_ordered_by_any_column_and_those_without_come_last() -> None:
    """Numbers come by size, texts without regard to case, what is missing last, both ways."""
    rows = [row("b", 2), row("a", 10), row("d"), row("C", 1), row("e", math.nan)]

    def order(by: str) -> list[str]:
        return [one.name for one in ordered(rows, by)]

    assert order("env.seed") == ["C", "b", "a", "d", "e"]
    assert order("-env.seed") == ["a", "b", "C", "d", "e"]
    assert order("name") == ["a", "b", "C", "d", "e"]
    assert order("-name") == ["e", "d", "C", "b", "a"]
