"""Values mean what people write: numbers, override texts, keys that stand twice, references."""

from __future__ import annotations

import argparse
import dataclasses
import datetime
import json
import math
from collections.abc import Callable
from pathlib import Path
from typing import Any, Literal

import pytest
from pydantic import BaseModel

from keisei import (
    AppConfig,
    AsyncSessionManager,
    ConfigError,
    ConfigSaveError,
    DirectorySetupError,
    SessionManager,
    load_config,
)
from keisei.redaction import HIDDEN
from keisei.testing import MemoryTracker
from keisei.utils.utils import generate_run_name
from tests.conftest import MakeConfig


class FreeConfig(AppConfig):
    """A config with a field that takes anything, and a text."""

    free: dict[str, Any] = {}
    text: str = ""


def load(path: Path, text: str, overrides: Any = None) -> FreeConfig:
    """Write a file and load it."""
    path.write_text(text)
    return load_config(path, overrides, model=FreeConfig)


NUMBERS: dict[str, Any] = {
    "1e-8": 1e-8, "1e6": 1e6, "1E6": 1e6, "2.5e-5": 2.5e-5, "1.e3": 1e3, ".5": 0.5, "5.": 5.0,
    "+1": 1, "-1_000": -1000, "1_000.5": 1000.5, "1_0e3": 1e4, "010": 10, "0o10": 8, "0x1F": 31,
    "0b11": 3, "-.inf": -math.inf, "1:30": "1:30", "12:30:45": "12:30:45", "1.2.3": "1.2.3",
    "1e": "1e", "e5": "e5", "=": "=", "true": True, "~": None, "null": None, "0644": 644,
    "2024-01-31": "2024-01-31", "12e03": 12000.0, "1e-4": 1e-4, "on": True, "no": False,
}  # fmt: skip


@pytest.mark.requirement("CFG-1")
@pytest.mark.parametrize("text", NUMBERS)
def test_numbers_are_what_people_write(tmp_path: Path, text: str) -> None:
    """In a file and in an override they are the same, and none is octal or of base 60 unasked."""
    wanted = NUMBERS[text]
    for config in (
        load(tmp_path / "c.yaml", f"free: {{value: {text} }}\n"),
        load(tmp_path / "c.yaml", "env: {}\n", [f"free.value={text}"]),
    ):
        got = config.free["value"]
        assert (got, type(got)) == (wanted, type(wanted))


@pytest.mark.requirement("CFG-1")
@pytest.mark.parametrize(
    ("name", "text"),
    [
        ("c.yaml", "training: {total_timesteps: 1e6}"),
        ("c.yaml", "training: {total_timesteps: 1_000_000}"),
        ("c.json", '{"training": {"total_timesteps": 1e6}}'),
        ("c.toml", "training.total_timesteps = 1e6"),
    ],
)
def test_a_whole_number_may_have_an_exponent(tmp_path: Path, name: str, text: str) -> None:
    """`1e6` is a number of steps in each format."""
    assert load(tmp_path / name, text).training.total_timesteps == 1_000_000


@pytest.mark.requirement("CFG-1")
@pytest.mark.parametrize(
    ("name", "text"),
    [
        ("c.yaml", "free: {x: 1e400}"),
        ("c.json", '{"free": {"x": 1e400}}'),
        ("c.toml", "free.x = 1e400"),
    ],
)
def test_a_number_that_is_too_large_is_no_infinity(tmp_path: Path, name: str, text: str) -> None:
    """What a float cannot hold is an error."""
    with pytest.raises(ConfigError, match="a number is too large"):
        load(tmp_path / name, text)


WORDS = ["on", "off", "yes", "no", "On", "OFF", "Yes", "NO"]


class WordConfig(AppConfig):
    """A config with fields that words are meant for."""

    text: str = ""
    texts: list[str] = []
    flag: bool = False
    choice: Literal["on", "off", "auto"] | None = None
    day: datetime.date | None = None
    table: dict[str, str] = {}


