"""What a journal takes: numbers of all kinds under names, events, and nothing else."""

from __future__ import annotations

import math
import os
import signal
from pathlib import Path
from types import MappingProxyType
from typing import Any

import numpy as np
import pandas as pd
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from keisei.errors import JournalError
from keisei.journal import format
from keisei.journal.format import dump
from keisei.journal.reader import read_run
from keisei.journal.writer import Journal
from tests.support.journal import series


@pytest.fixture
def run(tmp_path: Path) -> str:
    """A run's directory."""
    directory = tmp_path / "run"
    directory.mkdir()
    return str(directory)


numbers = st.one_of(
    st.floats(), st.booleans(), st.integers(), st.integers(-(2**200), 2**200), st.just(2**53 + 1)
)
names = st.text(min_size=1, max_size=8).filter(lambda name: "/" not in name)
trees = st.recursive(numbers, lambda inner: st.dictionaries(names, inner, max_size=3), max_leaves=6)
rows = st.lists(
    st.tuples(st.dictionaries(names, trees, max_size=4), st.none() | st.integers(-(2**70), 2**70)),
    max_size=6,
)


def flat(tree: dict[str, Any], prefix: str = "") -> dict[str, Any]:
    """Join the names of nested mappings."""
    found: dict[str, Any] = {}
    for name, value in tree.items():
        inner = flat(value, f"{prefix}{name}/") if isinstance(value, dict) else None
        found |= {prefix + name: value} if inner is None else inner
    return found


def same(a: Any, b: Any) -> bool:
    """Return whether two numbers are of the same type and value, NaN being itself."""
    if type(a) is not type(b):
        return False
    if isinstance(a, float) and math.isnan(a):
        return math.isnan(b)
    return bool(a == b) and math.copysign(1, a) == math.copysign(1, b)


@settings(max_examples=25, deadline=None)
@given(rows)
def test_what_is_logged_is_read(logged: list[tuple[dict[str, Any], int | None]]) -> None:
    """Floats of all kinds, bools, and ints of any size come back exactly, under their names."""
    import tempfile

    with tempfile.TemporaryDirectory() as run:
        journal = Journal(run, 1)
        for metrics, step in logged:
            journal.log_metrics(metrics, step)
        journal.close()
        found = list(read_run(run).rows())
    assert [row.seq for row in found] == list(range(len(logged)))
    assert [row.step for row in found] == [step for _, step in logged]
    for row, (metrics, _) in zip(found, logged, strict=True):
        expected = flat(metrics)
        assert list(row.values) == list(expected)
        assert all(same(row.values[key], expected[key]) for key in expected)


@settings(max_examples=50, deadline=None)
@given(st.lists(numbers | st.none(), max_size=20))
def test_without_that_marshal_the_bytes_are_the_same(values: list[Any]) -> None:
    """The module's own way to pack a row gives what `marshal` gives."""
    assert format._dump(values) == dump(values, 2)


def test_a_row_is_a_copy(run: str) -> None:
    """What a caller does to its mapping afterwards changes nothing that was logged."""
    inner = {"y": 1.0}
    metrics: dict[str, object] = {"x": 1.0, "inner": inner}
    plain = {"x": 2.0}
    with Journal(run, 1) as journal:
        journal.log_metrics(metrics)
        inner["y"] = metrics["x"] = 9.0
        for _ in range(2):  # the second one takes the quick way
            journal.log_metrics(plain)
            plain["x"] += 1
    found = [row.values for row in read_run(run).rows()]
    assert found == [{"x": 1.0, "inner/y": 1.0}, {"x": 2.0}, {"x": 3.0}]


def test_rows_keep_their_own_names(run: str) -> None:
    """Rows that differ in nothing but a name, an order or a type are told apart."""
    logged: list[dict[str, float]] = [{"a": 1.0, "b": 2.0}, {"b": 1.0, "a": 2.0}]
    logged += [{"a": 1.0, "c": 2.0}, {"a": 1.0}, {"a": 1.0, "b": 2}, {"a": True, "b": 2.0}, {}]
    with Journal(run, 1) as journal:
        for metrics in logged * 3:
            journal.log_metrics(metrics, 1)
    found = [row.values for row in read_run(run).rows()]
    assert [repr(values) for values in found] == [repr(metrics) for metrics in logged * 3]


