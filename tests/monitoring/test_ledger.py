"""The ledger: sums over attempts, ranks and members, against sums by hand."""

from __future__ import annotations

import json
from decimal import Decimal, getcontext, localcontext
from fractions import Fraction
from itertools import pairwise
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from keisei.monitoring.ledger import MOST_LINES, OTHERS, Accounts, Ledger
from keisei.monitoring.money import amount_of, digits, rounded
from keisei.monitoring.node_time import covered

PARTS = [None, "rank1", "rank2", "rollout-1", "judge"]
AMOUNTS = st.one_of(
    st.decimals(0, 10**9, places=6).map(lambda amount: digits(abs(amount))),
    st.floats(0, 1e6).map(lambda amount: digits(amount_of(amount))),
)


def held(started: float, elapsed: float, **more: Any) -> dict[str, Any]:
    """Return the event of a process that has had its node for some seconds."""
    return {"host": "a", "started": started, "elapsed_s": elapsed, "ended": True} | more


def ledger(*events: tuple[int, str | None, str, dict[str, Any]]) -> Ledger:
    accounts = Accounts()
    for event in events:
        accounts.take(*event)
    return accounts.ledger()


@pytest.mark.requirement("COST-1")
@given(
    st.lists(
        st.tuples(
            st.integers(1, 4),
            st.sampled_from(PARTS),
            st.sampled_from(["USD", "EUR"]),
            st.sampled_from(["api", "rent", "people"]),
            AMOUNTS,
        )
    )
)
def test_the_sums_are_those_by_hand(
    spent: list[tuple[int, str | None, str, str, str]],
) -> None:
    """Over attempts, ranks and members, each currency and line is the exact sum of its amounts."""
    with localcontext() as context:
        context.prec = 3  # the program's own, which is none of the ledger's business
        found = ledger(
            *(
                (attempt, part, "cost", {"amount": a, "currency": currency, "what": what})
                for attempt, part, currency, what, a in spent
            )
        )
    for currency in ("USD", "EUR"):
        by_hand = sum((Fraction(a) for _, _, c, _, a in spent if c == currency), Fraction())
        assert Fraction(found.totals.get(currency, Decimal(0))) == by_hand
        for what in ("api", "rent", "people"):
            of_it = [Fraction(a) for _, _, c, w, a in spent if (c, w) == (currency, what)]
            lines = [x for x in found.lines if (x.what, x.currency) == (what, currency)]
            assert sum((Fraction(x.amount) for x in lines), Fraction()) == sum(of_it, Fraction())
    assert json.loads(json.dumps(found.as_data()))["unpriced"] == []


@given(st.lists(st.tuples(st.floats(0, 1e6), st.floats(0, 1e5)), max_size=8))
def test_processes_of_one_node_count_once(stretches: list[tuple[float, float]]) -> None:
    """What the ranks of a node cost is the time in which one of them was there."""
    events = [
        (1, None if i == 0 else f"rank{i}", "usage.cost", held(a, b, prices={"node_hour": "3.6"}))
        for i, (a, b) in enumerate(stretches)
    ]
    found = ledger(*events)
    marks = sorted({x for a, b in stretches for x in (a, a + b)})
    by_hand = sum(
        right - left
        for left, right in pairwise(marks)
        if any(a <= left and right <= a + b for a, b in stretches)
    )
    assert abs(covered((a, a + b) for a, b in stretches) - by_hand) < 1e-6 * (1 + by_hand)
    assert abs(float(found.totals.get("USD", Decimal(0))) - by_hand / 1000) < 0.01


def test_nodes_attempts_and_gpus_are_summed() -> None:
    """Two nodes of one attempt and the one of the next, with the GPUs and prices of their time."""
    first = {"prices": {"node_hour": "2", "gpu_hour": "1.5"}, "gpus": 4, "currency": "USD"}
    later = {"prices": {"node_hour": "3"}, "currency": "USD"}
    found = ledger(
        (1, None, "usage.cost", held(0, 60, **first)),
        (1, None, "usage.cost", held(0, 3600, **first)),  # the last one counts
        (1, "rank1", "usage.cost", held(0, 3600, **first)),
        (1, "rank2", "usage.cost", held(0, 1800, **first) | {"host": "b"}),
        (2, None, "usage.cost", held(9000, 1800, **later)),
    )
    lines = {line.kind: line for line in found.lines}
    assert lines["node"].amount == Decimal("4.5")  # 1.5 h of 2, half an hour of 3
    assert lines["gpu"].amount == Decimal("9")  # 4 GPUs for 1.5 h
    assert found.totals == {"USD": Decimal("13.5")}
    assert found.hours == Decimal("1.5")
    assert not found.unpriced


def test_a_killed_process_has_its_node_until_its_last_sign_of_life() -> None:
    """An end that was recorded counts; without one, the last record of the journal does."""
    accounts = Accounts()
    said = held(1000, 15, prices={"node_hour": "3600"})
    accounts.take(1, None, "usage.cost", said | {"ended": False})
    accounts.take(2, None, "usage.cost", said)
    assert accounts.ledger().totals == {"USD": Decimal(30)}
    assert accounts.ledger(lambda attempt, part: 1100.0).totals == {"USD": Decimal(115)}
    assert accounts.ledger(lambda attempt, part: 3.0).totals == {"USD": Decimal(30)}  # a clock


