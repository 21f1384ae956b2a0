"""What is secret in a URL: its user-info, and the path of a chat's webhook."""

from __future__ import annotations

import re
from urllib.parse import unquote

from keisei.redaction.keys import KEYLIKE, is_harmless, secrecy
from keisei.redaction.rule import Rule

_URL = Rule(r"(?<=[A-Za-z0-9])://([^\s<>]*+)")
_CLOSING_QUOTE = Rule(r"""["'](?=[,:;)\]}\\]|$)""")
_USER_AND_PASSWORD = Rule(r"""[^/?#@:\[]*+:(?!\d{0,5}+(?:[/?#,;)\]}'"]|$))""")
_HOOK = Rule(
    r"/(?:(?:incoming|chat)?(?:web)?hooks?b?\d?|services|triggers|workflows|with/key|integration"
    r"|hook|catch)(/[\w\-@./%]++)|/bot(\d{5,}+:[\w-]{10,}+)|(?<=hc-ping\.com)(/[\w\-/]++)",
    re.IGNORECASE,
)
# Whatever stands in their paths is the key to a chat.
_CHATS = (
    "hooks.slack.com/", "discord.com/api/webhooks/", "discordapp.com/api/webhooks/",
    "webhook.office.com/", "outlook.office.com/webhook/", "hooks.zapier.com/", "hc-ping.com/",
    "open.feishu.cn/", "open.larksuite.com/", "maker.ifttt.com/", "api.telegram.org/bot",
)  # fmt: skip
_HOOKS = (
    "hc-ping.com",
    "hook",
    "/services/",
    "/triggers/",
    "/workflows/",
    "/bot",
    "/with/key/",
    "/integration/",
)


# In a URL's query, what looks like a key is one.
QUERY = frozenset(["code", "k", "key", "st"])
_ENCODED = Rule(
    r"((?:(?<=%[0-9A-Fa-f][0-9A-Fa-f])|(?<![\w%]))([A-Za-z][\w.\-]{0,99}+)"
    r"(?:(?:%22)?%3[Aa](?:%20|\+)?(?:%22)?|%3[Dd]))"
    r"((?:[^%&\s\"'<>,;{}]|%(?!22|26|2[Cc]|7[Dd]|0[AaDd])){1,2000}+)"
)


def hide_in_urls(text: str, hidden: str) -> str:
    """Return a text with the secrets of its URLs hidden; their query is left for other rules.

    Args:
        text: any text.
        hidden: what stands in for a secret.
    """

    def hide(match: re.Match[str]) -> str:
        parts = []
        for part in match[1].split("://"):  # a URL may carry another one
            closing = _CLOSING_QUOTE.regex.search(part)
            rest = part[: closing.start()] if closing else part
            at = end_of_user_info(rest)
            # `git@` is how every public clone address reads, and no secret.
            if at >= 0 and part[:at] != "git":
                part = hidden + part[at:]
            parts.append(_without_hook(part, hidden))
        return "".join(f"://{part}" for part in parts)

    return _URL.regex.sub(hide, text)


def end_of_user_info(rest: str) -> int:
    """Return where the `@` is that ends the user-info after a URL's `://`; -1 where there is none.

    A password may hold any character, as people write it: with one, it is the last `@` before the
    query. Without, the user-info ends before the path.
    """
    if _USER_AND_PASSWORD.regex.match(rest):
        at = re.split("[?#]", rest, maxsplit=1)[0].rfind("@")
        return at if at >= 0 else rest.rfind("@")  # the password itself holds a ? or #
    return re.split("[/?#'\",]", rest, maxsplit=1)[0].rfind("@")


def _without_hook(url: str, hidden: str) -> str:
    if not any(part in url for part in _HOOKS):
        return url

    def hide(match: re.Match[str]) -> str:
        path = match[1] or match[2] or match[3]
        doubtful = not any(host in url for host in _CHATS)
        if doubtful and all(is_harmless(part, KEYLIKE) for part in path.split("/")):
            return match[0]
        start = match.start(match.lastindex or 0) - match.start()
        return match[0][:start] + ("/" if path[0] == "/" else "") + hidden

    return _HOOK.regex.sub(hide, url)


def hide_in_quoted(text: str, hidden: str) -> str:
    """Return a text with the values of secret keys hidden where they are quoted as in a URL.

    Args:
        text: any text.
        hidden: what stands in for a secret.
    """

    def hide(match: re.Match[str]) -> str:
        level = secrecy(match[2]) or KEYLIKE * (match[2] in QUERY)
        harmless = not level or is_harmless(unquote(match[3]), level)
        return match[0] if harmless else match[1] + hidden

    return _ENCODED.regex.sub(hide, text)