class FakeTensor:
    """What torch gives for a number, without torch."""

    ndim = 0

    def item(self) -> float:
        """Return the number."""
        return 0.25


@pytest.mark.parametrize(
    ("value", "expected"),
    [
        (np.float32(0.5), 0.5),
        (np.float64(0.1), 0.1),
        (np.int64(2**62), 2**62),
        (np.bool_(True), True),
        (np.array(3), 3),
        (FakeTensor(), 0.25),
        (signal.SIGTERM, 15),
        (np.float16(0.5), 0.5),
        (np.longdouble(0.5), 0.5),
        (np.array(0.5, object), 0.5),
        (np.ma.array(0.5, mask=False), 0.5),
        (np.ma.array(3).sum(), 3),
    ],
)
def test_foreign_numbers_become_plain_ones(run: str, value: object, expected: object) -> None:
    """Scalars of numpy and torch, and enums of ints, are read at the call."""
    with Journal(run, 1) as journal:
        journal.log_metrics({"x": 1.0})
        journal.log_metrics({"x": value}, step=np.int64(4))  # type: ignore[arg-type]
        journal.log_metrics(MappingProxyType({"x": 2.0}))
    assert [type(x) for x in series(run)] == [float, type(expected), float]
    assert series(run)[1] == expected


@pytest.mark.parametrize(
    "value",
    [
        *("text", None, b"gggggggg", [1.0], 1j, object(), np.float64),
        *(np.zeros(1), np.zeros(()).astype("M8[s]"), np.array("7"), np.array(None), np.array(1j)),
        *(np.timedelta64(5, "ns"), np.datetime64(5, "ns"), np.array(5, "m8[ns]"), np.bytes_(b"7")),
    ],
)
def test_what_is_no_number_is_refused_by_name(run: str, value: object) -> None:
    """The call raises a TypeError that names the metric, and nothing of the row is kept."""
    with Journal(run, 1) as journal:
        for _ in range(2):  # with and without a shape that fits
            for metrics in ({"a": 1.0, "b": value}, {"a": 1.0, "n": {"b": value}}):
                with pytest.raises(TypeError, match="'(n/)?b' must be a number"):
                    journal.log_metrics(metrics)
            journal.log_metrics({"a": 1.0, "b": 1.0})
    assert [row.values for row in read_run(run).rows()] == [{"a": 1.0, "b": 1.0}] * 2


@pytest.mark.parametrize(
    "value", [np.ma.masked, np.ma.array([3, 4], mask=True).mean(), np.ma.array(3.0, mask=True)]
)
def test_what_is_masked_is_no_number(run: str, value: object) -> None:
    """The mean of values that are all masked is NaN, and never what lies below the mask."""
    with Journal(run, 1) as journal:
        journal.log_metrics({"x": value}, 1)
    assert math.isnan(series(run)[0])


@pytest.mark.parametrize("step", [4096.0, np.float64(4096), np.float32(4096), np.array(4096)])
def test_a_whole_number_of_any_type_is_a_step(run: str, step: Any) -> None:
    """It is read back as an int."""
    with Journal(run, 1) as journal:
        for _ in range(2):  # the second one has a shape that fits
            journal.log_metrics({"x": 1.0}, step)
    assert repr(read_run(run).columns("x")[0][-1]) == "4096"


@pytest.mark.parametrize(
    "metrics", ["loss", None, [("x", 1.0)], pd.Series({"x": 1.0}), {"x"}, {"x": 1.0}.items(), []]
)
def test_what_is_no_mapping_is_refused(run: str, metrics: Any) -> None:
    """The error names the argument, and how to call it, with and without a shape that fits."""
    with Journal(run, 1) as journal:
        for _ in range(2):
            with pytest.raises(TypeError, match="metrics must be a mapping .*'loss': 0.5"):
                journal.log_metrics(metrics)
            journal.log_metrics({"x": 1.0})
    assert series(run) == [1.0, 1.0]


def test_a_number_that_cannot_be_read_is_named(run: str) -> None:
    """Its library's error is the cause of a TypeError."""

    class Meta(FakeTensor):
        device = "meta"

        def item(self) -> float:
            raise RuntimeError("Tensor.item() cannot be called on meta tensors")

    with Journal(run, 1) as journal:
        with pytest.raises(TypeError, match="'loss' cannot be read: RuntimeError: Tensor.item"):
            journal.log_metrics({"loss": Meta()})
        with pytest.raises(TypeError, match="step must be a whole number, not Meta"):
            journal.log_metrics({"loss": 1.0}, Meta())  # type: ignore[arg-type]


