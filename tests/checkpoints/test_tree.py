"""What JSON has no words for comes back as it was: types, keys, and numbers."""

from __future__ import annotations

import collections
import dataclasses
import enum
import json
import math
import random
import threading
from collections import OrderedDict, UserDict
from collections.abc import Iterator
from contextlib import suppress
from pathlib import Path
from types import MappingProxyType
from typing import Any, NamedTuple

import numpy as np
import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from keisei import CheckpointError
from keisei.checkpoints import tree
from keisei.checkpoints.packing import pack
from tests.support.packed_states import round_trip, same

FLOATS = st.floats(allow_subnormal=True)
SCALARS = (
    st.none()
    | st.booleans()
    | st.integers()
    | st.integers(min_value=-(2**200), max_value=2**200)
    | FLOATS
    | st.complex_numbers()
    | st.text(st.characters())
    | st.binary(max_size=20)
    | st.builds(bytearray, st.binary(max_size=20))
)
SURROGATES = st.text(st.characters(min_codepoint=0xD7F0, max_codepoint=0xE010), max_size=4)
ARRAYS = st.builds(
    lambda dtype, shape, fill: np.full(shape, fill).astype(dtype),
    st.sampled_from(["<f4", ">f8", "<f2", "|b1", "|u1", ">i2", "<i8", "<c8", ">c16", "<U3", "|S2"]),
    st.lists(st.integers(0, 3), max_size=3),
    st.integers(0, 100),
)
NUMPY = ARRAYS | ARRAYS.filter(lambda a: a.size > 0).map(lambda a: a.flat[0])
HASHABLE = st.one_of(
    st.none(),
    st.booleans(),
    st.integers(),
    FLOATS,
    st.sampled_from(["$", "/", "", "__metadata__", "a/b", "~", "v"]),
    st.text(st.characters(), max_size=3),
    SURROGATES,
    st.binary(max_size=3),
    st.builds(np.int64, st.integers(-5, 5)),
)
KEYS = HASHABLE | st.tuples(HASHABLE, st.tuples(HASHABLE))
STATES = st.recursive(
    SCALARS | SURROGATES | NUMPY,
    lambda inner: st.one_of(
        st.lists(inner, max_size=4),
        st.lists(inner, max_size=4).map(tuple),
        st.dictionaries(KEYS, inner, max_size=4),
        st.dictionaries(KEYS, inner, max_size=4).map(OrderedDict),
    ),
    max_leaves=12,
)


@pytest.mark.requirement("CKPT-1")
@settings(max_examples=150, deadline=None, suppress_health_check=[HealthCheck.too_slow])
@given(st.dictionaries(KEYS, STATES, max_size=4), st.booleans())
def test_a_state_comes_back_as_it_was(state: dict[Any, Any], copy: bool) -> None:
    """Nested at will, with every type, order and bit kept."""
    back = round_trip(state, copy=copy)
    assert same(back, state), (back, state)


@pytest.mark.parametrize(
    "value",
    [
        [math.nan, -math.nan, math.inf, -math.inf, -0.0, 5e-324, 1.7976931348623157e308],
        10**5000,
        -(2**63) - 1,
        {1: "int", "1": "text", 1.5: "float", None: 0, (1, ("a", None)): 0, b"1": 0},
        {True: "bool", 0: "int"},
        {"$": "tuple", "v": [1]},
        {"$": {"$": {"$": 1}}},
        [[], (), {}, OrderedDict(), "", b"", bytearray()],
        "\ud83d" + "\ude00",
        "\u0000\x7f\u2028",
        complex(math.nan, -0.0),
        b"\x00" * (tree.LONG + 1),
        bytearray(b"\xff" * (tree.LONG + 1)),
    ],
    ids=lambda value: type(value).__name__,
)
def test_values_that_json_would_change(value: Any) -> None:
    """Each of them is what it was before, and as a key where it can be one."""
    assert same(round_trip({"value": value})["value"], value)


def test_other_mappings_become_dicts() -> None:
    """Mappings of kinds of their own are saved by their items."""
    counter = collections.Counter("aab")
    default = collections.defaultdict(list, {"a": [1]})
    back = round_trip(MappingProxyType({"counter": counter, "default": default}))
    assert same(back, {"counter": {"a": 2, "b": 1}, "default": {"a": [1]}})


def test_the_state_may_change_once_it_is_packed() -> None:
    """Everything but the arrays is copied in any case."""
    state: dict[str, Any] = {"steps": [1, 2], "data": bytearray(b"12")}
    packed = pack(state, copy=False)
    before = "".join(packed.text)
    state["steps"].append(3)
    state["data"][:] = b"xyz"
    assert "".join(packed.text) == before


class Point(NamedTuple):
    """A named tuple, as optax's states are."""

    x: int


class Colour(enum.IntEnum):
    """An int that is none."""

    RED = 1


@dataclasses.dataclass
class Data:
    """A value with fields."""

    x: int = 1


class Text(str):
    """A string that is more than one."""

    __slots__ = ()


