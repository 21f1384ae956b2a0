"""Hostile configs: values that JSON cannot say, and files that are made to break their reader."""

from __future__ import annotations

import datetime
import decimal
import itertools
import json
import math
import os
import subprocess
import sys
import time
from collections.abc import Callable
from contextlib import suppress
from pathlib import Path
from typing import Any

import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from keisei import AppConfig, ConfigError, ConfigSaveError, SessionManager, load_config

BOUND = 60.0  # seconds, far above what it takes; what is not bounded takes for ever
"""Seconds that one save or load may take on a busy machine; most take a few milliseconds."""


class DataConfig(AppConfig):
    """A config that takes whatever it is given."""

    data: dict[str, Any] = {}


def no_constant(name: str) -> None:
    """Refuse what only Python's own reader takes for JSON."""
    raise AssertionError(f"{name} is no JSON")


def save(root: Path, data: Any) -> Any:
    """Save a config with that data; give what the file says, or ``None`` for the typed error."""
    config = DataConfig.model_construct(data=data)
    config.logging = config.logging.model_copy(update={"log_dir": root})
    session = SessionManager(config)
    session.setup_directories()
    path = Path(session.run_artifact_dir, "effective_config.json")
    started = time.monotonic()
    problem, said = "", None
    try:
        session.save_effective_config()
    except ConfigSaveError as exc:
        problem = str(exc)
    assert time.monotonic() - started < BOUND
    assert session.state["config_saved"] is not bool(problem)
    if problem:
        assert len(problem) < 1000
        assert problem.isprintable()
        assert not path.exists()
    else:
        text = path.read_bytes()
        assert text.endswith(b"}\n")
        # Numbers are read as text: Python refuses those of more than 4,300 digits.
        whole = json.loads(text.decode("utf-8"), parse_constant=no_constant, parse_int=str)
        said = whole["data"]
    assert not list(path.parent.glob("*.tmp")) + list(path.parent.glob(".*.tmp"))
    assert session.finalize_session() == "completed"
    return said


any_text = st.text(st.characters(exclude_categories=()), max_size=20)  # surrogates, too
leaves = st.one_of(
    st.none(),
    st.booleans(),
    st.floats(),
    st.integers(),
    st.sampled_from([10**4000, -(10**4000), 2**63, -(2**64)]),
    any_text,
    st.sampled_from(["\0", "\ud800", "a\udfff", "\x1b[31m", "\u2028", "\x7f", "\ufffe", "NaN"]),
    st.binary(max_size=10),
    st.sets(st.integers(), max_size=3),
    st.frozensets(any_text, max_size=3),
    st.complex_numbers(),
    st.dates(),
    st.builds(object),
    st.sampled_from(
        [len, object, ..., Path("/a"), decimal.Decimal("sNaN"), datetime.timedelta.max]
    ),
)
keys = st.one_of(any_text, st.integers(), st.none(), st.floats(), st.binary(max_size=4))
trees = st.recursive(
    leaves,
    lambda inner: st.one_of(
        st.lists(inner, max_size=4),
        st.dictionaries(keys, inner, max_size=4),
        st.tuples(inner, inner),
    ),
    max_leaves=12,
)
counter = itertools.count()


@pytest.mark.requirement("CFG-3", "CFG-4")
@given(data=st.dictionaries(any_text, trees, max_size=4))
@settings(
    max_examples=30, deadline=None, suppress_health_check=[HealthCheck.function_scoped_fixture]
)
def test_whatever_stands_in_a_config_is_json_or_the_typed_error(
    tmp_path: Path, data: dict[str, Any]
) -> None:
    """Any tree of any values is saved as valid UTF-8 JSON, or refused whole."""
    save(tmp_path / str(next(counter)), data)


plain = st.one_of(
    st.none(),
    st.booleans(),
    st.integers(-(2**63), 2**64),
    st.floats(allow_nan=False, allow_infinity=False),
    st.text(st.characters(exclude_categories=["Cs"]), max_size=10),
)


