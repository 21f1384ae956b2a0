"""Configs by sources of installed packages: by suffix and by scheme, without secrets in errors."""

from __future__ import annotations

import traceback
from pathlib import Path
from typing import Any

import pytest

from keisei import ConfigError, load_config
from keisei.config.parsing import Parsed, ParseError
from keisei.testing import check_config_source, installed

GIVEN: dict[str, Any] = {}
HERE = {
    "keisei.config_sources": {
        "vault": f"{__name__}:read_given",
        "ini": f"{__name__}:read_given",
        "yaml": f"{__name__}:read_given",
    }
}


def read_given(place: str) -> Any:
    """Return, or raise, what a test has given."""
    GIVEN["place"] = place
    if isinstance(GIVEN["it"], BaseException):
        raise GIVEN["it"]
    return GIVEN["it"]


def load(place: str | Path, it: Any) -> Any:
    GIVEN["it"] = it
    with installed(HERE):
        return load_config(place)


def test_a_suffix_and_a_scheme_name_a_source() -> None:
    """It is given the place as it was written, and what it returns is validated."""
    config = load("vault://team/run.yaml", {"training": {"total_timesteps": 5}})
    assert (config.training.total_timesteps, GIVEN["place"]) == (5, "vault://team/run.yaml")
    assert load(Path("x.INI"), {"env": {"seed": 3}}).env.seed == 3
    assert GIVEN["place"] == "x.INI"


def test_a_suffix_of_keiseis_own_is_read_by_it(tmp_path: Path) -> None:
    """A package that offers `yaml` does not get into its place."""
    (tmp_path / "c.yaml").write_text("env: {seed: 4}\n")
    assert load(tmp_path / "c.yaml", {"env": {"seed": 9}}).env.seed == 4


def test_an_error_about_a_value_names_its_line_and_origins_name_the_url() -> None:
    """Where the source says the lines; a URL is no path of this machine's."""
    parsed = Parsed({"env": {"seed": "x"}}, {("env", "seed"): 7})
    with pytest.raises(ConfigError, match=r"(?s)vault://a.*env.seed.*line 7"):
        load("vault://a", parsed)
    config = load("vault://a", Parsed({"env": {"seed": 1}}, {("env", "seed"): 7}))
    origin = config._layers.tree["env"]["seed"].origin
    assert (origin.source, origin.file, origin.line) == ("file", "vault://a", 7)


@pytest.mark.parametrize(
    ("it", "problem"),
    [
        (None, "it is empty"),
        ([1], "it holds a list at the top"),
        (KeyError("hunter2"), "is not a config: KeyError$"),
        (SystemExit("hunter2"), "is not a config: SystemExit$"),
        (ParseError("line 3"), "is not a config: line 3"),
        (ConfigError("no such team"), "cannot be read: no such team"),
        (ConnectionRefusedError(111, "refused"), "cannot be read: refused"),
        (Parsed({}, {("a",): "hunter2"}), "its source's lines are none"),  # type: ignore[dict-item]
    ],
)
def test_what_a_source_does_wrong_is_an_error_that_names_the_place(it: Any, problem: str) -> None:
    """Of errors that are not meant to be shown there is only the kind: they may show a secret."""
    with pytest.raises(ConfigError, match=problem) as caught:
        load("vault://a", it)
    assert "vault://a" in str(caught.value)
    if isinstance(it, BaseException):
        assert "hunter2" not in "".join(traceback.format_exception(caught.value))


def test_a_source_that_is_not_installed_is_named() -> None:
    """With what is; a place without any is told what a config ends in."""
    with pytest.raises(ConfigError, match="no config source is called 'hocon'; installed: .*yaml"):
        load_config("x.hocon")
    with pytest.raises(ConfigError, match="a config ends in .yaml"):
        load_config("nothing")


def read_env(place: str) -> dict[str, dict[str, str]]:
    """Read lines of `section.field=value`."""
    data: dict[str, dict[str, str]] = {}
    for line in Path(place).read_text().splitlines():
        key, equals, value = line.partition("=")
        if not equals:
            raise ConfigError("a line without =")
        section, _, field = key.partition(".")
        data.setdefault(section, {})[field] = value
    return data


def test_the_kit_passes_a_good_one_and_tells_what_is_wrong_with_others(tmp_path: Path) -> None:
    """Another value, an error that shows a secret, none where there is nothing."""
    good, bad = str(tmp_path / "good"), str(tmp_path / "bad")
    Path(good).write_text("env.seed=1\n")
    Path(bad).write_text("hunter2\n")
    expected, missing = {"env": {"seed": "1"}}, str(tmp_path / "none")
    given: dict[str, Any] = {"missing": missing, "damaged": bad, "secret": "hunter2"}
    assert len(check_config_source(read_env, good, expected, **given)) == 4
    with pytest.raises(AssertionError, match="other keys or values"):
        check_config_source(read_env, good, {"env": {"seed": "2"}}, **given)

    def leaks(place: str) -> dict[str, dict[str, str]]:
        try:
            return read_env(place)
        except ConfigError as exc:
            raise ConfigError(Path(place).read_text()) from exc

    with pytest.raises(AssertionError, match="its error shows the secret"):
        check_config_source(leaks, good, expected, **given)

    def lenient(place: str) -> dict[str, dict[str, str]]:
        return read_env(place) if Path(place).exists() else {}

    with pytest.raises(AssertionError, match="where nothing is, it raises nothing"):
        check_config_source(lenient, good, expected, **given)