@pytest.mark.requirement("CKPT-1")
@pytest.mark.parametrize(
    ("value", "way_out"),
    [
        (lambda: None, "again from the program"),
        (len, "again from the program"),
        (Data, "again from the program"),
        (threading.Lock(), "leave it out"),
        (Point(1), "_asdict"),
        (Colour.RED, r"\.value"),
        (Data(), "asdict"),
        (Text("a"), r"str\(value\)"),
        ({1, 2}, "sorted"),
        (Path("a"), r"str\(value\)"),
        (iter([1]), "made from"),
        (random.Random(1), "getstate"),
        (np.random.default_rng(1), "bit_generator.state"),
        (np.array([object()]), "tolist"),
        (np.ma.masked_array([1, 2], [True, False]), r"value\.mask"),
        (np.zeros(2, dtype="V0"), "array of numbers"),
        (np.dtype("f4"), "str"),
        (memoryview(b"1"), r"bytes\(value\)"),
        (object(), "leave it out"),
    ],
    ids=lambda value: type(value).__name__,
)
def test_what_cannot_be_kept_is_refused_with_its_keys(value: Any, way_out: str) -> None:
    """The error has the keys that lead to it, as they are written, and the way out."""
    with pytest.raises(CheckpointError, match=way_out) as caught:
        pack({"model": [0, {"opt": (value,)}]}, copy=True)
    assert str(caught.value).startswith("state['model'][1]['opt'][0] cannot be saved: a")
    assert not caught.value.corrupt


class Overtaken(UserDict[str, int]):
    """A mapping that another thread changes while it is read."""

    def __iter__(self) -> Iterator[str]:
        raise RuntimeError("dictionary changed size during iteration")


@pytest.mark.requirement("CKPT-1")
def test_a_mapping_that_cannot_be_read_is_refused_with_its_keys() -> None:
    """What a mapping of the program's own raises is the cause, and no error of its own."""
    with pytest.raises(CheckpointError, match=r"^state\['a'\] .*changed size") as caught:
        pack({"a": Overtaken()}, copy=True)
    assert isinstance(caught.value.__cause__, RuntimeError)


def test_keys_that_cannot_be_kept() -> None:
    """An array, a class or a named tuple is no key that could come back."""
    for key in (Data, Point(1), frozenset([1]), (1, (Colour.RED,))):
        with pytest.raises(CheckpointError, match=r"^state\['a'\]\[.*its key is a"):
            pack({"a": {key: 1}}, copy=True)


@pytest.mark.requirement("CKPT-1")
def test_a_state_that_contains_itself() -> None:
    """A cycle is named; the same value twice is none."""
    shared = [1]
    assert round_trip({"a": shared, "b": shared}) == {"a": [1], "b": [1]}
    cycle: dict[str, Any] = {"a": []}
    cycle["a"].append((cycle,))
    with pytest.raises(CheckpointError, match=r"^state\['a'\]\[0\]\[0\] .*contains itself"):
        pack(cycle, copy=True)


def test_depth_has_a_bound_that_is_read_again() -> None:
    """What is nested to the bound comes back, and one level more is refused."""
    for make in (lambda inner: [inner], lambda inner: (inner,), lambda inner: {1: inner}):
        state: Any = 1
        for _ in range(tree.DEEPEST - 1):
            state = make(state)
        assert same(round_trip({"a": state}), {"a": state})
        with pytest.raises(CheckpointError, match="deeper than"):
            pack({"a": make(state)}, copy=True)


def test_a_state_is_a_mapping() -> None:
    """A list or an array alone is refused, with the way out."""
    with pytest.raises(CheckpointError, match="save {'state': value}"):
        pack([1], copy=True)  # type: ignore[arg-type]


@pytest.mark.parametrize(
    "text",
    [
        b"",
        b"\xff\xfe",
        b"[" * 100_000,
        b'{"a":' * 100_000,
        b"9" * 5000,
        b"NaN",
        b'{"$":"tuple"}',
        b'{"$":"tuple","v":{}}',
        b'{"$":"bytes","v":"\xc3\xa9"}',
        b'{"$":"bytes","v":"a"}',
        b'{"$":"bytes","v":1}',
        b'{"$":"float","v":"00"}',
        b'{"$":"float","v":"zz"}',
        b'{"$":"complex","v":""}',
        b'{"$":"int","v":"0y"}',
        b'{"$":"str","v":"/w=="}',
        b'{"$":"dict","v":[[],1]}',
        b'{"$":"dict","v":[1]}',
        b'{"$":"dict","v":[1,2,1,3]}',
        b'{"$":"dict","v":"ab"}',
        b'{"$":"dict"}',
        b'{"$":"object","v":"os.system"}',
        b'{"$":["tuple"],"v":[]}',
        b'{"$":{"$":"tuple"},"v":[]}',
        b'{"$":null,"v":[]}',
        b'{"$":"ordered","m":{"$":"dict"},"v":[]}',
        b'{"a":1}{"b":2}',
    ],
    ids=lambda text: ascii(text[:30]),
)
def test_a_text_from_somebody_else_is_only_data(text: bytes) -> None:
    """Whatever stands there is a state or one error, and never more than that."""
    with pytest.raises(CheckpointError) as caught:
        tree.decode(text, lambda kind, node: None)
    assert caught.value.corrupt
    assert len(str(caught.value)) < 400


@settings(max_examples=200, deadline=None)
@given(
    st.recursive(
        st.none() | st.booleans() | st.integers() | st.text(max_size=3) | st.just("ff"),
        lambda inner: (
            st.lists(inner, max_size=4)
            | st.dictionaries(
                st.sampled_from(["$", "v", "m", "a"]),
                inner
                | st.sampled_from(["tuple", "dict", "ordered", "bytes", "int", "float", "str"]),
            )
        ),
    )
)
def test_any_json_is_a_state_or_an_error(node: Any) -> None:
    """No JSON makes anything else happen."""
    with suppress(CheckpointError):
        tree.decode(json.dumps(node).encode(), lambda kind, node: None)
