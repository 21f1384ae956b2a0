"""Where each value of a config came from, and what it beat."""

from __future__ import annotations

import json
import os
import pickle
from pathlib import Path
from typing import Annotated, Any

import pytest
from pydantic import Field, SecretStr, model_validator

from keisei import AppConfig, OpenConfig, Section, load_config
from keisei.config.leaves import leaves, values
from keisei.config.origins import Explained, as_data, explain
from keisei.config.text import serialize_config
from keisei.redaction import secret_values
from tests.support.layerings import DEFAULTS, TABLE, Layering
from tests.support.storms import repetitions


def explained(config: AppConfig) -> dict[str, Explained]:
    """Return the origins of a config's values by their keys."""
    return {".".join(one.path): one for one in explain(config, {})}


def written(config: AppConfig) -> dict[str, Any]:
    """Return the origins as they are written."""
    effective = json.loads(serialize_config(config))
    values: dict[str, Any] = as_data(config, effective, {}, secret_values(os.environ))["values"]
    return values


def check_layering(seed: int, place: Path) -> int:
    """Check what is said of one layering, and return how many values it has."""
    layering = Layering(seed, place)
    config = layering.config()
    found = {one.path: one for one in explain(config, layering.in_force)}
    for where, (*beaten, (source, value, name, line)) in layering.stacks.items():
        one = found[where]
        origin = one.origin
        assert (origin.source, origin.name, origin.line) == (source, name, line), (seed, where)
        found_value = str(origin.value) if isinstance(origin.value, Path) else origin.value
        assert found_value == value, (seed, where)
        given = [(o.source, o.name, o.line) for o in one.beaten]
        assert given == [(s, n, ln) for s, _, n, ln in reversed(beaten)], (seed, where)
    for where in found.keys() - layering.stacks.keys():
        assert found[where].origin.source == "default" or where in TABLE, (seed, where)
    return len(found)


@pytest.mark.requirement("PROV-1")
def test_every_value_of_a_layered_config_is_explained(tmp_path: Path) -> None:
    """Of seven sources, the one in force is named, with file and line, and all that it beats."""
    assert sum(check_layering(seed, tmp_path) for seed in range(150)) > 150 * len(DEFAULTS)


@pytest.mark.storm
def test_ten_thousand_layerings_are_explained(tmp_path: Path) -> None:
    """Not one value of them is explained wrongly."""
    values = sum(check_layering(1000 + seed, tmp_path) for seed in range(repetitions(10_000)))
    print(f"{values} values explained")


def test_the_values_of_a_config_are_those_of_its_leaves() -> None:
    """The quick way to them, and the one that knows their fields, of the user's own too."""
    config = OpenConfig.model_validate({"env": {"seed": 1}, "a": {"b": {}, "c": [1]}, "d": None})
    assert dict(values(config)) == {leaf.path: leaf.value for leaf in leaves(config)}


def test_a_merged_key_is_of_the_line_that_it_stands_on(tmp_path: Path) -> None:
    """YAML's `<<` takes keys from elsewhere in the file; a key of the mapping's own goes before."""
    (tmp_path / "c.yaml").write_text(
        "env: &base\n  seed: 3\n  device: cuda\n"
        "logging:\n  run_name: r\ntracking:\n  trackers:\n    tensorboard: {a: 1}\n"
    )
    found = explained(load_config(tmp_path / "c.yaml"))
    assert found["env.device"].origin.line == 3
    assert found["tracking.trackers.tensorboard.a"].origin.line == 8


def test_a_list_that_a_validator_takes_apart_is_from_its_line(tmp_path: Path) -> None:
    """What a validator makes of a value comes from where the value stands."""
    (tmp_path / "c.yaml").write_text("tracking:\n  trackers: [tensorboard, mlflow]\n")
    found = explained(load_config(tmp_path / "c.yaml"))
    assert found["tracking.trackers.mlflow"].origin.line == 2


