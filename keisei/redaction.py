"""Hide secrets: by type, by key name, by the user-info of URLs, by known values and known shapes.

One redactor at the sink: what leaves for a file, a log, an exception, a repr or a tracker passes
here. Call `clean` for what this process writes; the rest are its parts.
"""

from __future__ import annotations

import base64
import json
import os
import re
from collections.abc import Callable, Iterable, Mapping
from functools import lru_cache, partial
from itertools import pairwise
from typing import Any, TypeVar
from urllib.parse import quote, quote_plus, unquote

T = TypeVar("T")

HIDDEN = "**********"

# A key is split into words (api_key, apiKey, API-KEY); these words make it secret, also where
# they end a word (dbpassword) ...
_SECRET_WORDS = (
    "password passwd pwd passphrase passcode secret secrets credential credentials apikey apikeys"
).split()
_SECRET_ENDINGS = tuple(_SECRET_WORDS)
# ... these where they end the key ...
_LAST_WORDS = frozenset("auth authorization cookie cookies dsn connstr webhook webhooks".split())
# ... and these pairs, anywhere in it (access_key, also run together: accesskey).
_OWNERS = frozenset(
    "access account admin anthropic api app application auth aws azure clearml client cohere comet "
    "consumer datadog deploy discord encryption gcp gemini github gitlab google gpg groq hf host "
    "hub huggingface license master mistral mlflow neptune openai private replicate root sas "
    "secret sendgrid sentry service session shared signing slack ssh storage stripe subscription "
    "telegram together twilio wandb webhook".split()
)
_TOKENS_OF = frozenset("access api auth refresh".split())
_TOKEN_OWNERS = _OWNERS | frozenset("bearer bot csrf jwt oauth refresh user xsrf".split())
_SECRET_PAIRS = frozenset(
    [
        *[(owner, kind) for owner in _OWNERS for kind in ("key", "keys")],
        *[(owner, "tokens") for owner in _TOKENS_OF],
        *[("pass", end) for end in ("phrase", "word", "code")],
        *[("connection", "string"), ("conn", "str"), ("conn", "string"), ("webhook", "url")],
    ]
)
# `token` makes a key secret where it ends it, unless the word before says that it is one of a
# vocabulary.
_VOCABULARY = frozenset(
    "pad padding cls sep mask eos bos unk unknown special stop start begin end new num n max min "
    "per prefix suffix image audio video text input output prompt next last first extra added "
    "newline blank word sub byte class register decoder encoder forced bad eot sot eom think tool "
    "system assistant by each total no use train eval vision action state reward obs observation "
    "goal return time lang language source target src tgt patch visual latent memory global local "
    "placeholder oov null empty dummy sentinel separator delimiter query response draft current "
    "previous char space soft".split()
)
# A key that ends so holds the length, number, path or kind of a secret ...
_HARMLESS_ENDS = frozenset(
    "age alg algorithm attempts attr attribute bits bytes column count counts dir directory "
    "disabled enabled encoding env expiration expires expiry field fields file filename files "
    "folder format header help helper hint home index interval kind label len length lifetime "
    "limit location manager max min name names num number path paths pattern policy position "
    "prompt provider regex region required retries rotation rules scope scopes size sock socket "
    "source status store strength timeout ttl type types var variable version".split()
)
# ... and so does one that begins with a quantity.
_QUANTITIES = frozenset("num nb max min total".split())

_WORDS = re.compile(r"[A-Z]+(?![a-z])|[A-Z]?[a-z]+|[0-9]+")
_LONGEST_KEY = 100


class _Rule:
    """A regular expression, compiled at its first use: all of them would cost each import 2 ms."""

    def __init__(self, pattern: str, flags: int = 0) -> None:
        self._pattern, self._flags = pattern, flags
        self._compiled: re.Pattern[str] | None = None

    def sub(self, replacement: str | Callable[[re.Match[str]], str], text: str) -> str:
        if self._compiled is None:
            self._compiled = re.compile(self._pattern, self._flags)
        return self._compiled.sub(replacement, text)


