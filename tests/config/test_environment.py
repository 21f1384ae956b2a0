"""Variables such as `KEISEI__TRAINING__TOTAL_TIMESTEPS`: what they set, and what they go before."""

from __future__ import annotations

import json
import os
import string
from pathlib import Path
from typing import Any

import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st
from pydantic import Field, create_model
from pydantic_settings import BaseSettings, SettingsConfigDict

from keisei import AppConfig, ConfigError, OpenConfig, Section, SessionManager, load_config
from keisei.config.conversion import as_app_config
from keisei.config.origins import explain


class Optimizer(Section):
    """A section of the user's own."""

    lr: float = 0.1
    name: str = "adam"


class MyConfig(AppConfig):
    """A config of the user's own."""

    optimizer: Optimizer = Optimizer()


VALUES: list[tuple[str, str, str, Any]] = [
    ("KEISEI__TRAINING__TOTAL_TIMESTEPS", "1000", "training.total_timesteps", 1000),
    ("KEISEI__TRAINING__TOTAL_TIMESTEPS", "1e6", "training.total_timesteps", 1_000_000),
    ("keisei__env__seed", "7", "env.seed", 7),
    ("KEISEI__ENV", '{"seed": 7}', "env.seed", 7),
    ("KEISEI__WANDB__TAGS", '["a", "on"]', "wandb.tags", ["a", "on"]),
    ("KEISEI__WANDB__TAGS", "[a, b]", "wandb.tags", ["a", "b"]),
    ("KEISEI__WANDB__NOTES", "5", "wandb.notes", "5"),
    ("KEISEI__WANDB__NOTES", "1e-4", "wandb.notes", "1e-4"),
    ("KEISEI__WANDB__NOTES", "true", "wandb.notes", "true"),
    ("KEISEI__WANDB__NOTES", "run #5: a = b", "wandb.notes", "run #5: a = b"),
    ("KEISEI__LOGGING__RUN_NAME", "on", "logging.run_name", "on"),
    ("KEISEI__LOGGING__RUN_NAME", "007", "logging.run_name", "007"),
    ("KEISEI__LOGGING__WANDB_ENABLED", "on", "logging.wandb_enabled", True),
    ("KEISEI__CHECKPOINTS__KEEP_LAST", "null", "checkpoints.keep_last", None),
    ("KEISEI__TRACKING__TRACKERS__MLFLOW__X", "1", "tracking.trackers", {"mlflow": {"x": 1}}),
    ("KEISEI__OPTIMIZER__LR", "1e-4", "optimizer.lr", 1e-4),
    ("KEISEI__OPTIMIZER__NAME", "", "optimizer.name", "adam"),
    ("KEISEI_LOG_DIR_OF_OTHERS", "3", "env.seed", None),
]


