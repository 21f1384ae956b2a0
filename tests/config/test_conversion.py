"""Configs of the user's own kind: what a session makes of them, and whose each field is."""

from __future__ import annotations

import argparse
import collections
import dataclasses
import datetime
import enum
import json
import logging
import types
import uuid
from collections.abc import Iterator, Mapping
from decimal import Decimal
from pathlib import Path
from typing import Any

import attrs
import pydantic.dataclasses
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from omegaconf import MISSING, OmegaConf
from pydantic import BaseModel, Field, SecretStr
from pydantic_settings import BaseSettings

from keisei import (
    AppConfig,
    AsyncSessionManager,
    ConfigError,
    EnvConfig,
    OpenConfig,
    SessionManager,
    TrainingConfig,
    load_config,
)
from keisei.config.conversion import as_app_config
from keisei.config.ownership import OWN, placed
from keisei.config.plain import plain
from keisei.config.sources import sections_of
from keisei.config.text import serialize_config
from keisei.session import provenance

SECTIONS = sections_of(OpenConfig)


@pytest.fixture(autouse=True)
def origins_are_recorded(monkeypatch: pytest.MonkeyPatch) -> None:
    """Record where values come from, and wait for all of it."""
    monkeypatch.setenv("KEISEI_PROVENANCE", "on")
    monkeypatch.setattr(provenance, "PATIENCE", 30.0)
    monkeypatch.setattr(provenance, "GRACE", 30.0)


@dataclasses.dataclass
class Optimizer:
    """A part of the configs below."""

    lr: float = 1e-3
    betas: tuple[float, float] = (0.9, 0.99)


@dataclasses.dataclass
class ADataclass:
    """A dataclass with a section of keisei's."""

    optimizer: Optimizer = dataclasses.field(default_factory=Optimizer)
    env: dict[str, Any] = dataclasses.field(default_factory=lambda: {"seed": 7})


class AModel(BaseModel):
    """A pydantic model with one."""

    optimizer: Optimizer = Optimizer()
    env: EnvConfig = EnvConfig(seed=7)


class SomeSettings(BaseSettings):  # type: ignore[misc]
    """Settings of pydantic-settings with one."""

    optimizer: dict[str, Any] = {"lr": 1e-3, "betas": [0.9, 0.99]}
    env: EnvConfig = EnvConfig(seed=7)


@pydantic.dataclasses.dataclass
class APydanticDataclass:
    """A dataclass of pydantic's with one."""

    optimizer: Optimizer = dataclasses.field(default_factory=Optimizer)
    env: EnvConfig = Field(default_factory=lambda: EnvConfig(seed=7))


@attrs.define
class AnAttrsClass:
    """A class of attrs' with one."""

    optimizer: Optimizer = attrs.field(factory=Optimizer)
    env: EnvConfig = attrs.field(factory=lambda: EnvConfig(seed=7))


class KeysOnly:
    """A mapping by its methods alone, as some libraries' configs are."""

    def __init__(self, data: dict[str, Any]) -> None:
        self._data = data

    def keys(self) -> Iterator[str]:
        """Return the keys."""
        return iter(self._data)

    def __getitem__(self, key: str) -> Any:
        return self._data[key]


DATA: dict[str, Any] = {"optimizer": {"lr": 1e-3, "betas": [0.9, 0.99]}, "env": {"seed": 7}}
KINDS: dict[str, Any] = {
    "dataclass": ADataclass(),
    "pydantic model": AModel(),
    "pydantic settings": SomeSettings(),
    "pydantic dataclass": APydanticDataclass(),
    "attrs": AnAttrsClass(),
    "dict": DATA,
    "mapping proxy": types.MappingProxyType(DATA),
    "chain map": collections.ChainMap({"env": {"seed": 7}}, DATA),
    "DictConfig": OmegaConf.create(DATA),
    "structured DictConfig": OmegaConf.structured(ADataclass),
    "namespace": argparse.Namespace(**DATA),
    "dotted namespace": argparse.Namespace(
        **{"optimizer.lr": 1e-3, "optimizer.betas": [0.9, 0.99], "env.seed": 7}
    ),
    "simple namespace": types.SimpleNamespace(**DATA),
    "keys only": KeysOnly(DATA),
}


