"""Hide secrets: by type, by key name, by the user-info of URLs, and by known values.

One redactor at the sink: what leaves for a file, a log, an exception or a tracker passes here.
"""

from __future__ import annotations

import re
from collections.abc import Iterable, Mapping
from functools import lru_cache
from itertools import pairwise
from typing import Any

HIDDEN = "**********"

# A key is split into words (api_key, apiKey, API-KEY); these words make it secret ...
_SECRET_WORDS = frozenset(
    "password passwd pwd passphrase secret secrets credential credentials apikey privatekey "
    "authtoken accesstoken bearer jwt".split()
)
# ... and so do these pairs, anywhere in the key ...
_KEY_OWNERS = (
    "access account anthropic api auth aws azure client deploy encryption gcp gpg hf license "
    "master openai private secret service signing ssh stripe subscription wandb webhook"
)
_SECRET_PAIRS = frozenset(
    [
        *[(owner, kind) for owner in _KEY_OWNERS.split() for kind in ("key", "keys")],
        *[(owner, "tokens") for owner in ("access", "api", "auth", "refresh")],
        ("pass", "phrase"),
        ("pass", "word"),
    ]
)
# ... and `token` where it ends the key, unless the word before says it is one of a vocabulary.
_VOCABULARY = frozenset(
    "pad padding cls sep mask eos bos unk unknown special stop start begin end new num n max min "
    "per prefix suffix image audio video text input output prompt next last first extra added "
    "newline blank word sub byte class register decoder encoder forced bad eot sot eom think tool "
    "system assistant by each total no use train eval vision".split()
)
_AUTH_HEADERS = frozenset(["authorization", "cookie"])

_WORDS = re.compile(r"[A-Z]+(?![a-z])|[A-Z]?[a-z]+|[0-9]+")
# `git@` is how every public clone address reads, and no secret.
_URL_USER_INFO = re.compile(
    r"(\b[a-zA-Z][a-zA-Z0-9+.\-]*://)(?!git@)[^\s/?#@'\"]*(?:@[^\s/?#@'\"]*)*@"
)
_URL_PARAMETER = re.compile(r"([?&]([A-Za-z0-9_.\-]+)=)[^&#\s'\"]+")
_BEARER = re.compile(r"(\bBearer\s+)[A-Za-z0-9._~+/=\-]{8,}")
_NO_SECRET_VARIABLES = frozenset(["PWD", "OLDPWD"])
_PLACES = ("_DIR", "_DIRECTORY", "_FILE", "_HOME", "_PATH", "_SOCK")
_SHORTEST_KNOWN_VALUE = 8


@lru_cache(maxsize=4096)
def is_secret_key(key: str) -> bool:
    """Tell whether a key's name says that its value is a secret.

    ``wandb_api_key``, ``DB_PASSWORD`` and ``hf_token`` are; ``pad_token``, ``max_new_tokens``,
    ``use_cls_token``, ``sort_key`` and ``token_count`` are not.
    """
    words = [word.lower() for word in _WORDS.findall(key)]
    if not words:
        return False
    if any(word in _SECRET_WORDS for word in words) or words[-1] in _AUTH_HEADERS:
        return True
    if any(pair in _SECRET_PAIRS for pair in pairwise(words)):
        return True
    return words[-1] == "token" and (len(words) == 1 or words[-2] not in _VOCABULARY)


def secret_values(environ: Mapping[str, str]) -> tuple[str, ...]:
    """Collect the values that an environment gives to secret keys, the longest first.

    Values of fewer than 8 characters are left out: they would hide innocent text. So are the
    variables that name a place.
    """
    values = {
        value
        for name, value in environ.items()
        if len(value) >= _SHORTEST_KNOWN_VALUE
        and is_secret_key(name)
        and name not in _NO_SECRET_VARIABLES
        and not name.upper().endswith(_PLACES)
    }
    return tuple(sorted(values, key=len, reverse=True))


def redact_text(text: str, known: Iterable[str] = ()) -> str:
    """Hide secrets in a text: user-info and parameters of URLs, bearer tokens, known values.

    Args:
        text: any text.
        known: values to hide wherever they stand, from `secret_values`.
    """
    if "@" in text:
        text = _URL_USER_INFO.sub(rf"\1{HIDDEN}@", text)
    if "=" in text:
        text = _URL_PARAMETER.sub(_hide_parameter, text)
    if "Bearer" in text:
        text = _BEARER.sub(rf"\1{HIDDEN}", text)
    for value in known:
        if value in text:
            text = text.replace(value, HIDDEN)
    return text


def _hide_parameter(match: re.Match[str]) -> str:
    return match[1] + HIDDEN if is_secret_key(match[2]) else match[0]


def redact(data: Any, known: Iterable[str] = ()) -> Any:
    """Copy plain data with every secret hidden; nulls, numbers and flags stay.

    Args:
        data: nested dicts and lists of plain values.
        known: values to hide wherever they stand, from `secret_values`.
    """
    if isinstance(data, str):
        return redact_text(data, known)
    if isinstance(data, dict):
        return {
            redact_text(key, known): (
                _hidden(value) if is_secret_key(key) else redact(value, known)
            )
            for key, value in data.items()
        }
    if isinstance(data, list):
        return [redact(item, known) for item in data]
    return data


def _hidden(value: Any) -> Any:
    """Hide what stands under a secret key; its shape, and what cannot be a secret, stay."""
    if isinstance(value, dict):
        return {key: _hidden(inner) for key, inner in value.items()}
    if isinstance(value, list):
        return [_hidden(item) for item in value]
    if value is None or value == "" or isinstance(value, (bool, float)):
        return value
    return HIDDEN