# No rule below backtracks far: each starts only at the start of a word or of a stretch of
# characters, and is possessive (`*+`, `(?>`).
_URL = _Rule(r"(?<=[A-Za-z0-9])://([^\s<>]*+)")
_CLOSING_QUOTE = re.compile(r"""["'](?=[,:;)\]}\\]|$)""")
_USER_AND_PASSWORD = re.compile(r"""[^/?#@:\[]*+:(?!\d{0,5}+(?:[/?#,;)\]}'"]|$))""")
_SCHEMES = "basic|bearer|token|apikey|negotiate"
_HEADER = _Rule(
    rf"""(\bauthorization["']?\s{{0,3}}[:=,]\s{{0,3}}b?["']?(?:{_SCHEMES})\s{{1,3}})"""
    r"""[^\s"']++|(\bauthorization["']?\s{0,3}[:=]\s{0,3}["']?digest\s)[^\n]++|"""
    r"""(\bcookie["']?:\s{0,3}["']?)[^\n"']++""",
    re.IGNORECASE,
)
_BEARER = _Rule(r"(\bBearer\s{1,3})(?!authentication|authorization|credentials)[\w.~+/=\-]{8,}+")
_QUOTED = r"""b?"(?:[^"\\\n]|\\.)*+"?|b?'(?:[^'\\\n]|\\.)*+'?|\\++["'][^"'\\\n]*+(?:\\++["'])?"""
_BARE = (
    r"""(?:[^\s,;&'"\[{(]|(?!^)[\[{(]|[,;&](?!\s|["']|$|[\w .\-]{1,40}+[=:])"""
    r"""|["'](?![\s,;:)\]}>]|$))++"""
)
_VALUE = rf"(?!Secret\w{{1,9}}\()({_QUOTED}|[\[{{(][^\]}})\n]*+[\]}})]?|{_BARE})"
_ASSIGNED = _Rule(rf"""(?<![\w.\-])([\w.\-]++)(["']?\]?\s{{0,3}}=(?![=>~])\s{{0,3}}){_VALUE}""")
_QUOTED_KEY = _Rule(rf"""(?<!\\)(\\*+["'])([\w.\-]++)(\1\s{{0,3}}(?::|=>|,)\s{{0,3}}){_VALUE}""")
_NAMED = _Rule(
    rf"""(?<![\w.\-])([\w.\-]++)(:[ \t]{{0,3}})(?>{_VALUE})(?=[ \t]*+(?:$|[,}}\]'"]))""",
    re.MULTILINE,
)
_FLAG = _Rule(
    r"""(?<![\w\-])(--?[A-Za-z][\w\-]*+)([ \t]{1,3})(?=[^\s]*?[0-9A-Z_])([^\s"'-][^\s"']*+)"""
)
_STAY = frozenset(["", "true", "false", "none", "null", "...", *_SCHEMES.split("|")])
_SHAPES = _Rule(
    r"(?<![A-Za-z0-9])(?:"
    r"(?:AKIA|ASIA)[A-Z0-9]{16}(?![A-Za-z0-9])"  # AWS
    r"|gh[pousr]_[A-Za-z0-9]{36,}+|github_pat_\w{22,}+|glpat-[\w\-]{20,}+"
    r"|hf_[A-Za-z0-9]{30,}+|xox[abeprs]-[A-Za-z0-9\-]{10,}+|AIza[\w\-]{35}"
    r"|sk-(?:ant|proj|svcacct|or)-[\w\-]{16,}+|sk-[A-Za-z0-9]{40,}+|[rs]k_live_[A-Za-z0-9]{16,}+"
    r"|(?<![\w\-])eyJ[\w\-]{8,}+\.[\w\-]{8,}+\.[\w\-]{8,}+)"  # a JSON web token
    r"|-----BEGIN [A-Z ]{0,30}PRIVATE KEY-----"
    r"(?s:.*?)(?:-----END [A-Z ]{0,30}PRIVATE KEY-----|\Z)"
)
_SHORTEST_SHAPE = 16

# Variables of the environment that look secret and are places.
_PLACES = frozenset(["PWD", "OLDPWD", "GOOGLE_APPLICATION_CREDENTIALS", "SSH_AUTH_SOCK"])
_NO_SECRETS = frozenset(
    "changeme disabled example localhost optional password postgres required undefined".split()
)
_SHORTEST_KNOWN_VALUE = 8
_SHORTEST_URL_PASSWORD = 6
_SHORTEST_URL_TOKEN = 16


def is_secret_key(key: str) -> bool:
    """Return whether a key's name marks its value as a secret.

    ``wandb_api_key``, ``DB_PASSWORD`` and ``hf_token`` are; ``pad_token``, ``max_new_tokens``,
    ``use_cls_token``, ``sort_key`` and ``password_length`` are not.
    """
    return _is_secret(key[-_LONGEST_KEY:])


@lru_cache(maxsize=4096)
def _is_secret(key: str) -> bool:
    words = [word.lower() for word in _WORDS.findall(key)]
    while words and words[-1].isdigit():
        words.pop()  # MY_TOKEN_1
    if not words or words[-1] in _HARMLESS_ENDS or words[0] in _QUANTITIES:
        return False
    if words[-1] in _LAST_WORDS or any(pair in _SECRET_PAIRS for pair in pairwise(words)):
        return True
    if any(word.endswith(_SECRET_ENDINGS) or _runs_together(word) for word in words):
        return True
    if words[-1] == "token":
        return len(words) == 1 or words[-2] not in _VOCABULARY
    return words[-1].removesuffix("token") in _TOKEN_OWNERS and words[-1].endswith("token")


