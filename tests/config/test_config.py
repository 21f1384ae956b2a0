"""The schema and its files: what loads, what is refused, and what a refusal tells."""

from __future__ import annotations

import json
import os
from pathlib import Path
from typing import Any

import pytest
from pydantic import BaseModel, ValidationError

from keisei import AppConfig, ConfigError, Section
from keisei.config.schema import wants_wandb
from keisei.utils.utils import load_config

ORIGIN_YAML = """
logging:
  run_name: "custom_run_name"    # Optional explicit run name
  wandb_enabled: true            # Enable WandB tracking
  log_level: "info"             # Logging verbosity

env:
  seed: 42                      # Random seed for reproducibility
  device: "cuda"                # Computing device

training:
  total_timesteps: 1000000      # Training duration
  steps_per_epoch: 2048         # Steps per PPO epoch
"""
FIELDS = {
    "env": ["seed", "device"],
    "training": ["total_timesteps", "steps_per_epoch"],
    "logging": [
        "run_name",
        "wandb_enabled",
        "log_level",
        "log_dir",
        "model_dir",
        "fallback_dir",
        "if_exists",
        "owner_timeout",
        "progress",
    ],
    "wandb": [
        "project",
        "entity",
        "group",
        "job_type",
        "tags",
        "notes",
        "mode",
        "init_timeout",
        "finish_timeout",
        "offline_fallback",
        "in_process",
    ],
    "journal": ["durability", "max_delay", "capacity", "when_full"],
    "tracking": ["wait", "finish_timeout", "linger", "trackers"],
    "signals": ["handle", "preemption", "grace", "others"],
}


def write(path: Path, text: str | bytes) -> Path:
    """Write a file, and give its path."""
    path.write_bytes(text.encode() if isinstance(text, str) else text)
    return path


@pytest.mark.requirement("CFG-1", "CFG-2")
def test_the_origin_documents_yaml_loads_as_it_stands(tmp_path: Path) -> None:
    """The documented example is a config."""
    config = load_config(write(tmp_path / "config.yaml", ORIGIN_YAML))
    assert config.logging.run_name == "custom_run_name"
    assert config.logging.wandb_enabled is True
    assert config.env.model_dump() == {"seed": 42, "device": "cuda"}
    assert config.training.model_dump() == {"total_timesteps": 1_000_000, "steps_per_epoch": 2048}


@pytest.mark.requirement("CFG-2")
def test_every_field_has_a_default_and_a_description() -> None:
    """A config can be empty, and its JSON schema explains every field."""
    config = AppConfig()
    assert config.logging.wandb_enabled is False
    schema = AppConfig.model_json_schema()
    for section, names in FIELDS.items():
        properties = schema["$defs"][type(getattr(config, section)).__name__]["properties"]
        assert list(properties) == names
        for name in names:
            assert properties[name]["description"], name
            assert "default" in properties[name], name


@pytest.mark.requirement("CFG-2")
@pytest.mark.parametrize(
    "wrong",
    [
        {"env": {"seed": -1}},
        {"env": {"seed": 2**32}},
        {"env": {"seed": 1.5}},
        {"env": {"device": ""}},
        {"training": {"total_timesteps": 0}},
        {"training": {"steps_per_epoch": -5}},
        {"wandb": {"init_timeout": 0}},
        {"wandb": {"finish_timeout": float("inf")}},
        {"wandb": {"finish_timeout": float("nan")}},
        {"wandb": {"mode": "sometimes"}},
        {"wandb": {"project": "a/b"}},
        {"wandb": {"tags": ["x" * 65]}},
        {"logging": {"if_exists": "overwrite"}},
        {"logging": {"log_level": "loud"}},
        {"training": {"lr": 1}},
        {"extra_section": {}},
    ],
    ids=str,
)
def test_values_out_of_range_are_refused(wrong: dict[str, Any]) -> None:
    """A range applies to every number, a choice to every mode, and unknown keys are errors."""
    with pytest.raises(ValidationError):
        AppConfig.model_validate(wrong)
    with pytest.raises(ConfigError):
        load_config(overrides=wrong)


