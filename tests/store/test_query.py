"""The query language: what parses, what it means, and errors that point at the character."""

from __future__ import annotations

import pytest
from hypothesis import given
from hypothesis import strategies as st

from keisei.errors import QueryError
from keisei.store.matching import matches
from keisei.store.query import LONGEST, parse
from keisei.store.rows import MetricSummary, RunRow

NOW = 1_800_000_000.0
DAY = 86400.0
WALKER = RunRow(
    name="walker-ppo-7",
    directory="/runs/walker-ppo-7",
    session_id="01JDA0000000000000000000AB",
    status="failed",
    attempt=2,
    host="node-3",
    started=NOW - 3 * DAY,
    ended=NOW - 3 * DAY + 7200,
    duration_s=7200.0,
    failure="RuntimeError: CUDA out of memory",
    tags=("ppo", "sweep/1"),
    note='the one with "big" batches',
    config={
        "env": {"seed": 7, "device": "cuda:0"},
        "training": {"total_timesteps": 1_000_000},
        "logging": {"wandb_enabled": False, "run_name": None},
        "layers": [64, 32],
        "a.b": {"c": 1},
    },
    metrics={
        "loss": MetricSummary(last=0.15, min=0.1, max=2.0, mean=0.4, count=100, step=99),
        "train/kl": MetricSummary(last=None, count=1),
        "eval.return": MetricSummary(last=475.5, count=3),
    },
    trackers={"wandb": "finished"},
    checkpoints={"count": 3, "latest": 900, "best": None},
)


def fits(query: str) -> bool:
    return matches(parse(query, NOW), WALKER)


@pytest.mark.parametrize(
    "query",
    [
        "",
        "walker",
        "WALKER",
        "name:walker-*",
        "name:*-7 status:failed",
        "status:failed and tag:ppo and env.seed>=3 and loss.last<0.2 since:7d",
        "status:died,failed",
        "status=FAILED",
        "status!=completed",
        "not status:completed",
        "not (status:completed or tag:a2c)",
        "tag:a2c or tag:ppo",
        "tag:a2c or tag:ppo status:failed",
        "tag:sweep/*",
        "tag!=a2c",
        "note:big",
        'note:"\\"big\\" batches"',
        "failure:cuda",
        "host:node-?",
        "attempt:2",
        "attempt>1",
        "tracker:wandb",
        "checkpoints>0 latest_checkpoint>=900",
        "best_checkpoint!=900",
        "duration>1h",
        "duration<=7200",
        "since:4d",
        "before:2d",
        "started>2027-01-01",
        "started<2027-12-31T10:00:00+01:00",
        "ended>4d",
        "env.seed:7",
        "env.seed:7.0",
        "config.env.seed:7",
        "env.device:cuda*",
        "env.device:cuda:0",
        "training.total_timesteps>=1e6",
        "logging.wandb_enabled:false",
        "logging.run_name:null",
        "config.layers:32",
        "a.b.c:1",
        "env.nothing!=1",
        "loss.min<=0.1",
        "loss.count:100",
        "loss.step>98",
        "eval.return.last>475",
        "'walker-ppo-7'",
    ],
)
def test_a_query_that_fits(query: str) -> None:
    """A query fits a run of which all its conditions hold."""
    assert fits(query)


@pytest.mark.parametrize(
    "query",
    [
        "runner",
        "name:walker",
        "status:completed",
        "tag!=ppo",
        "tag:a2c or tag:ppo and status:completed",
        "(tag:a2c or tag:ppo) status:completed",
        "not tag:ppo",
        "since:2d",
        "before:4d",
        "duration>2h",
        "env.seed>7",
        "env.seed!=7",
        "env.nothing:1",
        "env.nothing<1",
        "env.device>3",
        "train/kl.last<1",
        "train/kl.last>=1",
        "lr.last>0",
        "loss.best>0",
    ],
)
def test_a_query_that_does_not_fit(query: str) -> None:
    """A query fits no run of which a condition does not hold; what is missing fits none."""
    assert not fits(query)


@pytest.mark.parametrize(
    ("query", "column", "says"),
    [
        ("status:", 7, "a value is missing"),
        ("status:failed and", 17, "a condition is missing"),
        ("and status:failed", 0, "a condition is missing"),
        ("(status:failed", 0, "not closed"),
        ("status:failed)", 13, "nothing that this closes"),
        ("tag:ppo colour:red", 8, "no field 'colour'"),
        ("colour>3", 0, "config.colour"),
        ('note:"open', 5, "not closed"),
        ("loss.last<low", 10, "'low' is no number"),
        ("since:tomorrow", 6, "2026-11-01"),
        ("since>7d", 5, "since:7d"),
        ("duration>long", 9, "2h or 7d"),
        ("status<failed", 6, "no order"),
        ("attempt<1,2", 7, "one value"),
        (":failed", 0, "a condition is missing"),
        ("status:failed,", 14, "a value is missing"),
        ("not", 3, "a condition is missing"),
        ("(" * 200, 100, "levels deep"),
        ("x" * (LONGEST + 1), 0, "too long"),
        ("name:\x1b[31m or", 13, "a condition is missing"),
    ],
)
def test_an_error_points_at_the_character(query: str, column: int, says: str) -> None:
    """A query that does not parse is one error, which points at the character, escaped."""
    with pytest.raises(QueryError, match=says) as caught:
        parse(query, NOW)
    assert caught.value.column == column
    assert "\x1b" not in str(caught.value)
    assert len(str(caught.value)) < 1500


@given(st.text(alphabet="ab :=<>!()\"',.andortg1-7\\*?\n\x00é", max_size=60))
def test_any_text_parses_or_is_a_query_error(text: str) -> None:
    """Any text is a query, or the documented error within the text."""
    column = 0
    try:
        matches(parse(text, NOW), WALKER)
    except QueryError as error:
        column = error.column
    assert 0 <= column <= len(text)