@pytest.mark.requirement("CFG-1")
@pytest.mark.parametrize("word", WORDS)
def test_a_word_is_what_its_field_takes_it_for(tmp_path: Path, word: str) -> None:
    """`on` is a text where a text is wanted, a boolean where one is; as a key it is a text."""
    wanted = word.lower() in ("on", "yes")
    text = f"text: {word}\ntexts: [a, {word}]\nflag: {word}\ntable: {{{word}: {word}}}\n"
    (tmp_path / "c.yaml").write_text(text)
    for config in (
        load_config(tmp_path / "c.yaml", model=WordConfig),
        load_config(
            overrides=[f"text={word}", f"texts=['a', '{word}']", f"flag={word}",
                       f"table={{'{word}': '{word}'}}"],
            model=WordConfig,
        ),
    ):  # fmt: skip
        assert (config.text, config.texts) == (word, ["a", word])
        assert config.flag is wanted
        assert config.table == {word: word}


@pytest.mark.requirement("CFG-1")
def test_words_and_dates_do_not_surprise(tmp_path: Path) -> None:
    """A choice of words, a run that is called by a date, a date, and `true`, which is no text."""
    (tmp_path / "c.yaml").write_text(
        "logging: {run_name: 2024-01-31}\nchoice: off\nday: 2024-01-31\ntext: 2024-01-31\n"
    )
    config = load_config(tmp_path / "c.yaml", model=WordConfig)
    assert (config.logging.run_name, config.text) == ("2024-01-31", "2024-01-31")
    assert (config.choice, config.day) == ("off", datetime.date(2024, 1, 31))
    (tmp_path / "c.yaml").write_text("text: true\n")
    with pytest.raises(ConfigError, match=r"text: .*in quotes it is a text\); line 1"):
        load_config(tmp_path / "c.yaml", model=WordConfig)


@pytest.mark.requirement("CFG-1")
def test_a_tab_in_the_indent_is_called_one(tmp_path: Path) -> None:
    """The line is named, and what is wrong there."""
    with pytest.raises(ConfigError, match=r"line 2, column 1: no valid YAML: a tab stands"):
        load(tmp_path / "c.yaml", "env:\n\tseed: 1\n")


@pytest.mark.requirement("CFG-1")
def test_an_error_names_the_line(tmp_path: Path) -> None:
    """Of a key, a value, a number and a reference, in each format."""
    for name, text in {
        "c.yaml": "env:\n  seed: x\n",
        "c.json": '{"env":\n {"seed": "x"}}',
        "c.toml": "[env]\nseed = 'x'\n",
    }.items():
        with pytest.raises(ConfigError, match=r"env.seed: .*; line 2$"):
            load(tmp_path / name, text)
    with pytest.raises(ConfigError, match="env.sed: unknown key; did you mean `seed`.; line 2"):
        load(tmp_path / "c.yaml", "env:\n  sed: 3\n")
    with pytest.raises(ConfigError, match="line 2, column 6: a number is too large"):
        load(tmp_path / "c.yaml", "free:\n  a: 1e400\n")
    with pytest.raises(ConfigError, match=r"free.a: `\$\{NOT_SET\}` is not resolved.*; line 2"):
        load(tmp_path / "c.yaml", "free:\n  a: ${NOT_SET}\n")


TEXTS = [
    "run #5 of three", "a: b", "- x", "*x", "&x y", "!tag x", "@foo %x `y`", "x=y", "it's",
    "50% of {a}", "> not folded", "C:\\x", "what? no", "? a", "a, b", "#",
]  # fmt: skip


@pytest.mark.requirement("CFG-1")
@pytest.mark.parametrize("text", TEXTS)
def test_an_override_is_the_text_that_was_given(text: str) -> None:
    """No sign in it cuts it off or makes it something else."""
    assert load_config(overrides=[f"wandb.notes={text}"]).wandb.notes == text
    assert load_config(overrides=[f"wandb.notes={json.dumps(text)}"]).wandb.notes == text