def test_a_key_below_a_list_beats_the_list(tmp_path: Path) -> None:
    """An override that makes a mapping of it goes before it; what is set over a mapping, before all
    of that."""
    (tmp_path / "c.yaml").write_text("tracking:\n  trackers: [tensorboard]\n")
    found = explained(load_config(tmp_path / "c.yaml", ["tracking.trackers.mlflow.a=1"]))
    (beaten,) = found["tracking.trackers.mlflow.a"].beaten
    assert (beaten.source, beaten.line, beaten.value) == ("file", 2, ["tensorboard"])
    (tmp_path / "c.yaml").write_text("tracking:\n  trackers:\n    mlflow: {a: 1}\n")
    found = explained(load_config(tmp_path / "c.yaml", ["tracking.trackers=[tensorboard]"]))
    one = found["tracking.trackers.tensorboard"]
    assert [(o.source, o.line) for o in (one.origin, *one.beaten)] == [
        ("override", None),
        ("file", 3),
    ]


def test_a_field_with_an_alias_is_found_under_it(tmp_path: Path) -> None:
    """A file names a field by its alias."""

    class Named(Section):
        rate: float = Field(0.1, alias="learning_rate")

    class NamedConfig(AppConfig):
        named: Named = Named(learning_rate=0.1)

    (tmp_path / "c.yaml").write_text("named:\n  learning_rate: 0.5\n")
    found = explained(load_config(tmp_path / "c.yaml", model=NamedConfig))
    assert (found["named.rate"].origin.source, found["named.rate"].origin.line) == ("file", 2)


def test_what_the_program_sets_is_of_the_code(tmp_path: Path) -> None:
    """A constructor, an assignment, a list that grows, and a validator are code."""

    class Checked(AppConfig):
        twice: int = 0

        @model_validator(mode="before")
        @classmethod
        def _made(cls, data: dict[str, Any]) -> dict[str, Any]:
            return {**data, "twice": 6}

    made = explained(AppConfig(env={"seed": 3}))  # type: ignore[arg-type]
    assert made["env.seed"].origin.source == "code"
    assert made["env.device"].origin.source == "default"
    assert explained(load_config(model=Checked))["twice"].origin.source == "code"
    config = load_config(overrides=["wandb.tags=[a]"])
    config.wandb.tags.append("b")
    one = explained(config)["wandb.tags"]
    assert [origin.source for origin in (one.origin, *one.beaten)] == [
        "code",
        "override",
        "default",
    ]


def test_origins_go_with_copies_and_change_nothing(tmp_path: Path) -> None:
    """A config with origins equals one without, and takes them through pickle and copies."""
    config = load_config(overrides=["env.seed=7"])
    assert config == AppConfig(env={"seed": 7})  # type: ignore[arg-type]
    for copied in (pickle.loads(pickle.dumps(config)), config.model_copy(deep=True)):
        assert explained(copied)["env.seed"].origin.source == "override"


def test_no_secret_is_in_the_origins(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """What was beaten is hidden as what is in force is: by key, by type, by known value."""

    class Login(Section):
        api_key: str = "default-key-9f8e7d6c"
        user: SecretStr = SecretStr("typed-default-31415")
        entries: dict[str, Annotated[SecretStr, Field()]] = {}
        url: str = "https://me:first-pass-777@host/"

    class LoginConfig(AppConfig):
        login: Login = Login()

    monkeypatch.setenv("DB_PASSWORD", "known-value-271828")
    monkeypatch.setenv("SOME_VALUE", "indirect-161803")
    (tmp_path / "c.yaml").write_text(
        "login:\n  api_key: file-key-1a2b3c4d5e\n  user: ${SOME_VALUE}\n"
        "  entries: {one: typed-entry-5555}\n  url: https://me:second-pass-888@host/\n"
    )
    overrides = [
        "login.api_key=override-key-6f7a8b9c",
        "login.user=typed-override-99999",
        "wandb.notes=known-value-271828",
        "login.url=https://me:third-pass-999@host/",
    ]
    config = load_config(tmp_path / "c.yaml", overrides, model=LoginConfig)
    config.wandb.notes = "nothing"
    text = json.dumps(written(config))
    for secret in (
        *("default-key", "file-key", "override-key", "typed-default", "typed-override"),
        *("typed-entry", "indirect", "known-value", "first-pass", "second-pass", "third-pass"),
    ):
        assert secret not in text
    assert json.loads(text)["login.api_key"]["beat"][0]["line"] == 2