@pytest.mark.parametrize("set_by", [0.0, 3 * 86400.0, -86400.0])
def test_a_clock_that_was_set_costs_nothing(set_by: float) -> None:
    """What counts is what a process has said of its life, and the time since."""
    accounts, began = Accounts(), 1e9
    said = held(began, 60, ended=False, prices={"node_hour": "3600"}, at=began + 60 + set_by)
    accounts.take(1, None, "usage.cost", said)
    last = began + 75 + set_by
    assert accounts.ledger(lambda attempt, part: last).totals == {"USD": Decimal(75)}
    # It was set behind the last event: that is bounded by how long a process that lives is silent.
    found = accounts.ledger(lambda attempt, part: last + 30 * 86400.0)
    assert found.totals == {"USD": Decimal(360)}


def test_gpus_are_those_that_the_sampler_sees() -> None:
    """The ranks of a node have theirs together; where nobody looks, it is not known."""
    price = {"prices": {"gpu_hour": "1"}}
    events = [
        (1, None, "usage.cost", held(0, 3600, **price)),
        (1, "rank1", "usage.cost", held(0, 3600, **price)),
    ]
    assert "GPU hours" in ledger(*events).unpriced[0]
    seen: list[tuple[int, str | None, str, dict[str, Any]]] = [
        (1, None, "usage.resources", {"gpus": 1}),
        (1, "rank1", "usage.resources", {"gpus": 1}),
    ]
    assert ledger(*events, *seen).totals == {"USD": Decimal(2)}
    assert ledger(*events, (1, None, "usage.resources", {"gpus": 0})).totals == {"USD": Decimal(0)}


def test_energy_has_a_price_only_where_it_is_measured() -> None:
    """Without a source it is unmeasured, and not 0."""
    event = (1, None, "usage.cost", held(0, 3600, prices={"kwh": "0.5"}))
    nothing = ledger(event)
    assert nothing.unpriced == ("energy: unmeasured",)
    assert (nothing.energy_kwh, nothing.totals) == (None, {})
    found = ledger(event, (1, None, "usage.resources", {"energy_j": 7_200_000.0}))
    assert (found.energy_kwh, found.totals) == (Decimal(2), {"USD": Decimal(1)})


@pytest.mark.requirement("COST-1")
def test_tokens_without_a_price_are_unpriced() -> None:
    """They are counted, and add nothing to any total; once priced, they are no more among them."""
    said = {"model": "m", "input": 10, "output": 2, "id": "x"}
    accounts = Accounts()
    accounts.take(1, "judge", "tokens", said)
    assert accounts.ledger().unpriced == ("m: 10 input, 2 output tokens in 1 call",)
    assert accounts.ledger().totals == {}
    priced = said | {"amount": "0.25", "currency": "USD", "prices": "a table"}
    accounts.take(1, "judge", "tokens", priced)
    found = accounts.ledger()
    assert (found.unpriced, found.totals) == ((), {"USD": Decimal("0.25")})
    assert found.lines[0].prices == ("a table",)


def test_what_never_gets_a_price_stays_unpriced() -> None:
    """The same tokens said again without a price are not counted twice."""
    accounts = Accounts()
    for _ in range(2):
        accounts.take(1, None, "tokens", {"model": "m", "input": 1, "output": 1, "id": "x"})
    assert accounts.ledger().unpriced == ("m: 1 input, 1 output tokens in 1 call",)


@pytest.mark.parametrize(
    "data",
    [
        None,
        {},
        {"amount": "-1", "currency": "USD"},
        {"amount": "NaN", "currency": "USD"},
        {"amount": "1", "currency": "dollars"},
        {"amount": True, "currency": "USD"},
        {"started": "x", "elapsed_s": 3},
        {"started": 0, "elapsed_s": 1e300, "prices": {"node_hour": "1"}},
        {"started": 0, "elapsed_s": -1},
    ],
)
def test_damaged_events_change_nothing(data: Any) -> None:
    """What no session has logged costs nothing."""
    for name in ("cost", "usage.cost", "usage.resources"):
        assert ledger((1, None, name, data)).totals == {}


def test_lines_stay_bounded() -> None:
    """A program that makes up what its amounts are for gets one line for the rest, and its sum."""
    events = [
        (1, None, "cost", {"amount": "1", "currency": "USD", "what": f"{i}"})
        for i in range(MOST_LINES + 50)
    ]
    found = ledger(*events)
    assert len(found.lines) == MOST_LINES + 1
    assert next(x for x in found.lines if x.what == OTHERS).amount == 50
    assert found.totals["USD"] == MOST_LINES + 50


@pytest.mark.parametrize("value", [-1, -0.01, float("nan"), float("inf"), "1e15", "x", 10**30])
def test_no_amount(value: object) -> None:
    """Negative, infinite and huge amounts are refused."""
    with pytest.raises(ValueError, match="amount"):
        amount_of(value)


@pytest.mark.parametrize("value", [None, True, [1], object(), b"1"])
def test_nothing_that_could_be_an_amount(value: object) -> None:
    """What is no number is refused as that."""
    with pytest.raises(TypeError, match="amount"):
        amount_of(value)


def test_amounts_are_exact() -> None:
    """A float is what its digits say, whatever the program's own decimal context is."""
    import numpy as np

    with localcontext() as context:
        context.prec = 2
        assert digits(amount_of(0.1)) == "0.1"
        assert digits(amount_of("123456789.123456789")) == "123456789.123456789"
    assert digits(amount_of(np.float64(0.07))) == "0.07"
    assert digits(amount_of(np.int64(3))) == "3"
    assert digits(amount_of(1e-9)) == "0.000000001"
    assert rounded(Decimal("1234.567")) == "1,234.57"
    assert rounded(Decimal("0.000123456")) == "0.00012"
    assert rounded(Decimal(0)) == "0.00"
    assert getcontext().prec == 28
