"""Secrets stay out of what is written, and nothing else does."""

from __future__ import annotations

import json
from typing import Any

import pytest
from pydantic import SecretStr

from keisei import AppConfig
from keisei.redaction import HIDDEN, is_secret_key, redact, redact_text, secret_values
from keisei.run.record import serialize_config

SECRET_KEYS = [
    "api_key", "apiKey", "API-KEY", "apikey", "WANDB_API_KEY", "openai_key", "ssh_key", "secret",
    "client_secret", "aws_secret_access_key", "password", "db_password", "dbPassword", "passwd",
    "passphrase", "token", "hf_token", "auth_token", "access_token", "refresh_token", "user_token",
    "github_token", "api_tokens", "authorization", "cookie", "private_key", "credentials", "jwt",
    "signing_key", "encryption_keys",
]  # fmt: skip
HARMLESS_KEYS = [
    "pad_token", "eos_token", "bos_token_id", "mask_token", "use_cls_token", "max_new_tokens",
    "num_tokens", "tokens", "token_count", "token_type_ids", "tokenizer", "tokens_per_batch",
    "image_token", "stop_token", "special_token", "key", "keys", "sort_key", "primary_key",
    "cache_key", "key_dim", "num_key_value_heads", "keypoints", "monkey", "author", "authority",
    "bypass", "passes", "compass", "secretary", "cost_per_token", "time_to_first_token",
]  # fmt: skip


class Secretive(AppConfig):
    """A config with secrets in many places."""

    by_type: SecretStr = SecretStr("canary-type")
    api_key: str = "canary-key-name"
    database: str = "postgresql://me:canary-url@host:5432/db?sslmode=require"
    endpoint: str = "https://host/path?access_token=canary-parameter&page=2"
    header: str = "Authorization: Bearer canary-bearer-0123"
    nested: dict[str, Any] = {
        "list": [{"password": "canary-nested"}, "amqp://u:canary@x:y@h"],
        "credentials": {"user": "canary-user", "more": ["canary-more"], "number": 7},
    }
    environment: str = "the value is canary-environment, as it stands"


@pytest.mark.parametrize("key", SECRET_KEYS)
def test_a_secrets_key_is_known(key: str) -> None:
    """What is under such a key is hidden."""
    assert is_secret_key(key)


@pytest.mark.parametrize("key", HARMLESS_KEYS)
def test_a_harmless_key_is_left_alone(key: str) -> None:
    """Words of models and data sets look like secrets, and are none."""
    assert not is_secret_key(key)
    assert redact({key: "[PAD]"}) == {key: "[PAD]"}


@pytest.mark.requirement("CFG-3")
def test_no_secret_is_in_the_effective_config() -> None:
    """By type, key name, user-info, parameter, header and environment: every canary is hidden."""
    text = serialize_config(Secretive(), {"HF_TOKEN": "canary-environment", "PWD": "/x/y/z/abc"})
    assert "canary" not in text
    data = json.loads(text)
    assert data["by_type"] == data["api_key"] == HIDDEN
    assert data["database"] == f"postgresql://{HIDDEN}@host:5432/db?sslmode=require"
    assert data["endpoint"] == f"https://host/path?access_token={HIDDEN}&page=2"
    assert data["environment"] == f"the value is {HIDDEN}, as it stands"


@pytest.mark.requirement("CFG-3")
def test_a_config_without_secrets_survives_a_round_trip() -> None:
    """Nulls are kept, non-finite numbers too, and the text ends in a newline."""

    class Odd(AppConfig):
        """A config with odd numbers and letters."""

        worst: float = float("-inf")
        text: str = '\u540d\n\t\x00\u2028 / \\ "'
        nothing: int | None = None
        clone: str = "ssh://git@github.com/org/repo.git"
        place: str = "https://example.org/a@b?x=1"
        pad_token: str = "<pad>"

    config = Odd.model_validate({"env": {"seed": 1}, "wandb": {"tags": ["a"], "notes": "x"}})
    text = serialize_config(config, {})
    assert text.endswith("}\n")
    assert '"nothing": null' in text
    assert Odd.model_validate_json(text) == config


@pytest.mark.parametrize("bad", ["\ud800", {"k": "\udfff"}])
def test_what_json_cannot_say_is_an_error(bad: Any) -> None:
    """A lone surrogate is an error and no invalid UTF-8."""

    class Any_(AppConfig):
        """A config that takes anything."""

        value: Any = None

    with pytest.raises(ValueError, match="surrogates|utf-8|unicode"):
        serialize_config(Any_(value=bad), {})


def test_a_cycle_is_an_error() -> None:
    """A config that contains itself ends in an error, not in a crash."""

    class Any_(AppConfig):
        """A config that takes anything."""

        value: Any = None

    cycle: list[Any] = []
    cycle.append(cycle)
    config = Any_()
    config.__dict__["value"] = cycle
    with pytest.raises(ValueError, match=r"[Cc]ircular"):
        serialize_config(config, {})


def test_values_of_the_environment_are_found_by_their_names() -> None:
    """Short values, places, and the working directory are no secrets."""
    environ = {
        "WANDB_API_KEY": "k" * 40,
        "DB_PASSWORD": "short",
        "PWD": "/home/user/project",
        "CREDENTIALS_DIRECTORY": "/run/credentials",
        "EDITOR": "something-long",
        "HF_TOKEN": "hf_" + "x" * 20,
    }
    assert set(secret_values(environ)) == {"k" * 40, "hf_" + "x" * 20}
    assert redact_text(f"key {'k' * 40}!", secret_values(environ)) == f"key {HIDDEN}!"