@pytest.mark.requirement("CFG-6")
@pytest.mark.parametrize("name", KINDS)
def test_a_session_takes_a_config_of_any_kind(name: str, tmp_path: Path) -> None:
    """Its sections are keisei's, its own fields are recorded, and it stays what it is."""
    given_one = KINDS[name]
    session: SessionManager[Any] = SessionManager(given_one, run_name="r")
    assert session.config is given_one
    assert isinstance(session.app_config, OpenConfig)
    assert session.app_config.env.seed == 7
    session.app_config.logging.log_dir = tmp_path
    with session:
        run = Path(session.run_artifact_dir)
        written = json.loads((run / "effective_config.json").read_text())
        origins = json.loads((run / "config_origins.json").read_text())["values"]
    assert written["optimizer"] == {"lr": 0.001, "betas": [0.9, 0.99]}
    assert written["training"]["total_timesteps"] == 1_000_000
    assert set(written) == {*AppConfig.model_fields, "optimizer"}
    for key in ("env.seed", "optimizer.lr", "optimizer.betas"):
        assert (origins[key]["source"], origins[key]["name"]) == ("code", type(given_one).__name__)
    assert origins["env.device"]["source"] == "default"
    again = load_config(run / "effective_config.json", model=OpenConfig)
    assert serialize_config(again) == serialize_config(session.app_config)


@pytest.mark.requirement("CFG-6")
async def test_the_async_face_takes_one_too(tmp_path: Path) -> None:
    """What it makes of the config touches no disk on the loop."""
    config = OmegaConf.create({**DATA, "keisei": {"logging": {"log_dir": str(tmp_path)}}})
    async with AsyncSessionManager(config, run_name="r") as session:
        assert session.config is config
        assert session.app_config.logging.log_dir == tmp_path


OWNERSHIP: dict[str, tuple[dict[str, Any], dict[str, Any]]] = {
    "all its keys are the section's": (
        {"training": {"total_timesteps": 5}},
        {"training": {"total_timesteps": 5}},
    ),
    "a key is not the section's": (
        {"training": {"total_timesteps": 5, "lr": 1}},
        {"own": {"training": {"total_timesteps": 5, "lr": 1}}},
    ),
    "it is no mapping": ({"env": "CartPole-v1"}, {"own": {"env": "CartPole-v1"}}),
    "it is null": ({"wandb": None, "lr": 1}, {"own": {"wandb": None}, "lr": 1}),
    "keisei's are apart": (
        {"keisei": {"env": {"seed": 1}}, "env": {"seed": 2}, "training": {"lr": 1}},
        {"env": {"seed": 1}, "own": {"env": {"seed": 2}, "training": {"lr": 1}}},
    ),
    "keisei's are apart, and none": (
        {"keisei": None, "env": {"seed": 2}},
        {"own": {"env": {"seed": 2}}},
    ),
    "a field is called own": ({"own": 3}, {"own": {"own": 3}}),
    "a field is called own, with others": (
        {"own": {"env": 1, "house": 2}},
        {"own": {"own": {"env": 1, "house": 2}}},
    ),
    "a field is called own, with another's place": (
        {"env": 1, "own": {"env": 2}},
        {"own": {"env": 1, "own": {"env": 2}}},
    ),
    "it was sorted before": ({"own": {"env": 1}, "env": {}}, {"own": {"env": 1}, "env": {}}),
}


@pytest.mark.requirement("CFG-6")
@pytest.mark.parametrize("case", OWNERSHIP)
def test_whose_a_field_is_follows_one_rule(case: str, tmp_path: Path) -> None:
    """By the key `keisei` where there is one, else by name and keys; in a file as in a dict."""
    data, wanted = OWNERSHIP[case]
    (tmp_path / "c.json").write_text(json.dumps(data))
    loaded = load_config(tmp_path / "c.json", model=OpenConfig)
    for made in (as_app_config(data), loaded):
        assert made.model_dump(mode="json", exclude_unset=True) == wanted


