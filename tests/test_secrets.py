"""No secret leaves for a file, a log, an error, a repr or a tracker, whichever way it came in."""

from __future__ import annotations

import argparse
import base64
import json
import logging
import os
import pickle
import stat
import subprocess
import sys
import traceback
import urllib.parse
from pathlib import Path
from typing import Any

import pytest
from pydantic import SecretStr

from keisei import (
    AppConfig,
    ConfigError,
    DirectorySetupError,
    KeiseiError,
    Section,
    SessionManager,
    TrackerError,
    load_config,
)
from keisei.errors import quoted
from keisei.redaction import HIDDEN, redact, redact_text, secret_values
from tests.conftest import MakeConfig
from tests.support.wandb_file import find_run_files, read_run_file

PROGRAM = Path(__file__).parent / "support" / "secret_session.py"
WAYS = ["typed", "named", "url", "environment", "text"]


def canaries() -> dict[str, list[str]]:
    """Return four canaries for each way in; those of the environment hold odd characters."""
    planted = {
        way: [f"canary{way}{number}x{number * 7919 + 1234567:x}" for number in range(4)]
        for way in WAYS
    }
    odd = planted["environment"]
    planted["environment"] = [f"{value}/+={end}" for value, end in zip(odd, "a%b&", strict=True)]
    planted["environment"][1] = odd[1]  # a password in a URL
    return planted