@pytest.mark.requirement("CFG-1")
def test_an_override_that_begins_with_a_bracket_or_a_quote_is_yaml_to_its_end() -> None:
    """Lists, mappings and quoted texts; of one that goes on after it no half is taken."""
    config = load_config(
        overrides=["free.l=[1e-3, a]", "free.m={a: 1, b: [2]}", "text='010'", 'free.q="a # b"'],
        model=FreeConfig,
    )
    assert config.free == {"l": [0.001, "a"], "m": {"a": 1, "b": [2]}, "q": "a # b"}
    assert config.text == "010"
    for wrong in ("[a] b", "[a] #b]", "[a, b #2]", "'a' b", '"a" # c', "{a: 1", "["):
        with pytest.raises(ConfigError, match="override 'text': .* is YAML to its end; quote it"):
            load_config(overrides=[f"text={wrong}"], model=FreeConfig)


@pytest.mark.requirement("CFG-1")
@pytest.mark.parametrize(
    ("name", "text", "says"),
    [
        ("c.yaml", "wandb: {notes: a}\nenv: {}\nwandb: {}", "lines 1 and 3: the key 'wandb'"),
        ("c.yaml", "env:\n  seed: 1\n  'seed': 2", "lines 2 and 3: the key 'env.seed'"),
        ("c.yaml", "free: {a: 1, a: 1}", "line 1: the key 'free.a'"),
        ("c.yaml", "free:\n  a:\n  - b: 1\n    b: 2", "lines 3 and 4: the key 'free.a.0.b'"),
        ("c.json", '{"env": {"seed": 1},\n "env": {}}', "lines 1 and 2: the key 'env'"),
        ("c.json", '{"free": [{"},": 1,\n"b": {"c": 1, "c": 2}}]}', "line 2: the key 'free.b.c'"),
        ("c.toml", "[env]\nseed = 1\nseed = 2", "lines 2 and 3: the key 'env.seed'"),
        ("c.toml", "[env]\nseed = 1\n[env]\ndevice = 'cpu'", "lines 1 and 3: the key 'env'"),
        ("c.toml", "env.seed = 1\nenv.'seed' = 2", "lines 1 and 2: the key 'env.seed'"),
        ("c.toml", "free = {a = 1, a = 2}", "a key stands twice at line 1"),
    ],
)  # fmt: skip
def test_a_key_that_stands_twice_is_an_error(
    tmp_path: Path, name: str, text: str, says: str
) -> None:
    """In each format, with the key path and both lines: no section is dropped without a word."""
    with pytest.raises(ConfigError) as caught:
        load(tmp_path / name, text)
    assert says in str(caught.value)
    assert "stands twice" in str(caught.value)


@pytest.mark.requirement("CFG-1")
def test_a_key_in_two_places_is_no_key_twice(tmp_path: Path) -> None:
    """A merged mapping is overridden, an alias is a copy, tables of a list have the same keys."""
    text = "free:\n  a: &a {lr: 1, b: 2}\n  c: *a\n  d: {<<: *a, lr: 3}\n"
    config = load(tmp_path / "c.yaml", text, ["free.a.lr=5"])
    assert config.free == {
        "a": {"lr": 5, "b": 2}, "c": {"lr": 1, "b": 2}, "d": {"lr": 3, "b": 2}
    }  # fmt: skip
    text = "[[free.a]]\nb = 1\n[[free.a]]\nb = 2\n"
    assert load(tmp_path / "c.toml", text).free == {"a": [{"b": 1}, {"b": 2}]}
    with pytest.raises(ConfigError, match="override 'free.d': line 1: the key 'a' stands twice"):
        load_config(overrides=["free.d={a: 1, a: 2}"], model=FreeConfig)