@pytest.mark.requirement("CFG-1")
@pytest.mark.parametrize(
    ("name", "text"),
    [
        ("c.yaml", "env: {seed: 3}\ntraining:\n  total_timesteps: 10\n"),
        ("c.yml", "\ufeffenv:\n  seed: 3\ntraining: {total_timesteps: 10}\n"),
        ("c.json", '{"env": {"seed": 3}, "training": {"total_timesteps": 10}}'),
        ("C.TOML", "[env]\nseed = 3\n[training]\ntotal_timesteps = 10\n"),
    ],
)
def test_each_format_loads_and_is_overridden(tmp_path: Path, name: str, text: str) -> None:
    """YAML, JSON and TOML say the same, and overrides in both forms come after the file."""
    path = write(tmp_path / name, text)
    assert load_config(path).env.seed == 3
    assert load_config(str(path)).training.total_timesteps == 10
    for overrides in (
        {"training": {"total_timesteps": 1000}},
        {"training.total_timesteps": 1000},
        ["training.total_timesteps=1000"],
        "training.total_timesteps=1000",
    ):
        config = load_config(path, overrides)
        assert config.training.total_timesteps == 1000
        assert config.env.seed == 3


@pytest.mark.requirement("CFG-1")
def test_overrides_are_read_as_yaml_and_keep_their_order() -> None:
    """Nulls, lists, text with an equals sign; the last one wins."""
    config = load_config(
        overrides=[
            "env.seed=null",
            "wandb.tags=[a, b]",
            "wandb.notes=x=y",
            "logging.wandb_enabled=true",
            "env.device=cpu",
            "env.device=cuda:1",
        ]
    )
    assert config.env.seed is None
    assert config.wandb.tags == ["a", "b"]
    assert config.wandb.notes == "x=y"
    assert config.env.device == "cuda:1"
    assert load_config() == AppConfig()


class Optimizer(Section):
    """A section of the user's own."""

    lr: float = 0.1


class MyConfig(AppConfig):
    """A config of the user's own."""

    optimizer: Optimizer = Optimizer()


@pytest.mark.requirement("FACE-6", "CFG-1")
def test_a_derived_model_loads_from_the_same_file(tmp_path: Path) -> None:
    """The user's own sections stand beside the built-in ones."""
    path = write(tmp_path / "c.yaml", "optimizer: {lr: 0.5}\nenv: {seed: 1}\n")
    config = load_config(path, ["optimizer.lr=0.25"], model=MyConfig)
    assert config.optimizer.lr == 0.25
    with pytest.raises(ConfigError, match="optimizer: unknown key"):
        load_config(path)


@pytest.mark.requirement("CFG-1")
@pytest.mark.parametrize(
    ("name", "text", "says"),
    [
        ("c.yaml", "", "is empty"),
        ("c.yaml", "# only a comment\n", "is empty"),
        ("c.json", "", "is empty"),
        ("c.toml", "", "is empty"),
        ("c.yaml", "- a\n- b\n", "holds a list at the top"),
        ("c.json", "[1]", "holds a list at the top"),
        ("c.json", "3", "holds a int at the top"),
        ("c.yaml", "just text", "holds a str at the top"),
        ("c.yaml", "env: {seed: 3", "no valid YAML"),
        ("c.yaml", "a: b: c", "line 1, column 5"),
        ("c.yaml", "env: !!python/object/apply:os.getcwd []", "'!!python/object/apply:os.getcwd'"),
        ("c.json", '{"env": }', "line 1, column 9"),
        ("c.json", "[" * 100_000, "not a config"),
        ("c.toml", "a = b", "line 1, column 5"),
        ("c.yaml", b"\xff\xfe\x00", "byte 0 is not UTF-8"),
        ("c.ini", "[env]\nseed=3", ".yaml, .yml, .json or .toml"),
        ("c", "env: {}", ".yaml, .yml, .json or .toml"),
        ("c.yaml", "training: {total_timestep: 5}", "did you mean `total_timesteps`?"),
        ("c.yaml", "trainig: {}", "did you mean `training`?"),
        ("c.yaml", "env: {seed: many}", "env.seed: Input should be a valid integer"),
        ("c.yaml", "env: [1]", "env: "),
        ("c.yaml", "1: 2", "1: "),
    ],
)
def test_a_wrong_file_is_one_error_that_names_file_key_and_reason(
    tmp_path: Path, name: str, text: str | bytes, says: str
) -> None:
    """Whatever is wrong with a file, the message says where and what."""
    path = write(tmp_path / name, text)
    with pytest.raises(ConfigError) as caught:
        load_config(path)
    assert isinstance(caught.value, ValueError)
    assert ascii(str(path))[1:-1] in str(caught.value)
    assert says in str(caught.value)