def test_other_mistakes_are_refused(run: str) -> None:
    """Names that are no strings, names given twice, endless nesting, steps that are no integers."""
    endless: dict[str, object] = {}
    endless["again"] = endless
    wrong: list[Any] = [{1: 1.0}, {"a": {None: 1.0}}, {"a/b": 1.0, "a": {"b": 2.0}}, endless]
    with Journal(run, 1) as journal:
        for metrics in wrong:
            with pytest.raises(TypeError):
                journal.log_metrics(metrics)
        for step in (1.5, math.nan, math.inf, "1", b"1", object(), [1], np.zeros(1)):
            with pytest.raises(TypeError, match="step must be a whole number"):
                journal.log_metrics({}, step)  # type: ignore[arg-type]
        for data in (object(), {"a": endless}):
            with pytest.raises(TypeError, match="'ckpt'"):
                journal.log_event("ckpt", data)
        with pytest.raises(TypeError):
            journal.log_event(3)  # type: ignore[arg-type]
    assert journal.counters.logged == 0
    assert os.listdir(run) == []
    for arguments in ({"durability": "none"}, {"policy": "none"}, {"capacity": 0}):
        with pytest.raises(ValueError, match="must be one of|begin at"):
            Journal(run, 1, **arguments)


def test_events_keep_their_place_and_data(run: str) -> None:
    """An event holds JSON's data, and shares the numbers of the rows."""
    data = {"path": "models/\udc80é", "nested": [1, None, True, {"x": 0.5}]}
    with Journal(run, 3) as journal:
        journal.log_metrics({"x": 1.0})
        journal.log_event("checkpoint", data)
        journal.log_metrics({"x": 2.0})
    (event,) = read_run(run).events()
    assert (event.seq, event.attempt, event.name, event.data) == (1, 3, "checkpoint", data)
    assert [row.seq for row in read_run(run).rows()] == [0, 2]


def test_a_second_journal_of_an_attempt_touches_nothing(run: str) -> None:
    """The file is made anew or not at all."""
    with Journal(run, 1) as journal:
        journal.log_metrics({"x": 1.0})
    before = Path(journal.path).read_bytes()
    second = Journal(run, 1)
    second.log_metrics({"x": 2.0})
    with pytest.raises(JournalError, match="exists"):
        second.flush(10)
    with pytest.raises(JournalError, match="1 rows are lost"):
        second.close(10)
    assert Path(journal.path).read_bytes() == before


def test_a_planted_link_is_not_followed(run: str, tmp_path: Path) -> None:
    """A symlink under the journal's name is an error, and its target is left alone."""
    target = tmp_path / "target"
    target.write_text("mine")
    os.symlink(target, os.path.join(run, "metrics.1.journal"))
    journal = Journal(run, 1)
    journal.log_metrics({"x": 1.0})
    with pytest.raises(JournalError):
        journal.close(10)
    assert target.read_text() == "mine"


def test_the_file_is_the_users_own(run: str) -> None:
    """Its mode is 0600."""
    with Journal(run, 1) as journal:
        journal.log_metrics({"x": 1.0})
    assert os.stat(journal.path).st_mode & 0o777 == 0o600


def test_ever_new_names_take_no_more_memory(run: str, monkeypatch: pytest.MonkeyPatch) -> None:
    """The shapes that are remembered are bounded, and all their rows are read."""
    monkeypatch.setattr("keisei.journal.writer._MOST_SHAPES", 8)
    with Journal(run, 1) as journal:
        for x in range(50):
            journal.log_metrics({f"x{x % 25}": x})
        assert len(journal._shapes) <= 8
    assert [row.values for row in read_run(run).rows()] == [{f"x{x % 25}": x} for x in range(50)]


def test_a_row_takes_under_200_bytes(run: str) -> None:
    """Ten random floats, with time, step and their share of everything else."""
    with Journal(run, 1) as journal:
        for x in range(1000):
            journal.log_metrics({f"metric/{k}": math.sin(x * k) for k in range(10)}, x)
    size = os.path.getsize(journal.path) / 1000
    print(f"bytes per row of 10 floats: {size:.1f} (json.dumps: 242)")
    assert size < 200
