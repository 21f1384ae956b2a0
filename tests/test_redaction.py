"""Secrets stay out of what is written, and nothing else does."""

from __future__ import annotations

import json
import time
from typing import Any

import pytest
from pydantic import SecretStr

from keisei import AppConfig
from keisei.config.text import serialize_config
from keisei.redaction import HIDDEN, redact, redact_text, secret_values

SECRET_KEYS = [
    "api_key", "apiKey", "API-KEY", "apikey", "WANDB_API_KEY", "openai_key", "ssh_key", "secret",
    "client_secret", "aws_secret_access_key", "password", "db_password", "dbPassword", "passwd",
    "passphrase", "token", "hf_token", "auth_token", "access_token", "refresh_token", "user_token",
    "github_token", "api_tokens", "authorization", "cookie", "private_key", "credentials", "jwt",
    "signing_key", "encryption_keys", "consumer_key", "appKey", "session_key", "storage_key",
    "sas_key", "github_key", "sendgrid_key", "gemini_key", "replicate_key", "datadog_app_key",
    "webhook", "slack_webhook_url", "basic_auth", "http_auth", "auth", "passcode", "dsn",
    "connection_string", "conn_str", "SENTRY_DSN", "MY_TOKEN_1", "API_KEY_2", "hftoken",
    "dbpassword", "clientsecret", "accesskey", "WANDBAPIKEY", "HFToken", "oauth2_token",
]  # fmt: skip
HARMLESS_KEYS = [
    "pad_token", "eos_token", "bos_token_id", "mask_token", "use_cls_token", "max_new_tokens",
    "num_tokens", "tokens", "token_count", "token_type_ids", "tokenizer", "tokens_per_batch",
    "image_token", "stop_token", "special_token", "key", "keys", "sort_key", "primary_key",
    "cache_key", "key_dim", "num_key_value_heads", "keypoints", "monkey", "author", "authority",
    "bypass", "passes", "compass", "secretary", "cost_per_token", "time_to_first_token", "padtoken",
    "maxtokens", "password_length", "secret_count", "credentials_file", "token_path", "hotkey",
    "password_policy", "auth_type", "auth_enabled", "token_type", "api_key_name", "cookiecutter",
    "pin_memory", "key_padding_mask", "attention_key", "action_token", "pad_token_1", "oauth",
    "private_key_path", "max_passwords", "keyboard", "", "_", "\u6f22\u5b57",
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
    assert redact({key: "canary-0123"}) == {key: HIDDEN}


@pytest.mark.parametrize("key", HARMLESS_KEYS)
def test_a_harmless_key_is_left_alone(key: str) -> None:
    """Words of models and data sets look like secrets, and are none."""
    assert redact({key: "[PAD]"}) == {key: "[PAD]"}


GIVEN_AWAY = [
    "password=canary", "--api-key=canary", "prog --password canary-1 run", "PASSWORD = canary",
    "{'api_key': 'canary'}", '{"token":"canary"}', r'{\"token\": \"canary\"}',
    "['--api-key', 'canary']", "os.environ['TOKEN'] = 'canary'", "F(api_key='canary', b=1)",
    "F(secret=canary)", "password='it\\'s canary'", 'password="canary', "api_keys=['canary']",
    "{'credentials': {'user': 'canary'}}", "password: canary", "db:\n  password: canary\n",
    "{user: a, password: canary}", "curl -H 'X-Api-Key: canary' url", "DB_PASSWORD=canary prog",
    "Authorization: Basic canary==", "authorization=Bearer canary", "authorization: token canary",
    "{'Authorization': 'Basic canary'}", "[(b'authorization', b'Basic canary')]",
    "Cookie: a=canary; b=canary", "Server=x;Password=canary;", "Server=x;Pwd=ca,canary;User Id=sa",
    "-----BEGIN RSA PRIVATE KEY-----\ncanary\n-----END RSA PRIVATE KEY----- the rest",
    "-----BEGIN PRIVATE KEY-----\\ncanary", "postgresql+asyncpg://u:p@canary/w0rd@host",
    "redis://:canary@host", "redis://:it'canary@host/0", "amqp://u:canary#x@h", "a://u:canary?x@h",
    "https://canary@host/x", "x=https://h?to=https://u:canary@h", "a://u:1canary@h b://u:canary@h",
    "https://h/x?api_key=canary&a=1", "https://h/#access_token=canary", "'token' => 'canary'",
]  # fmt: skip
SHAPES = [
    "AKIA" + "CANARY0123456789", "ghp_" + "canary" * 6, "github_pat_" + "canary_" * 5,
    "hf_" + "canary" * 6, "xoxb-canary-0123456789", "sk-ant-api03-canary_0123456789",
    "sk-proj-canary-0123456789", "glpat-canary_01234567890123", "AIza" + "canary_" * 5,
    "eyJhbGciOiJub25l.eyJjYW5hcnki.c2lnbmF0dXJl",
]  # fmt: skip
PROSE = [
    "Unexpected token: '<'", "  wandb.api_key: unknown key; did you mean `x`?", "token == 5",
    "use --token to log in", "the password is wrong", "Basic authentication is off",
    "Bearer authentication failed", "https://example.org/a@b?x=1", "http://localhost:8080/me@x",
    "ssh://git@github.com/org/repo.git", "http://[::1]:8080/a@b", "kafka://b:9092,c:9092",
    "git+https://github.com/o/r@v1.2", "me@host.org", "['password', 'email']", "password=None",
    "{'use_auth': True, 'token': None}", "auth=False)", "SecretStr('**********')",
    "token=SecretStr('**********')", "lr=0.1, key=value", "sk-learn", "hf_hub_download", "eyJ.a.b",
    "log in with `wandb login`, or set WANDB_API_KEY", "AKIAbcdefghijklmnopqrst", "5 tokens: a, b",
]  # fmt: skip


@pytest.mark.parametrize("text", GIVEN_AWAY)
def test_a_text_gives_no_secret_away(text: str) -> None:
    """Its key, header, URL or frame says what is one; what is hidden stays so the second time."""
    hidden = redact_text(text)
    assert "canary" not in hidden
    assert HIDDEN in hidden
    assert redact_text(hidden).count(HIDDEN) == hidden.count(HIDDEN)


@pytest.mark.parametrize("secret", SHAPES)
def test_unmistakable_shapes_are_hidden(secret: str) -> None:
    """Without any key beside them."""
    assert redact_text(f"it says '{secret}', and more") == f"it says '{HIDDEN}', and more"
    assert redact([secret]) == [HIDDEN]


@pytest.mark.parametrize("text", PROSE)
def test_prose_and_addresses_stay(text: str) -> None:
    """Words about secrets are none."""
    assert redact_text(text) == text


def test_what_surrounds_a_secret_stays() -> None:
    """Host, query and the other fields are still there to be read."""
    assert redact_text("F(api_key=x1, b=1)") == f"F(api_key={HIDDEN}, b=1)"
    assert redact_text("a://u:p@h:1/d?token=x1&b=2") == f"a://{HIDDEN}@h:1/d?token={HIDDEN}&b=2"
    assert redact_text("Server=x;Password=y;Db=z") == f"Server=x;Password={HIDDEN};Db=z"
    text = '{"db":"a://u:p@h","mail":"x@y"}'
    assert redact_text(text) == text.replace("u:p", HIDDEN)


def test_any_kind_of_data_is_copied() -> None:
    """Keys that are no strings stay, and so do the kinds of the containers."""
    data = {1: ("a", {"b"}), None: [frozenset("c")], ("k",): {"password": {"x": (1, None, True)}}}
    copy = redact(data)
    assert copy == {**data, ("k",): {"password": {"x": [HIDDEN, None, True]}}}


ADVERSARIAL = [
    "a-", "@a://b:", "\\", "'a':", "eyJ-", "-----BEGIN PRIVATE KEY-----", "password=,",
    "password: ", "authorization: basic ", "--token ", "@://a:?", " ", "{'password': {",
    "password=f(", "password:\n ", "machine a.b login c password ", "curl -u a:", 'token = "',
    "name: token value: ", "kind: Secret\ndata:\n", "password is ", "https://h/hooks/", "mysql -p ",
]  # fmt: skip


@pytest.mark.parametrize("part", ADVERSARIAL)
def test_no_text_takes_long(part: str) -> None:
    """Eight times as much of what the rules begin with takes some eight times as long, not 64."""

    def took(length: int) -> float:
        text = part * (length // len(part)) + "=:'@-\n"
        start = time.thread_time()
        redact_text(text, ("k" * 40, "a://known"))
        return time.thread_time() - start

    short, long = (min(took(length) for _ in range(3)) for length in (20_000, 160_000))
    assert long < 24 * short


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