@pytest.mark.requirement("CFG-6")
def test_a_section_that_is_taken_for_the_users_is_said(caplog: pytest.LogCaptureFixture) -> None:
    """Where some of its keys are keisei's, one warning; under `keisei` it is plain whose it is."""
    data = {"wandb": {"project": "p", "name": "n"}, "training": {"lr": 1}}
    with caplog.at_level(logging.WARNING, "keisei"):
        as_app_config(data)
        (record,) = caplog.records
        as_app_config({**data, "keisei": {}})
    assert "`wandb` is taken for a section of your own" in record.getMessage()
    assert "'name'" in record.getMessage()
    assert len(caplog.records) == 1


@pytest.mark.requirement("CFG-6")
@pytest.mark.parametrize(
    ("wrong", "says"),
    [
        ({"keisei": True}, "keisei: it is a bool; it holds keisei's sections"),
        ({"keisei": {"trainig": {}}}, "keisei.trainig: unknown key; did you mean `training`?"),
        ({"keisei": {"env": {"sed": 1}}}, "env.sed: unknown key; did you mean `seed`?"),
        ({"env": {"seed": "x"}}, "env.seed: Input should be a valid integer"),
        ({"lr": {"a": None}, "env": {"seed": -1}}, "env.seed: Input should be greater"),
    ],
)
def test_a_section_of_keiseis_is_valid_or_refused(wrong: dict[str, Any], says: str) -> None:
    """The error names what kind of config it is, the key, and the way out."""
    with pytest.raises(ConfigError) as caught:
        SessionManager(wrong)
    assert str(caught.value).startswith("the config (a dict) does not fit OpenConfig:\n")
    assert says in str(caught.value)
    assert caught.value.__context__ is None


@pytest.mark.requirement("CFG-6")
def test_interpolations_are_resolved_and_both_forms_are_recorded(tmp_path: Path) -> None:
    """What a value was written as is beside what it came to; one that leads nowhere is refused."""
    config = OmegaConf.create(
        {
            "dim": 8,
            "model": {"width": "${dim}", "sizes": ["${dim}", 2], "copy": "${optim}"},
            "optim": {"lr": 0.1},
            "left_open": MISSING,
            "keisei": {"env": {"seed": "${dim}"}, "logging": {"log_dir": str(tmp_path)}},
        }
    )
    with SessionManager(config, run_name="r"):
        pass
    written = json.loads((tmp_path / "r/effective_config.json").read_text())
    origins = json.loads((tmp_path / "r/config_origins.json").read_text())["values"]
    assert written["model"] == {"width": 8, "sizes": [8, 2], "copy": {"lr": 0.1}}
    assert (written["env"]["seed"], written["left_open"]) == (8, "???")
    for key, form in {
        "model.width": "${dim}",
        "model.sizes": ["${dim}", 2],
        "model.copy.lr": "${optim}",
        "env.seed": "${dim}",
    }.items():
        assert origins[key]["written"] == form
    assert "written" not in origins["dim"]
    with pytest.raises(ConfigError, match=r"its interpolation is not resolved"):
        SessionManager(OmegaConf.create({"a": "${nowhere}"}))
    with pytest.raises(ConfigError, match=r"its interpolation is not resolved"):
        SessionManager({"inner": OmegaConf.create({"a": "${no.resolver:1}"})})


class Colour(enum.Enum):
    """A choice."""

    RED = "red"


class Opaque:
    """A value that says nothing of itself."""


class Telling(Opaque):
    """A value that says what it is, as a dtype does."""

    def __str__(self) -> str:
        return "telling.kind"


class Raising(Opaque):
    """A value whose text raises."""

    def __repr__(self) -> str:
        raise RuntimeError


PLAIN: list[tuple[Any, Any]] = [
    (Colour.RED, "red"),
    (Path("/a"), "/a"),
    ({3, 1, 2}, [1, 2, 3]),
    (collections.deque([1]), [1]),
    (range(2), [0, 1]),
    (datetime.date(2024, 1, 31), "2024-01-31"),
    (datetime.timedelta(minutes=1), 60.0),
    (uuid.UUID(int=0), "00000000-0000-0000-0000-000000000000"),
    (Decimal("1.5"), "1.5"),
    (len, "builtins.len"),
    (dict, "builtins.dict"),
    (Opaque(), "<Opaque>"),
    (Telling(), "telling.kind"),
    (Raising(), "<Raising>"),
    (b"\0", "<bytes>"),
    (SecretStr("hello-secret"), "**********"),
    ({1: {2.5: None}, Colour.RED: True}, {"1": {"2.5": None}, "red": True}),
    (TrainingConfig(steps_per_epoch=3), {"steps_per_epoch": 3}),
    (AppConfig(), {}),
]