@pytest.mark.requirement("CFG-7")
@pytest.mark.parametrize(("name", "text", "key", "wanted"), VALUES)
def test_a_variable_sets_a_field(
    name: str, text: str, key: str, wanted: Any, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Its text is what the field takes it for; an empty one counts as absent."""
    monkeypatch.setenv(name, text)
    value: Any = load_config(model=MyConfig)
    for part in key.split("."):
        value = getattr(value, part)
    assert (value, type(value)) == (wanted, type(wanted))


@pytest.mark.requirement("CFG-7")
def test_it_goes_after_the_file_and_before_the_overrides(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """And the origins name it; a section as a whole comes before one of its fields."""
    path = tmp_path / "c.yaml"
    path.write_text("env: {seed: 1, device: cuda}\ntraining: {steps_per_epoch: 5}\n")
    monkeypatch.setenv("KEISEI__ENV__SEED", "2")
    monkeypatch.setenv("KEISEI__ENV", '{"seed": 9, "device": "mps"}')
    config = load_config(path)
    assert (config.env.seed, config.env.device, config.training.steps_per_epoch) == (2, "mps", 5)
    assert load_config(path, ["env.seed=3"]).env.seed == 3
    origins = {".".join(one.path): one for one in explain(config, {})}
    one = origins["env.seed"]
    assert [(each.source, each.name) for each in (one.origin, *one.beaten)] == [
        ("environment", "KEISEI__ENV__SEED"),
        ("environment", "KEISEI__ENV"),
        ("file", None),
        ("default", None),
    ]


@pytest.mark.requirement("CFG-7")
def test_a_session_reads_it_for_a_config_of_another_kind(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    """What that config says goes before it; an `AppConfig` is as it is."""
    monkeypatch.setenv("KEISEI__ENV__SEED", "2")
    monkeypatch.setenv("KEISEI__TRAINING__TOTAL_TIMESTEPS", "50")
    made = SessionManager({"env": {"seed": 1}, "lr": 3}).app_config
    assert (made.env.seed, made.training.total_timesteps) == (1, 50)
    assert made.model_extra == {"lr": 3}
    assert SessionManager(AppConfig()).app_config.env.seed is None


@pytest.mark.requirement("CFG-7")
@pytest.mark.parametrize(
    ("name", "text", "says"),
    [
        ("KEISEI__TRAINIG__X", "1", "KEISEI__TRAINIG__X: write it as KEISEI__SECTION__FIELD; did"),
        ("KEISEI__", "1", "KEISEI__: write it as"),
        ("KEISEI__ENV__", "1", "KEISEI__ENV__: write it as"),
        ("KEISEI__ENV__SED", "1", "env.sed: unknown key; did you mean `seed`?; KEISEI__ENV__SED"),
        ("KEISEI__ENV__SEED", "s3cret", "env.seed: Input should be a valid integer"),
        ("KEISEI__WANDB__TAGS", "[s3cret", "is YAML to its end"),
        ("KEISEI__ENV__SEED", "1e999", "a number is too large"),
        ("KEISEI__WANDB__NOTES", "${NOT_SET}", "`${NOT_SET}` is not resolved"),
    ],
)
def test_a_variable_that_does_not_fit_is_named(
    name: str, text: str, says: str, monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    """With a file or without one, the environment is blamed, and no value is shown."""
    monkeypatch.setenv(name, text)
    (tmp_path / "c.yaml").write_text("env: {device: cpu}\n")
    for path in (None, tmp_path / "c.yaml"):
        with pytest.raises(ConfigError) as caught:
            load_config(path)
        assert str(caught.value).startswith("the environment does not fit AppConfig:\n")
        assert says in str(caught.value)
        assert name in str(caught.value)
        assert "s3cret" not in str(caught.value)


def test_own_fields_are_no_sections(monkeypatch: pytest.MonkeyPatch) -> None:
    """A variable sets fields of keisei's, and none of a config of another kind."""
    monkeypatch.setenv("KEISEI__LR", "1")
    with pytest.raises(ConfigError, match="KEISEI__LR: write it as"):
        as_app_config({"lr": 3})
    with pytest.raises(ConfigError, match="KEISEI__LR: write it as"):
        load_config(model=OpenConfig)


texts = st.one_of(
    st.integers(-(10**6), 10**6).map(str),
    st.floats(allow_nan=False, allow_infinity=False).map(repr),
    st.sampled_from(["on", "off", "yes", "no", "true", "False", "1", "0", "007", "1.5", "a b"]),
    st.text(string.ascii_letters + " _-", min_size=1, max_size=6),
    st.lists(st.integers(), max_size=3).map(json.dumps),
)


class Peer(Section):
    """Fields of each kind."""

    number: float = 0.0
    whole: int = 0
    flag: bool = False
    text: str = ""
    items: list[int] = []


class PeerConfig(AppConfig):
    """A config with them."""

    peer: Peer = Peer()


@pytest.mark.requirement("CFG-7")
@given(field=st.sampled_from([*Peer.model_fields]), text=texts)
@settings(
    max_examples=300, deadline=None, suppress_health_check=[HealthCheck.function_scoped_fixture]
)
def test_what_pydantic_settings_takes_is_taken_as_the_same(field: str, text: str) -> None:
    """The same variable, read by pydantic-settings, is the peer; blanks around a text apart."""
    theirs: Any = create_model(
        "theirs",
        __base__=type(
            "Base",
            (BaseSettings,),
            {"model_config": SettingsConfigDict(env_prefix="KEISEI__", env_nested_delimiter="__")},
        ),
        peer=(Peer, Field(default_factory=Peer)),
    )
    name = f"KEISEI__PEER__{field.upper()}"
    os.environ[name] = text
    try:
        try:
            wanted = getattr(theirs().peer, field)
        except ValueError:
            return
        if not text.strip():
            return
        got = getattr(load_config(model=PeerConfig).peer, field)
        wanted = wanted.strip() if isinstance(wanted, str) else wanted
        assert (got, repr(got)) == (wanted, repr(wanted)) or repr(got) == repr(wanted) == "nan"
    finally:
        del os.environ[name]
