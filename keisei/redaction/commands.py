"""Hide secrets on command lines: of `curl`, `mysql`, `docker login`, shells, and in netrc files."""

from __future__ import annotations

import re
from functools import partial

from keisei.redaction.keys import KEYLIKE, PASS, is_harmless, secrecy
from keisei.redaction.known import HIDDEN
from keisei.redaction.rule import Rule

# What stands between an option and its value, also as items of a list.
_GAP = r"""(?:[ =]|\\*["'],\s?\\*["'])"""
_USER = Rule(
    rf"""((?<![^\s"'])(?:-u|-U|--user|--proxy-user){_GAP}?["']?[^\s:"'/\\]{{1,200}}+:)"""
    r"""(?!\d++(?!\S))([^\s"'\\]++)"""
)
_COOKIE = Rule(r"""((?<!\S)(?:-b|--cookie)[ =]["']?)([^\s"'=]{1,100}=[^"'\n]*+)""")
_CLIENTS = ("sshpass", "docker login", "podman login", "mysql", "ldapsearch")
_REDIS = "redis-cli"  # whose -p is a port
_CLIENT = Rule(
    rf"""(\b(?:(?:{"|".join(_CLIENTS)})\b[^\n]{{0,200}}?[\s"']-[pw]"""
    rf"""|{_REDIS}\b[^\n]{{0,200}}?[\s"']-a){_GAP}?)([^\s"'\\-][^\s"'\\]{{3,}}+)"""
)
_NETRC = Rule(
    r"""(\b(?:machine\s{1,9}\S{0,200}[.:\d]\S{0,200}|default)\s{1,9}"""
    r"""(?:(?:login|account)\s{1,9}\S{1,200}\s{1,9}){0,2}password\s{1,9})([^\s"'\\]++)"""
)
_LOGIN = Rule(
    r"""(\b(?:machine|login|account)\s{1,9}\S{1,200}\s{1,9}password\s{1,9})([^\s"'\\]++)"""
)
_CLIENT_NAMES = frozenset(
    [*(client.split()[0] for client in _CLIENTS), _REDIS, "curl", "wget", "http"]
)
_HTTPIE = Rule(
    r"""(\bhttps?\s(?:[^\n]{0,200}?\s)?(?:-a|--auth)[ =]["']?[^\s:"'/]{1,200}+:)([^\s"']++)"""
)
# fish and csh name a variable and its value like this.
_SET = Rule(
    r"""((?<![\w.\-])(?:set(?:[ \t]{1,3}--?[a-zA-Z]{1,20}+){1,4}|setenv|setx)[ \t]{1,3}"""
    r"""([A-Za-z_]\w{0,100}+)[ \t]{1,3}["']?)([^\s"';]++)"""
)
_LOGIN_KEY = Rule(
    r"(\b(?:wandb|huggingface-cli|hf|comet|clearml)(?: auth)? login(?: --?[\w\-]{1,40}+){0,5} )"
    r"([\w\-]{12,}+)"
)


def hide_in_commands(text: str, lowered: str) -> str:
    """Return a text with the secrets hidden that stand on command lines and in netrc files.

    Args:
        text: any text.
        lowered: the text in small letters.
    """
    if "curl" in lowered or "wget" in lowered:
        text = _USER.regex.sub(rf"\1{HIDDEN}", text)
        text = _COOKIE.regex.sub(rf"\1{HIDDEN}", text)
    if "-" in text:
        if any(client in lowered for client in (*_CLIENTS, _REDIS)):
            text = _CLIENT.regex.sub(partial(hide_found, PASS), text)
        if "http" in lowered:
            text = _HTTPIE.regex.sub(rf"\1{HIDDEN}", text)
    if "set" in lowered:
        text = _SET.regex.sub(_hide_set, text)
    if "login" in lowered:
        text = _LOGIN_KEY.regex.sub(partial(hide_found, KEYLIKE), text)
    if "password" in lowered:
        text = _NETRC.regex.sub(rf"\1{HIDDEN}", text)
        text = _LOGIN.regex.sub(partial(hide_found, PASS), text)
    return text


def is_client(program: str) -> bool:
    """Return whether a program is one whose options are known here."""
    return program.rsplit("/", 1)[-1] in _CLIENT_NAMES


def hide_found(level: int, match: re.Match[str]) -> str:
    """Return what a rule has found, its second group hidden where that is a secret."""
    return match[0] if is_harmless(match[2], level) else match[1] + HIDDEN


def _hide_set(match: re.Match[str]) -> str:
    level = secrecy(match[2])
    return match[0] if not level or is_harmless(match[3], level) else match[1] + HIDDEN