@pytest.mark.parametrize(("value", "wanted"), PLAIN, ids=[type(v).__name__ for v, _ in PLAIN])
def test_a_field_of_the_users_has_a_plain_form(value: Any, wanted: Any) -> None:
    """Whatever it holds is recorded as far as it can be; nothing there keeps a run from it."""
    got = plain({"x": value})["x"]
    if wanted == {} and isinstance(value, AppConfig):
        assert not any(got.values())
        return
    assert (got, type(got)) == (wanted, type(wanted))


def test_numbers_of_numpy_are_numbers() -> None:
    """Whole ones and others; so are its booleans."""
    numpy = pytest.importorskip("numpy")
    got = plain({"a": numpy.int64(3), "b": numpy.float32(0.5), "c": numpy.float64(0.25)})
    assert got == {"a": 3, "b": 0.5, "c": 0.25}
    assert {type(value) for value in got.values()} == {int, float}
    assert plain({"d": numpy.bool_(True)}) == {"d": True}


@pytest.mark.requirement("CFG-6")
def test_a_config_that_holds_itself_is_refused() -> None:
    """In bounded time, with the typed error."""
    itself: dict[str, Any] = {}
    itself["a"] = [itself]
    wide: list[Any] = [0]
    for _ in range(9):
        wide = [wide] * 10
    for wrong in (itself, {"a": wide}):
        with pytest.raises(ConfigError, match="too much to be a config, or a circular reference"):
            SessionManager(wrong)


def test_no_secret_of_the_users_is_recorded(tmp_path: Path) -> None:
    """By key, and of pydantic's types: in the config and in its origins."""

    class Mine(BaseModel):
        api_key: str = "sk-first-1234567890"
        token: SecretStr = SecretStr("second-1234567890")
        env: str = "third"

    config = {"mine": Mine(), "keisei": {"logging": {"log_dir": str(tmp_path)}}}
    with SessionManager(config, run_name="r"):
        pass
    for name in ("effective_config.json", "config_origins.json"):
        text = (tmp_path / "r" / name).read_text()
        assert "1234567890" not in text
        assert "third" in text


names = st.sampled_from([*SECTIONS, "keisei", OWN, "lr", "a.b", "_x", "model_fields", "copy", ""])
scalars = st.one_of(st.none(), st.booleans(), st.integers(), st.text(max_size=5))
values = st.recursive(
    scalars,
    lambda inner: st.one_of(
        st.lists(inner, max_size=2),
        st.dictionaries(st.one_of(names, st.text(max_size=3)), inner, max_size=3),
    ),
    max_leaves=6,
)


def taken_apart(data: Any) -> list[str]:
    """Return the scalars of plain data."""
    if isinstance(data, Mapping):
        return [each for value in data.values() for each in taken_apart(value)]
    if isinstance(data, list):
        return [each for value in data for each in taken_apart(value)]
    return [repr(data)]


@pytest.mark.requirement("CFG-6")
@given(data=st.dictionaries(names, values, max_size=5))
@settings(max_examples=200, deadline=None)
def test_no_field_is_lost_or_found_twice(data: dict[str, Any]) -> None:
    """Whatever the names: each value has one path, and sorting again changes nothing."""
    try:
        parts = list(placed(data, SECTIONS))
    except ValueError:
        return
    paths = [path for path, _, _ in parts]
    assert len({*paths}) == len(paths)
    kept = [each for _, _, value in parts for each in taken_apart(value)]
    there = {key: value for key, value in data.items() if key != "keisei" or value is not None}
    assert sorted(kept) == sorted(taken_apart(there))
    try:
        made = as_app_config(data)
    except ConfigError:
        return
    again = as_app_config(json.loads(serialize_config(made)))
    assert again.model_extra == made.model_extra