def _runs_together(word: str) -> bool:
    """Return whether a word joins two that mark a secret (`accesskey`), or is one alone (`jwt`)."""
    if word in ("bearer", "jwt"):
        return True
    stem = word.removesuffix("s")
    return (stem.endswith("key") and stem[:-3] in _OWNERS) or (
        word.endswith("tokens") and word[:-6] in _TOKENS_OF
    )


def secret_values(environ: Mapping[str, str]) -> tuple[str, ...]:
    """Collect the secrets that an environment holds, the longest first.

    They are the values of secret keys, and the passwords in URLs under any key. Short values
    (of fewer than 8 characters, in URLs 6) and a few words are left out: they would hide innocent
    text. So are variables that hold a path.
    """
    values = set()
    for name, value in environ.items():
        if len(value) >= _SHORTEST_KNOWN_VALUE and _is_secret(name) and name not in _PLACES:
            values |= {value, value.strip()}
        if "@" in value and "://" in value:
            values |= _url_secrets(value)
    return tuple(sorted(values - _NO_SECRETS, key=lambda value: (-len(value), value)))


def _url_secrets(text: str) -> set[str]:
    found = set()
    for part in text.split("://")[1:]:
        user, colon, password = part[: max(0, _end_of_user_info(part))].partition(":")
        if not colon and len(user) >= _SHORTEST_URL_TOKEN:
            found.add(user)
        if len(password) >= _SHORTEST_URL_PASSWORD and password != user:
            found |= {password, unquote(password)}
    return found


class _Known:
    """Finds known values as they are, escaped, URL-quoted and in base64."""

    def __init__(self, values: tuple[str, ...]) -> None:
        forms = {form for value in values if value for form in _forms(value)}
        ordered = sorted(forms, key=lambda form: (-len(form), form))
        # Where there are none, what matches nothing.
        self.hide = partial(re.compile("|".join(map(re.escape, ordered)) or "(?!)").sub, HIDDEN)


_known = lru_cache(maxsize=16)(_Known)