@pytest.mark.requirement("CFG-3")
@given(data=st.dictionaries(st.text('xyz\0\u2028\n "\\'), st.lists(plain, max_size=3), max_size=5))
@settings(
    max_examples=30, deadline=None, suppress_health_check=[HealthCheck.function_scoped_fixture]
)
def test_plain_values_come_back_as_they_were(tmp_path: Path, data: dict[str, Any]) -> None:
    """What JSON can say is never refused and never changed."""
    wanted = json.loads(json.dumps(data), parse_int=str)
    assert save(tmp_path / str(next(counter)), data) == wanted


class FloatConfig(AppConfig):
    """A config of numbers that may be none."""

    plain: float = 0.0
    listed: list[float] = []
    data: dict[str, Any] = {}


@pytest.mark.requirement("CFG-3")
def test_what_is_no_number_is_kept_by_its_name(tmp_path: Path) -> None:
    """NaN and the infinities are told apart in the file, and are read back where they stood."""
    odd = [math.nan, math.inf, -math.inf]
    config = FloatConfig(plain=math.inf, listed=odd, data={"any": odd})
    config.logging = config.logging.model_copy(update={"log_dir": tmp_path / "runs"})
    with SessionManager(config) as session:
        text = Path(session.run_artifact_dir, "effective_config.json").read_bytes()
    said = json.loads(text, parse_constant=no_constant)
    names = ["NaN", "Infinity", "-Infinity"]
    assert (said["plain"], said["listed"], said["data"]["any"]) == ("Infinity", names, names)
    back = FloatConfig.model_validate_json(text)
    assert (back.plain, back.listed[1:]) == (math.inf, odd[1:])
    assert math.isnan(back.listed[0])


def nested(levels: int, wrap: Callable[[Any], Any]) -> Any:
    """Wrap a value again and again."""
    value: Any = 0
    for _ in range(levels):
        value = wrap(value)
    return value


def cycle() -> dict[str, Any]:
    """A dict that holds itself."""
    data: dict[str, Any] = {}
    data["self"] = {"list": [data]}
    return data


HUGE: dict[str, tuple[Callable[[], Any], bool | None]] = {
    "5,000 digits": (lambda: {"n": 10**5000}, None),
    "5,000 digits in a key": (lambda: {"n": {10**5000: 1}}, None),
    "10,000 lists deep": (lambda: {"n": nested(10_000, lambda v: [v])}, False),
    "10,000 dicts deep": (lambda: {"n": nested(10_000, lambda v: {"n": v})}, False),
    "100,000 tuples deep": (lambda: {"n": nested(100_000, lambda v: (v,))}, False),
    "a cycle": (cycle, False),
    "a lone surrogate": (lambda: {"n": "\ud800"}, None),
    "a lone surrogate in a key": (lambda: {"\ud800": 1}, None),
    "a 10 MB text": (lambda: {"n": "x" * 10_000_000}, True),
    "a 50 MB text": (lambda: {"n": "x" * 50_000_000}, False),
    "a million keys": (lambda: {"n": [dict.fromkeys("abcdefghij", "")] * 100_000}, False),
    "100,000 other keys": (lambda: {f"k{n}": n for n in range(100_000)}, True),
    "a key of 1 MB": (lambda: {"aB_" * 333_333: 1}, True),
    "a text of many addresses": (lambda: {"n": "http://a:b@c " * 50_000}, True),
    "a text of half an address": (lambda: {"n": "a://" * 20_000 + "x@" * 50_000}, True),
    "a text of many questions": (lambda: {"n": "?a" * 100_000 + "="}, True),
    "a text of many bearers": (lambda: {"n": "Bearer " * 100_000}, True),
}


@pytest.mark.requirement("CFG-3", "CFG-4")
@pytest.mark.parametrize("name", HUGE)
def test_what_is_huge_ends_in_bounded_time(tmp_path: Path, name: str) -> None:
    """Size and depth end in a file or the typed error, within seconds."""
    make, saved = HUGE[name]
    said = save(tmp_path, make())
    assert saved is None or (said is not None) == saved