@pytest.mark.requirement("CFG-1")
def test_references_are_resolved_from_the_environment(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """In files and overrides, with defaults, and with a way to write the text itself."""
    monkeypatch.setenv("SCRATCH", "/scratch/me")
    monkeypatch.setenv("EMPTY", "")
    text = (
        "logging: {log_dir: '${SCRATCH}/runs'}\nfree: {a: ['x${EMPTY}y', '${EMPTY:-d}'], b: $5}\n"
    )
    config = load(tmp_path / "c.yaml", text, ["text=$${SCRATCH} {x}", "free.c=${NOT_SET:-}"])
    assert config.logging.log_dir == Path("/scratch/me/runs")
    assert config.free == {"a": ["xy", "d"], "b": "$5", "c": ""}
    assert config.text == "${SCRATCH} {x}"
    assert load_config(overrides={"logging.log_dir": "${SCRATCH}"}).logging.log_dir == Path(
        "/scratch/me"
    )


@pytest.mark.requirement("CFG-1", "DIR-4")
@pytest.mark.parametrize("reference", ["${NOT_SET}/runs", "${env.seed}", "${oc.env:HOME}", "${}"])
def test_a_reference_that_is_not_resolved_is_an_error(
    tmp_path: Path, reference: str, make_config: MakeConfig
) -> None:
    """It names the key and the way out; no directory is ever called so."""
    with pytest.raises(ConfigError) as caught:
        load(tmp_path / "c.yaml", f"logging: {{log_dir: '{reference}'}}")
    assert "logging.log_dir: " in str(caught.value)
    assert "not resolved" in str(caught.value)
    assert "$${" in str(caught.value)
    with pytest.raises(ConfigError, match="overrides do not fit FreeConfig:\n  text: "):
        load_config(overrides=[f"text={reference}"], model=FreeConfig)
    config = make_config()
    for path in (reference, "/tmp/$NOT_SET/runs", "$(pwd)"):
        config.logging.log_dir = Path(path)
        with pytest.raises(DirectorySetupError, match="reference to a variable is not resolved"):
            SessionManager(config).setup_directories()


@pytest.mark.requirement("CFG-1")
def test_a_hidden_secret_is_no_secret(tmp_path: Path) -> None:
    """A file that keisei has written is no source of passwords; an override brings them."""
    text = json.dumps({"free": {"api_key": HIDDEN, "urls": [f"a://{HIDDEN}@h"]}})
    with pytest.raises(ConfigError) as caught:
        load(tmp_path / "c.json", text)
    for part in ("free.api_key", "free.urls.0", "was hidden", "give it as an override"):
        assert part in str(caught.value)
    config = load(tmp_path / "c.json", text, ["free.api_key=k", "free.urls=[]"])
    assert config.free == {"api_key": "k", "urls": []}


@pytest.mark.requirement("CFG-1")
def test_an_error_names_its_source(tmp_path: Path) -> None:
    """What an override has set is not blamed on the file, nor the other way round."""
    with pytest.raises(ConfigError) as caught:
        load(tmp_path / "c.yaml", "env: {seed: 1}", ["env.sed=3"])
    assert str(caught.value).startswith("the overrides do not fit FreeConfig:\n  env.sed: ")
    with pytest.raises(ConfigError) as caught:
        load(tmp_path / "c.yaml", "env: {sed: 1}", ["env.seed=x"])
    first, second, third = str(caught.value).split("\n")
    assert "c.yaml' does not fit" in first
    assert second.endswith("; an override")
    assert "override" not in third
    with pytest.raises(ConfigError, match="in quotes it is a text"):
        load(tmp_path / "c.yaml", "text: 007")


@pytest.mark.requirement("CFG-1")
@pytest.mark.parametrize(
    ("text", "says"),
    [
        ("env: {seed: 1}\n---\nenv: {seed: 2}\n", "line 2, column 1: a second document begins"),
        ("free: {a: !!python/name:os.system }", "the tag '!!python/name:os.system' is not taken"),
        ("free: !mine {a: 1}", "the tag '!mine' is not taken"),
    ],
)
def test_what_yaml_has_beyond_plain_data_is_called_by_its_name(
    tmp_path: Path, text: str, says: str
) -> None:
    """A tag and a second document are valid YAML, and no config."""
    with pytest.raises(ConfigError) as caught:
        load(tmp_path / "c.yaml", text)
    assert says in str(caught.value)


@dataclasses.dataclass
class Plain:
    """A dataclass that somebody takes for a config."""

    seed: int = 1


class Foreign(BaseModel):
    """A model that is no config of keisei's."""


class FunnyObject:
    """An object that has attributes, and no fields."""


@pytest.mark.requirement("CFG-6")
@pytest.mark.parametrize(
    ("wrong", "says"),
    [
        (AppConfig, "no class AppConfig: call it"),
        ("config.yaml", "no str: load_config(path)"),
        (Path("config.yaml"), r"load_config(path)"),
        (None, "no NoneType: AppConfig() has the defaults"),
        (3, "no int: a config has named fields"),
        ([("env", 1)], "no list: a config has named fields"),
        (FunnyObject(), "no FunnyObject: vars(config)"),
    ],
)
def test_what_is_no_config_is_refused_with_the_way_out(wrong: Any, says: str) -> None:
    """Both faces say how a config is made of it."""
    makers: list[Callable[[Any], object]] = [SessionManager, AsyncSessionManager]
    for make in makers:
        with pytest.raises(ConfigError) as caught:
            make(wrong)
        assert says in str(caught.value)


@pytest.mark.parametrize(
    ("wrong", "says"),
    [
        ({"env": {"seed": 1}}, "not a dict: load_config(overrides=config, model=MyConfig)"),
        (Plain(), "not a Plain: load_config(overrides=dataclasses.asdict(config)"),
        (argparse.Namespace(seed=1), "not a Namespace: load_config(overrides=vars(config)"),
        (Foreign(), "not a Foreign: derive its class from keisei.AppConfig"),
    ],
)
def test_a_name_is_generated_for_an_app_config_alone(wrong: Any, says: str) -> None:
    """A config of another kind is refused by `generate_run_name`, with the way out."""
    with pytest.raises(ConfigError) as caught:
        generate_run_name(wrong)
    assert says in str(caught.value)


@pytest.mark.requirement("CFG-1")
def test_load_config_says_which_argument_is_wrong() -> None:
    """A mapping in the place of the path, and a namespace in that of the overrides."""
    with pytest.raises(ConfigError, match=r"not a dict: load_config\(overrides=config"):
        load_config({"env": {"seed": 1}})  # type: ignore[call-overload]
    with pytest.raises(ConfigError, match="not a Namespace"):
        load_config(overrides=argparse.Namespace(seed=1))


@pytest.mark.requirement("CFG-4")
@pytest.mark.parametrize("wait", [True, False])
@pytest.mark.parametrize(
    ("free", "key"),
    [
        ({"act": len}, "free.act"),
        ({"a": [1, {"b": object()}]}, "free.a.1.b"),
        ({"a": {"t": "\ud800"}}, "free.a.t"),
    ],
)
def test_what_has_no_json_form_is_named_whoever_asks(
    make_config: MakeConfig, free: dict[str, Any], key: str, wait: bool
) -> None:
    """With a tracker or without one, the key is in the typed error, and no tracker is blamed."""
    plain = make_config().model_dump()
    named = {**plain["tracking"], "trackers": ["tensorboard"], "wait": wait}
    for sections in (plain, {**plain, "tracking": named}):
        config = FreeConfig.model_validate({**sections, "free": free})
        with pytest.raises(ConfigSaveError) as caught, SessionManager(config):
            pass
        assert f"for what stands under '{key}'" in str(caught.value)
        assert "effective_config.json" in str(caught.value)


@pytest.mark.requirement("CFG-5")
def test_a_save_writes_the_config_as_it_is_by_then(make_config: MakeConfig) -> None:
    """A tracker has what was true at its start, and the file what was true when it was saved."""
    config = make_config(env={"seed": 1})
    session = SessionManager(config)
    session.setup_directories()
    tracker = MemoryTracker()
    session.setup_remote_logging(tracker)
    config.env.seed = 2
    session.save_effective_config()
    path = Path(session.run_artifact_dir, "effective_config.json")
    assert json.loads(path.read_text())["env"]["seed"] == 2
    config.env.seed = 3
    session.save_effective_config()
    assert json.loads(path.read_text())["env"]["seed"] == 3
    assert json.loads(tracker.runs[0].info.config_text)["env"]["seed"] == 1
    session.finalize_session()


@pytest.mark.requirement("ID-2")
def test_a_name_that_is_given_is_not_generated() -> None:
    """The origin's callers pass the config and the name that somebody has chosen."""
    config = AppConfig()
    config.env.seed = 7
    assert generate_run_name(config, "mine") == "mine"
    for absent in (None, ""):
        assert "-seed7-" in generate_run_name(config, absent)
    with pytest.raises(ValueError, match="illegal run name"):
        generate_run_name(config, "../x")