@pytest.mark.requirement("CFG-1")
def test_an_unreadable_file_is_a_config_error(tmp_path: Path) -> None:
    """Missing, a directory, or a broken link: the message names it."""
    (tmp_path / "dir.yaml").mkdir()
    os.symlink(tmp_path / "nowhere", tmp_path / "link.yaml")
    for name in ("missing.yaml", "dir.yaml", "link.yaml"):
        with pytest.raises(ConfigError, match=f"{name}.*cannot be read"):
            load_config(tmp_path / name)


@pytest.mark.requirement("CFG-1")
@pytest.mark.parametrize("wrong", ["", "x", "a..b=1", ".a=1", "=1", "env.seed=[", "env.sed=1"])
def test_a_wrong_override_is_a_config_error(wrong: str) -> None:
    """An override without a key, a value or a place is refused."""
    with pytest.raises(ConfigError):
        load_config(overrides=[wrong])


SECRET = "sk-live-0123456789abcdef"


class Checked(AppConfig):
    """A config whose validator talks too much."""

    api_key: str = ""

    def model_post_init(self, context: object) -> None:
        """Refuse whatever key there is, in words that show it."""
        if self.api_key:
            raise ValueError(f"bad key {self.api_key}")


@pytest.mark.requirement("CFG-1")
@pytest.mark.parametrize(
    ("name", "text"),
    [
        ("c.yaml", f"api_key: {SECRET}\n"),
        ("c.yaml", f"env: {{seed: {SECRET}}}\n"),
        ("c.yaml", f"wandb: {{mode: {SECRET}, api_key: {SECRET}}}\n"),
        ("c.yaml", f"wandb: {SECRET}\n"),
        ("c.yaml", f"api_key: {{{SECRET}: [\n"),
        ("c.yaml", f"key: '{SECRET}\n"),
        ("c.json", f'{{"key": "{SECRET}",, }}'),
        ("c.toml", f'key = "{SECRET}'),
        ("c.toml", f"key = {SECRET}"),
    ],
)
def test_no_refusal_shows_a_value(tmp_path: Path, name: str, text: str) -> None:
    """A secret in the wrong place is in no message, no cause and no context."""
    path = write(tmp_path / name, text)
    for model in (AppConfig, Checked):
        with pytest.raises(ConfigError) as caught:
            load_config(path, model=model)
        error: BaseException | None = caught.value
        while error is not None:
            assert SECRET not in str(error)
            assert SECRET not in repr(error)
            error = error.__cause__ or error.__context__


def test_a_validation_error_of_a_config_hides_its_input() -> None:
    """Even where a user builds a config by hand, the message shows no value."""
    with pytest.raises(ValidationError) as caught:
        AppConfig.model_validate({"wandb": {"api_key": SECRET}})
    assert SECRET not in str(caught.value)


def test_a_config_is_mutable_and_checked() -> None:
    """An assignment is validated as a file would be."""
    config = AppConfig()
    config.logging.log_level = "DEBUG"  # type: ignore[assignment]
    assert config.logging.log_level == "debug"
    with pytest.raises(ValidationError):
        config.env.seed = -1
    assert AppConfig().env.seed is None


def test_options_of_wandb_have_a_section_of_their_own() -> None:
    """W&B may be named among the trackers; options there are refused, with the section's name."""
    assert wants_wandb(load_config(overrides={"tracking.trackers": ["wandb"]}))
    with pytest.raises(ConfigError) as refused:
        load_config(overrides={"tracking.trackers": {"wandb": {"project": SECRET}}})
    assert "overrides do not fit AppConfig" in str(refused.value)
    assert "tracking.trackers: the options of wandb belong to the section `wandb`" in str(
        refused.value
    )
    assert SECRET not in str(refused.value)


def test_the_schema_is_json() -> None:
    """Editors can check a config file against the schema."""
    assert isinstance(AppConfig, type(BaseModel))
    assert json.loads(json.dumps(AppConfig.model_json_schema()))["title"] == "AppConfig"