LAUGHS = """
import sys, tracemalloc
from typing import Any
from keisei import AppConfig, ConfigError, ConfigSaveError, SessionManager, load_config
class DataConfig(AppConfig):
    data: dict[str, Any] = {}
try:
    if sys.argv[1] == "objects":
        value = ["lol"]
        for _ in range(9):
            value = [value] * 10
        config = DataConfig(data={"a": value})
    else:
        config = load_config(sys.argv[1], model=DataConfig)
    with SessionManager(config):
        print("saved")
except (ConfigError, ConfigSaveError) as exc:
    print(type(exc).__name__)
"""


@pytest.mark.requirement("CFG-1", "CFG-4")
@pytest.mark.parametrize("source", ["file", "objects"])
def test_a_billion_laughs_are_refused(tmp_path: Path, source: str) -> None:
    """Nine aliases that stand for a billion words are a typed error, and cost no memory."""
    lines = ["data:", "  a0: &a0 [lol, lol, lol, lol, lol, lol, lol, lol, lol, lol]"]
    lines += [f"  a{n}: &a{n} [{', '.join([f'*a{n - 1}'] * 10)}]" for n in range(1, 9)]
    path = tmp_path / "laughs.yaml"
    path.write_text("\n".join(lines))
    code = LAUGHS
    if sys.platform == "linux":  # a test that fails shall not take the machine along
        code = "import resource; resource.setrlimit(resource.RLIMIT_AS, (2**31, 2**31))\n" + code
    command = [sys.executable, "-c", code, str(path) if source == "file" else source]
    environ = {**os.environ, "KEISEI_LOG_DIR": str(tmp_path / "runs")}
    done = subprocess.run(command, env=environ, capture_output=True, text=True, timeout=BOUND)
    assert done.stdout in ("ConfigError\n", "ConfigSaveError\n"), done.stdout + done.stderr


def deep(opened: str, closed: str, levels: int) -> str:
    """Nest brackets."""
    return opened * levels + "1" + closed * levels


SOURCES: dict[str, tuple[str, bytes | str, bool | None]] = {
    "python tag": ("yaml", 'data: {a: !!python/object/apply:os.system ["touch owned"]}', False),
    "python name": ("yaml", "data: {a: !!python/name:os.system }", False),
    "unknown tag": ("yaml", "data: {a: !owned 1}", False),
    "binary tag": ("yaml", "data: {a: !!binary '***'}", None),
    "yaml, deep lists": ("yaml", "data: {a: " + deep("[", "]", 1_000) + "}", False),
    "yaml, deep maps": ("yaml", "data: " + deep("{a: ", "}", 2_000), False),
    "yaml, deep blocks": ("yaml", "\n".join(" " * n + "a:" for n in range(1_000)), None),
    "yaml, a line of 1 MB": ("yaml", 'data: {a: "' + "x" * 1_000_000 + '"}', True),
    "yaml, an alias of itself": ("yaml", "data: &a {x: *a}", None),
    "yaml, a merge of itself": ("yaml", "data: &a {<<: *a}", None),
    "yaml, no such anchor": ("yaml", "data: *a", False),
    "yaml, a date that is none": ("yaml", "data: {a: 9999-99-99}", True),
    "yaml, a key that is a list": ("yaml", "? [a]\n: 1", False),
    "yaml, a key that is null": ("yaml", "~: 1", False),
    "yaml, two documents": ("yaml", "env: {seed: 1}\n---\nenv: {seed: 2}\n", False),
    "yaml, NUL": ("yaml", 'data: {a: "\0"}', False),
    "yaml, long number": ("yaml", "data: {a: " + "9" * 5_000 + "}", None),
    "yaml, base 60": ("yaml", "data: {a: " + "1:" * 20_000 + "1}", None),
    "yaml, duplicate keys": ("yaml", "env: {seed: 1}\nenv: {seed: 2}\n", None),
    "json, deep lists": ("json", '{"data": ' + deep("[", "]", 100_000) + "}", False),
    "json, deep maps": ("json", deep('{"data": ', "}", 100_000), False),
    "json, a line of 10 MB": ("json", '{"data": {"a": "' + "x" * 10_000_000 + '"}}', True),
    "json, duplicate keys": ("json", '{"env": {"seed": 1}, "env": {"seed": 2}}', None),
    "json, NaN in a number": ("json", '{"wandb": {"init_timeout": NaN}}', False),
    "json, Infinity as a count": ("json", '{"training": {"total_timesteps": Infinity}}', False),
    "json, 1e400": ("json", '{"training": {"total_timesteps": 1e400}}', False),
    "json, long number": ("json", '{"data": {"a": ' + "9" * 5_000 + "}}", None),
    "json, lone surrogate": ("json", '{"env": {"device": "\\ud800"}}', None),
    "json, BOM": ("json", b"\xef\xbb\xbf{}", True),
    "json, two BOMs": ("json", b"\xef\xbb\xbf\xef\xbb\xbf{}", False),
    "json, UTF-16": ("json", "{}".encode("utf-16"), False),
    "json, trailing text": ("json", "{} {}", False),
    "json, 100,000 wrong values": ("json", json.dumps({"wandb": {"tags": [1] * 100_000}}), False),
    "json, 10,000 unknown keys": ("json", json.dumps({f"k{n}": 1 for n in range(10_000)}), False),
    "json, a key of 1 MB": ("json", json.dumps({"k" * 1_000_000: 1}), False),
    "toml, duplicate keys": ("toml", "[env]\nseed = 1\nseed = 2\n", False),
    "toml, duplicate tables": ("toml", "[env]\nseed = 1\n[env]\ndevice = 'cpu'\n", False),
    "toml, deep lists": ("toml", "[data]\na = " + deep("[", "]", 5_000), False),
    "toml, a dotted key of 3,000 parts": ("toml", "[data." + ".".join("a" * 3_000) + "]", None),
    "toml, long number": ("toml", "[data]\na = " + "9" * 5_000, None),
    "toml, NaN": ("toml", "[wandb]\ninit_timeout = nan", False),
    "toml, dates": ("toml", "[data]\na = 1979-05-27\nb = 07:32:00", True),
    "toml, control character": ("toml", '[data]\na = "\x01"', False),
    "toml, BOM": ("toml", b"\xef\xbb\xbf[env]\nseed = 1", True),
    "not UTF-8": ("yaml", b"data: {a: \xff}", False),
}


