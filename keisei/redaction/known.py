"""Secrets whose values are known: those of an environment, in every form that texts have them."""

from __future__ import annotations

import base64
import json
import re
from collections.abc import Mapping
from functools import lru_cache
from urllib.parse import quote, quote_plus, unquote

from keisei.redaction.keys import is_harmless, secrecy
from keisei.redaction.urls import end_of_user_info

HIDDEN = "**********"

# Variables of the environment that look secret and are places.
_PLACES = frozenset(["PWD", "OLDPWD", "GOOGLE_APPLICATION_CREDENTIALS", "SSH_AUTH_SOCK"])
_NO_SECRETS = frozenset(
    "changeme disabled example localhost optional password postgres required undefined".split()
)
_SHORTEST_KNOWN_VALUE = 8
_SHORTEST_URL_PASSWORD = 6
_SHORTEST_URL_TOKEN = 16


def secret_values(environ: Mapping[str, str]) -> tuple[str, ...]:
    """Collect the secrets that an environment holds, the longest first.

    They are the values of secret keys, and the passwords in URLs under any key. Short values
    (of fewer than 8 characters, in URLs 6) and a few words are left out: they would hide innocent
    text. So are variables that hold a path.
    """
    values = set()
    for name, value in environ.items():
        if len(value) >= _SHORTEST_KNOWN_VALUE and name not in _PLACES:
            level = secrecy(name)
            if level and not is_harmless(value, level):
                values |= {value, value.strip()}
        if "@" in value and "://" in value:
            values |= _url_secrets(value)
    return tuple(sorted(values - _NO_SECRETS, key=lambda value: (-len(value), value)))


def _url_secrets(text: str) -> set[str]:
    found = set()
    for part in text.split("://")[1:]:
        user, colon, password = part[: max(0, end_of_user_info(part))].partition(":")
        if not colon and len(user) >= _SHORTEST_URL_TOKEN:
            found.add(user)
        if len(password) >= _SHORTEST_URL_PASSWORD and password != user:
            found |= {password, unquote(password)}
    return found


class Known:
    """Finds known values as they are, escaped, URL-quoted and in base64."""

    def __init__(self, values: tuple[str, ...]) -> None:
        forms = {form for value in values if value for form in _forms(value)}
        self._forms = sorted(forms, key=lambda form: (-len(form), form))
        self._regex = re.compile("|".join(map(re.escape, self._forms)) or "(?!)")

    def hide(self, text: str) -> str:
        """Return the text with every form of every known value hidden."""
        for form in self._forms:
            if form in text:
                return self._regex.sub(HIDDEN, text)
        return text


known = lru_cache(maxsize=16)(Known)


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