def forms(canary: str) -> set[bytes]:
    """Return a canary as it is, URL-quoted, escaped, and in base64 whatever stands before it."""
    found = {canary.encode(), urllib.parse.quote(canary, safe="").encode()}
    found |= {json.dumps(canary)[1:-1].encode(), urllib.parse.quote_plus(canary).encode()}
    for before in range(3):
        coded = base64.b64encode(b"\0" * before + canary.encode())
        whole = coded[(before * 8 + 5) // 6 : (before + len(canary)) * 8 // 6]
        found |= {whole, whole.translate(bytes.maketrans(b"+/", b"-_"))}
    return found


def leaks(directory: Path, planted: list[str]) -> tuple[list[str], int]:
    """Search every byte below a directory; gives what was found where, and how much was read."""
    found, size = [], 0
    for path in sorted(directory.rglob("*")):
        content = str(path).encode() + (path.read_bytes() if path.is_file() else b"")
        size += len(content)
        found += [
            f"{canary} in {path}"
            for canary in planted
            if any(form in content for form in forms(canary))
        ]
    return found, size


def test_the_search_finds_a_canary_in_each_of_its_forms(tmp_path: Path) -> None:
    """A search that finds nothing would prove nothing."""
    (canary, *_) = canaries()["environment"]
    for number, text in enumerate(
        [
            canary,
            urllib.parse.quote(canary, safe=""),
            base64.b64encode(b"me:" + canary.encode()).decode(),
            base64.urlsafe_b64encode(b"user:" + canary.encode()).decode(),
        ]
    ):
        place = tmp_path / str(number)
        place.mkdir()
        (place / "file").write_text(f"before {text} after")
        assert len(leaks(place, [canary])[0]) == 1, text


@pytest.fixture(scope="module")
def written(tmp_path_factory: pytest.TempPathFactory) -> tuple[Path, list[str]]:
    """Run the program whose every way in holds a canary; give where it wrote, and the canaries."""
    planted = canaries()
    source, output = tmp_path_factory.mktemp("in"), tmp_path_factory.mktemp("out")
    (output / "home").mkdir()
    environment, text = planted["environment"], planted["text"]
    (source / "canaries.json").write_text(json.dumps(planted))
    good = {
        "logging": {"wandb_enabled": True, "log_level": "debug"},
        "env": {"device": f"cuda {environment[0]}"},
        "wandb": {
            "mode": "offline",
            "notes": f"see https://me:{planted['url'][3]}@host",
            "tags": [environment[1]],
            "group": environment[2],
            "job_type": f"password={text[0]}",
        },
    }
    (source / "good.yaml").write_text(json.dumps(good))
    (source / "bad1.yaml").write_text(f"env: {{seed: {text[3]}}}\napi_key: {planted['named'][0]}\n")
    (source / "bad2.yaml").write_text(f"store: {{token: [{text[3]}]}}\nredis: [{text[3]}]\n")
    (source / "bad3.toml").write_text(f'key = "{text[3]}')
    (source / "bad4.json").write_text(f'{{"key": "{text[3]}",, }}')
    (source / "bad5.yaml").write_bytes(f"key: {text[3]}\xe9".encode("latin-1"))
    surroundings = {
        name: value
        for name, value in os.environ.items()
        if not name.startswith(("WANDB_", "KEISEI_"))
    }
    places = ("HOME", "USERPROFILE", "WANDB_CACHE_DIR", "WANDB_CONFIG_DIR", "WANDB_DATA_DIR")
    surroundings |= dict.fromkeys(places, str(output / "home")) | {
        "PYTHONPATH": os.pathsep.join(sys.path),
        "KEISEI_LOG_DIR": str(output / "runs"),
        "HF_TOKEN": environment[0],
        "DATABASE_URL": f"postgres://me:{environment[1]}@host/db",
        "SLACK_WEBHOOK": environment[2],
        "WANDB_API_KEY": environment[3].ljust(40, "0"),
        "MY_TOKEN_1": environment[3],
    }
    command = [sys.executable, str(PROGRAM), str(source), str(output), f"--password={text[0]}"]
    with (output / "stdout.txt").open("wb") as stdout, (output / "stderr.txt").open("wb") as stderr:
        done = subprocess.run(command, env=surroundings, cwd=output, stdout=stdout, stderr=stderr)
    assert done.returncode == 0, (output / "stderr.txt").read_text()
    return output, [canary for way in WAYS for canary in planted[way]]


@pytest.mark.requirement("CFG-1", "CFG-3", "WB-6", "WB-7", "LOG-4")
def test_no_byte_that_is_written_holds_a_canary(written: tuple[Path, list[str]]) -> None:
    """Files, logs, errors, pickles, reprs, both outputs and W&B's own files: none of them does."""
    output, planted = written
    assert len(set(planted)) == 20
    found, size = leaks(output, planted)
    number = len({line.partition(" in ")[0] for line in found})
    print(f"canaries found: {number} of {len(planted)} in {size} bytes")
    assert found == []


def test_there_was_much_to_search(written: tuple[Path, list[str]]) -> None:
    """Each thing that could have held a canary was written, and says that something was hidden."""
    output, _ = written
    for name in ("logged", "tracebacks", "errors", "reprs", "introduced", "stdout", "stderr"):
        text = (output / f"{name}.txt").read_text(encoding="utf-8")
        assert HIDDEN in text, name
        assert len(text) > 200, name
    assert {path.stem for path in output.glob("*.pickle")} == {
        "ConfigError", "InvalidRunNameError", "DirectorySetupError",
    }  # fmt: skip
    run_files = find_run_files(output / "runs")
    assert len(run_files) == 2
    for path in run_files:
        config = read_run_file(path).config
        assert config["store"]["token"] == config["wandb_api_key"] == HIDDEN
        assert config["plain"] == [HIDDEN] * 4
    assert len(list((output / "runs").rglob("logs/debug.log"))) == 2
    logged = (output / "logged.txt").read_text(encoding="utf-8")
    for part in ("broken did not start", "failed to finish", "logger_func failed", "Traceback"):
        assert part in logged


@pytest.mark.skipif(sys.platform == "win32", reason="Windows has no such modes")
def test_nobody_else_can_read_what_keisei_writes(written: tuple[Path, list[str]]) -> None:
    """Files are 0600 and directories 0700; W&B's own are below such a directory."""
    runs = written[0] / "runs"
    modes = {
        path: stat.S_IMODE(path.stat().st_mode)
        for path in [runs, *runs.rglob("*")]
        if "wandb" not in path.relative_to(runs).parts
    }
    assert len(modes) > 10
    for path, mode in modes.items():
        assert mode == (0o700 if path.is_dir() else 0o600), path


HARMLESS = {
    "pad_token": "<pad>", "eos_token": "</s>", "bos_token_id": "one", "mask_token": "[MASK]",
    "use_cls_token": "yes", "max_new_tokens": "many", "num_tokens": "5", "tokenizer": "gpt2-large",
    "tokens_per_batch": "4k", "image_token": "<image>", "token_type": "word", "padtoken": "<pad>",
    "maxtokens": "512", "pin_memory": "auto", "key_padding_mask": "left", "attention_key": "query",
    "num_key_value_heads": "eight", "cookiecutter": "gh:org/template", "sort_key": "length",
    "primary_key": "user_id", "monkey": "banana", "author": "A. U. Thor", "keyboard": "qwerty",
    "password_length": "twelve", "secret_count": "none", "credentials_file": "/run/credentials",
    "token_path": "~/.cache/token", "password_policy": "strict", "auth_type": "oidc",
    "auth_enabled": "sometimes", "token_count": "12k", "api_key_name": "the first",
    "secretary": "Kim", "compass": "north", "bypass": "never", "hotkey": "ctrl-k",
    "action_token": "<act>", "public_key": "ssh-ed25519 AAAA me@host", "passes": "three",
}  # fmt: skip


@pytest.mark.requirement("CFG-3")
def test_what_only_looks_secret_stays() -> None:
    """As a key, in a text, as an argument and in a repr, harmless words keep their values."""
    alarms = []
    for key, value in HARMLESS.items():
        alone = {key: value}
        texts = [f"{key}={value}", f"--{key}={value}", f"{key}: {value}", repr(alone)]
        texts.append(json.dumps(alone))
        alarms += [key] if redact(alone) != alone else []
        alarms += [text for text in texts if redact_text(text) != text]
    print(f"false alarms: {len(alarms)} of {len(HARMLESS)} words")
    assert len(HARMLESS) >= 30
    assert alarms == []
    stay = {"use_auth": True, "password": None, "token": "", "wandb": {"secret": False}, 3: "x"}
    assert redact(stay) == stay


@pytest.mark.parametrize("kind", [KeiseiError, ConfigError, TrackerError, DirectorySetupError])
def test_an_error_carries_no_secret(
    monkeypatch: pytest.MonkeyPatch, kind: type[KeiseiError]
) -> None:
    """Its message is clean from the moment it is made, in str, repr, args and pickle."""
    monkeypatch.setenv("HF_TOKEN", "canary-environment")
    error = kind("canary-environment at https://me:canary-url@host with password=canary-text")
    for shown in (str(error), repr(error), repr(error.args), repr(pickle.dumps(error))):
        assert "canary" not in shown
    assert str(error) == f"{HIDDEN} at https://{HIDDEN}@host with password={HIDDEN}"
    assert pickle.loads(pickle.dumps(error)).args == error.args


def test_a_cut_leaves_no_half_of_a_secret(monkeypatch: pytest.MonkeyPatch) -> None:
    """What a message cuts short is made clean before."""
    monkeypatch.setenv("HF_TOKEN", "canary" * 10)
    for start in range(60, 90):
        assert "cana" not in quoted("x" * start + "canary" * 10)
        assert "cana" not in quoted(f"{'x' * start}://me:{'canary' * 9}@host")


@pytest.mark.parametrize(
    "given",
    [["env.seed=canary"], ["canary"], ["env='canary"], {"env": {"canary": 1}, "wandb": "canary"}],
)
def test_what_load_config_raises_drags_nothing_along(given: Any) -> None:
    """There is no cause and no context: a traceback shows the message alone."""
    with pytest.raises(ConfigError) as caught:
        load_config(overrides=given)
    assert caught.value.__cause__ is None
    assert caught.value.__context__ is None
    text = str(caught.value)
    assert "canary" not in text.replace("env.canary", "")  # a key of the user's own is named


@pytest.mark.parametrize(
    ("path", "problem"),
    [
        ("missing/canary-environment/config.yaml", "No such file"),
        ("s3:/me:canary-environment@host/config.yaml", "No such file"),
        ("s3://me:canary-url@host/config.yaml", "no config source is called 's3'"),
    ],
)
def test_a_config_that_cannot_be_read_is_named_without_its_secrets(
    path: str, problem: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Not in the traceback either, where the system's own error would name it."""
    monkeypatch.setenv("HF_TOKEN", "canary-environment")
    with pytest.raises(ConfigError) as caught:
        load_config(path)
    assert "canary" not in "".join(traceback.format_exception(caught.value))
    assert problem in str(caught.value)


@pytest.mark.requirement("DIR-4")
def test_a_directory_is_named_without_its_secrets(
    make_config: MakeConfig, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """A path that cannot be made is in message, repr, attributes and pickle, its secrets not."""
    monkeypatch.setenv("HF_TOKEN", "canary-environment")
    place = str(tmp_path / "canary-environment")
    Path(place).write_text("")
    with pytest.raises(DirectorySetupError, match="Not a directory") as caught:
        SessionManager(make_config(logging={"log_dir": f"{place}/runs"})).setup_directories()
    error = caught.value
    for shown in (str(error), repr(error), repr(vars(error)), repr(pickle.dumps(error))):
        assert "canary" not in shown
    assert error.path == place.replace("canary-environment", HIDDEN)


def test_a_record_is_clean_for_every_handler(
    monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    """Message, arguments, traceback and stack of a record hold no secret, whoever formats it."""
    monkeypatch.setenv("HF_TOKEN", "canary-environment")
    logger = logging.getLogger("keisei")
    with caplog.at_level(logging.DEBUG, logger="keisei"):
        try:
            raise ValueError("token=canary-text")
        except ValueError:
            logger.exception("see %s", "redis://:canary-url@h", stack_info=True)
        logger.debug("misfit %s", "canary-environment", "canary-environment")
    assert len(caplog.records) == 2
    for record in caplog.records:
        assert "canary" not in repr({**vars(record), "stack_info": None})
        assert record.args == ()
    assert caplog.records[0].getMessage() == f"see redis://{HIDDEN}@h"
    assert f"ValueError: token={HIDDEN}" in str(caplog.records[0].exc_text)
    assert len([f for f in logger.filters if type(f).__module__ == "keisei._log"]) == 1
    assert logging.getLogger().filters == []


class Inner(Section):
    """A section of a user's own."""

    password: str = "canary-key"
    nested: dict[Any, Any] = {1: [{"api_key": "canary-nested"}], "s": SecretStr("canary-type")}


class Outer(AppConfig):
    """A config with one."""

    inner: Inner = Inner()
    store: Path = Path("s3:/x")
    anything: Any = None
    secret: SecretStr = SecretStr("canary-type")


def test_a_repr_hides_secrets(monkeypatch: pytest.MonkeyPatch, make_config: MakeConfig) -> None:
    """A config's, a section's and a session's facts' reprs are clean; they read as they did."""
    monkeypatch.setenv("HF_TOKEN", "canary-environment")
    config = Outer(anything=(argparse.Namespace(token="canary-object"), "canary-environment"))
    facts = SessionManager(config, argparse.Namespace(key="canary-argument"))._facts
    for shown in (repr(config), str(config), repr(config.inner), repr(facts)):
        assert "canary" not in shown
    assert "secret=SecretStr('**********')" in repr(config)
    assert repr(config.inner).startswith("Inner(password='**********', nested={1: [{'api_key': ")
    assert "device='cpu'" in repr(config)
    cycle: list[Any] = ["canary-environment"]
    cycle.append(cycle)
    config.anything = cycle
    assert "canary" not in repr(config)
    plain = make_config()
    assert HIDDEN not in repr(plain)
    assert f"{plain.env!r} {plain.env}" == "EnvConfig(seed=None, device='cpu') " + str(plain.env)


def test_an_environments_urls_hold_secrets_too() -> None:
    """A password in a URL is known wherever it stands; a word such as `postgres` is not."""
    environ = {
        "DATABASE_URL": "postgres://me:pass%20word@host/db",
        "OTHER_URL": "postgres://postgres:postgres@host/db",
        "BROKER": "redis://:short@host",
        "INDEX": "https://a-token-of-twenty-x@host/simple",
        "SAFE": "https://host/a@b",
    }
    assert set(secret_values(environ)) == {"pass%20word", "pass word", "a-token-of-twenty-x"}