@pytest.mark.requirement("CFG-1")
@pytest.mark.parametrize("name", SOURCES)
def test_a_hostile_file_is_a_config_or_a_config_error(tmp_path: Path, name: str) -> None:
    """A file loads or is refused in bounded time, in a message of bounded size; none runs code."""
    suffix, text, fine = SOURCES[name]
    path = tmp_path / f"c.{suffix}"
    path.write_bytes(text.encode() if isinstance(text, str) else text)
    started = time.monotonic()
    problem = ""
    try:
        loaded = load_config(path, model=DataConfig)
    except ConfigError as exc:
        problem = str(exc)
    assert time.monotonic() - started < BOUND
    assert fine is not bool(problem), problem[:1000]
    if problem:
        assert f"c.{suffix}" in problem
        length = len(problem)
        assert length < 20_000, problem[:1000]
    else:
        save(tmp_path / "runs", loaded.data)
    assert not os.path.exists("owned")


@given(
    text=st.text(st.characters(exclude_categories=["Cs"])),
    suffix=st.sampled_from(["yaml", "json", "toml"]),
)
@settings(
    max_examples=30, deadline=None, suppress_health_check=[HealthCheck.function_scoped_fixture]
)
def test_any_text_is_a_config_or_a_config_error(tmp_path: Path, text: str, suffix: str) -> None:
    """No text in a config file raises anything else."""
    path = tmp_path / f"c.{suffix}"
    path.write_text(text, encoding="utf-8", newline="")
    with suppress(ConfigError):
        assert isinstance(load_config(path), AppConfig)


@given(value=st.text(), key=st.text(max_size=5))
@settings(max_examples=50, deadline=None)
def test_any_override_is_a_config_or_a_config_error(value: str, key: str) -> None:
    """No override raises anything else, whatever stands on either side of its sign."""
    for override in (f"env.device={value}", f"{key}={value}", f"wandb.{key}.{key}={value}", value):
        with suppress(ConfigError):
            assert isinstance(load_config(overrides=[override]), AppConfig)