def _forms(value: str) -> set[str]:
    raw = value.encode("utf-8", "surrogateescape")
    quoted = {quote(raw, safe=""), quote(raw), quote_plus(raw)}
    forms = {value, json.dumps(value)[1:-1], ascii(value)[1:-1], repr(value)[1:-1]}
    forms |= quoted | {re.sub("%..", lambda found: found[0].lower(), form) for form in quoted}
    for before in range(3):  # what base64 makes of it, whatever stands before and after
        coded = base64.b64encode(bytes(before) + raw)
        whole = coded[(before * 8 + 5) // 6 : (before + len(raw)) * 8 // 6].decode()
        if len(whole) >= _SHORTEST_KNOWN_VALUE:
            forms |= {whole, whole.translate(str.maketrans("+/", "-_"))}
    return forms


def clean(data: T) -> T:
    """Hide secrets in a text or in plain data, this process's environment's values included."""
    cleaned: T = redact(data, secret_values(os.environ))
    return cleaned


def redact_text(text: str, known: Iterable[str] = ()) -> str:
    """Hide secrets in a text: known values and shapes, and what keys, headers and URLs reveal.

    Args:
        text: any text.
        known: values to hide wherever they stand, from `secret_values`.
    """
    return _redact_text(text, _known(tuple(known)))


def _redact_text(text: str, known: _Known) -> str:
    text = known.hide(text)
    if ":" in text:
        if "@" in text:
            text = _URL.sub(_hide_user_info, text)
        text = _NAMED.sub(_hide_named, _HEADER.sub(_hide_header, text))
    if "=" in text:
        text = _ASSIGNED.sub(_hide_assigned, _HEADER.sub(_hide_header, text))
    if "'" in text or '"' in text:
        text = _QUOTED_KEY.sub(_hide_quoted_key, _HEADER.sub(_hide_header, text))
    if len(text) >= _SHORTEST_SHAPE:
        text = _SHAPES.sub(HIDDEN, text)
        if "Bearer" in text:
            text = _BEARER.sub(rf"\1{HIDDEN}", text)
    if "-" in text and " " in text:
        text = _FLAG.sub(_hide_flag, text)
    return text


def _end_of_user_info(rest: str) -> int:
    """Find the `@` that ends the user-info after a URL's `://`; -1 where there is none.

    A password may hold any character, as people write it: with one, it is the last `@` before the
    query. Without, the user-info ends before the path.
    """
    if _USER_AND_PASSWORD.match(rest):
        at = re.split("[?#]", rest, maxsplit=1)[0].rfind("@")
        return at if at >= 0 else rest.rfind("@")  # the password itself holds a ? or #
    return re.split("[/?#'\",]", rest, maxsplit=1)[0].rfind("@")


def _hide_user_info(match: re.Match[str]) -> str:
    parts = []
    for part in match[1].split("://"):  # a URL may carry another one
        closing = _CLOSING_QUOTE.search(part)
        rest = part[: closing.start()] if closing else part
        at = _end_of_user_info(rest)
        # `git@` is how every public clone address reads, and no secret.
        parts.append(HIDDEN + part[at:] if at >= 0 and part[:at] != "git" else part)
    return "".join(f"://{part}" for part in parts)


def _hide_header(match: re.Match[str]) -> str:
    return f"{match[1] or match[2] or match[3]}{HIDDEN}"


def _hide_assigned(match: re.Match[str]) -> str:
    return match[1] + match[2] + _hide_value(match[3]) if is_secret_key(match[1]) else match[0]


def _hide_named(match: re.Match[str]) -> str:
    """Hide `password: x` where it reads as data: in a line or a bracket of its own."""
    before = match.string[max(0, match.start() - 20) : match.start()].rstrip(" \t-")
    after = match.string[match.end() : match.end() + 20].lstrip(" \t")[:1]
    opened = before[-1:] in ("", "\n", "{", "[", "(", ",", ";", "'", '"')
    if not opened and not ("_" in match[1] or "-" in match[1]):
        return match[0]
    if (after == "," and before[-1:] not in ("{", ",")) or (
        before[-1:] == "," and match[1].lower() == "token"  # prose about a parser's token
    ):
        return match[0]
    return match[1] + match[2] + _hide_value(match[3]) if is_secret_key(match[1]) else match[0]


def _hide_quoted_key(match: re.Match[str]) -> str:
    key = match[2]
    if "," in match[3] and key[0] != "-" and key.lower() not in ("authorization", "x-api-key"):
        return match[0]  # two items of a list
    return "".join(match.group(1, 2, 3)) + _hide_value(match[4]) if is_secret_key(key) else match[0]


def _hide_flag(match: re.Match[str]) -> str:
    return match[1] + match[2] + HIDDEN if is_secret_key(match[1]) else match[0]


def _hide_value(value: str) -> str:
    """Hide a value as it is written: its quotes stay, and so does what cannot be a secret."""
    inner = value.removeprefix("b")
    if inner[:1] in ("'", '"', "\\"):
        mark = inner[: len(inner) - len(inner.lstrip("\\")) + 1]
        return f"{mark}{HIDDEN}{mark}" if inner.strip("\\'\"") else value
    bare = value.rstrip(")]}>")
    return value if bare.lower() in _STAY else HIDDEN + value[len(bare) :]


def redact(data: Any, known: Iterable[str] = ()) -> Any:
    """Copy plain data with every secret hidden; nulls, numbers and flags stay.

    Args:
        data: a text, or nested dicts, lists, tuples and sets of plain values.
        known: values to hide wherever they stand, from `secret_values`.
    """
    return _redact(data, _known(tuple(known)))


def _redact(data: Any, known: _Known) -> Any:
    if isinstance(data, str):
        return _redact_text(data, known)
    if isinstance(data, dict):
        copy = {}
        for key, value in data.items():
            if isinstance(key, str):
                shown, secret = _key(key, known)
                copy[shown] = _hidden(value) if secret else _redact(value, known)
            else:
                copy[_redact(key, known)] = _redact(value, known)
        return copy
    if isinstance(data, (list, tuple, set, frozenset)):
        kind = next(kind for kind in (list, tuple, set, frozenset) if isinstance(data, kind))
        return kind(_redact(item, known) for item in data)
    return data


@lru_cache(maxsize=4096)
def _key(key: str, known: _Known) -> tuple[str, bool]:
    """Return a key as it may be shown, and whether its value is a secret."""
    return _redact_text(key, known), is_secret_key(key)


def _hidden(value: Any) -> Any:
    """Hide what stands under a secret key; its shape, and what cannot be a secret, stay."""
    if isinstance(value, dict):
        return {key: _hidden(inner) for key, inner in value.items()}
    if isinstance(value, (list, tuple)):
        return [_hidden(item) for item in value]
    if value is None or value == "" or isinstance(value, (bool, float)):
        return value
    return value if hasattr(value, "get_secret_value") else HIDDEN


class Shown:
    """Stands in for a value in a repr: reads as the value's own, with secrets hidden.

    Args:
        key: what the value is called, if anything.
        value: the value; a secret type of pydantic's reads as pydantic shows it.
    """

    def __init__(self, key: str | None, value: object) -> None:
        self._key, self._value = key, value

    def __repr__(self) -> str:
        known = secret_values(os.environ)
        try:
            value = redact({self._key: self._value}, known)[self._key]
        except RecursionError:  # it contains itself
            value = self._value
        return redact_text(repr(value), known)
