"""Hide secrets in a text: what keys, headers and URLs reveal, and what has a known shape."""

from __future__ import annotations

import re
from collections.abc import Callable, Iterator
from functools import partial

from keisei.redaction.commands import hide_found, hide_in_commands
from keisei.redaction.keys import (
    ALWAYS,
    CODE,
    KEY,
    KEYLIKE,
    PASS,
    is_harmless,
    is_part,
    secrecy,
    secrecy_below,
)
from keisei.redaction.known import HIDDEN, Known
from keisei.redaction.rule import Rule
from keisei.redaction.shapes import hide_blocks, hide_shapes
from keisei.redaction.urls import QUERY, hide_in_quoted, hide_in_urls

# What a text has to hold, in small letters, for one of the rules about keys to find anything.
_STEMS = (
    "pass pwd pw pswd secret cred key token auth cookie dsn conn hook jwt bearer psk pin otp hmac "
    "sig sas cvv mfa mnemonic phrase words code basic pat= pat: pat' pat\""
).split()

_SCHEMES = "basic|bearer|token|apikey|negotiate"
_HEADER = Rule(
    rf"""(\bauthorization["']?\s{{0,3}}[:=,]\s{{0,3}}b?["']?(?:{_SCHEMES})\s{{1,3}})"""
    r"""[^\s"']++|(\bauthorization["']?\s{0,3}[:=]\s{0,3}["']?digest\s)[^\n]++|"""
    r"""(\bcookie["']?:\s{0,3}["']?)[^\n"']++""",
    re.IGNORECASE,
)
_BEARER = Rule(r"(\bBearer\s{1,3})(?!authentication|authorization|credentials)[\w.~+/=\-]{8,}+")
_STAY = frozenset(["", "true", "false", "none", "null", "...", *_SCHEMES.split("|")])

_BARE = (
    r"""(?:[^\s,;&'"\[{(]|(?!^)[\[{(]|[,;&](?!\s|["']|$|[\w .\-]{1,40}+[=:])"""
    r"""|["'](?![\s,;:)\]}>]|$))++"""
)
_QUOTED = Rule(r"""b?"(?:[^"\\\n]|\\.)*+"?|b?'(?:[^'\\\n]|\\.)*+'?""")
_BARE_VALUE = Rule(_BARE)
_LINE_VALUE = Rule(rf"""(?>{_BARE})(?=[ \t]*+(?:$|[,}}\]'"]))""", re.MULTILINE)
_CALL = Rule(r"[A-Za-z_][\w.]{0,80}+(?=\()")
_MARK = Rule(r"""\\*+["']""")
_BRACKETS = Rule(r"""\\*+["']|[\[({]|[\])}]""")
_LEAF = Rule(r"""(\\*+["'])((?:(?!\1)[^\n]){0,4096}+)\1(\s{0,3}:)?|([^\s\[\](){},:"'\\]{1,200}+)""")
_LONGEST_BRACKET, _SHORT_BRACKET = 20_000, 1_000

_ASSIGNED = Rule(r"""(?<![\w.\-])([\w.\-]++)(["']?\]?\s{0,3}(?::?=(?![=>~])|[=-]>)\s{0,3})""")
_QUOTED_KEY = Rule(r"""(?<!\\)(\\*+["'])([\w.\-]++)\1\s{0,3}(:|=>|,)\s{0,3}""")
_NAMED = Rule(r"""(?<![\w.\-])([\w.\-]++)(:[ \t]{0,3})""")
_PARENT = Rule(r"""([\w.\-]{1,100}+)\\*["']?:(?:\s{0,3}\{|[ \t]{0,3}\n)(?=[^{}]*$)""")
_NEAR = 400  # characters, before a key, in which the one above it is looked for
_FORM = Rule(r"[^\s&\"']{1,400}+&[\w.\-]{1,100}+=")
_BLOCK = Rule(r"(?:[|>][-+]?)?[ \t]*\n((?:[ \t]*\n|{0}[ \t]+[^\n]*\n?|{0}- [^\n]*\n?)+)")
_NAME_AND_VALUE = Rule(
    r"""(\\*["']?\b(?:name|key|header|field|var|variable|k)\\*["']?\s{0,3}[:=]\s{0,3}\\*["']?)"""
    r"""([\w.\-]{1,100}+)(\\*["']?,?\s{1,20}+|\\*["']?,)(\\*["']?v(?:al(?:ue)?)?\\*["']?\s{0,3}[:=]\s{0,3})""",
    re.IGNORECASE,
)
_FLAG = Rule(
    r"""(?<![\w\-])(--?[A-Za-z][\w\-]*+)([ \t]{1,3})(\\*+["'][^"'\\\n]{1,400}+\\*+["']"""
    r"""|(?=[^\s]*?[0-9A-Z_!-/])[^\s"'-][^\s"']*+)"""
)
_SAID = Rule(
    r"""((?<!\w)(?:password|passwd|passphrase|secret|token|credentials?|api[ _-]?key)"""
    r"""(?: provided| is| was)?:?\s{1,3}\\*+["'`(]?)"""
    r"""((?=[A-Za-z\W]{0,200}\d)(?=[\d\W]{0,200}[A-Za-z])[^\s"'`()\[\]{},;]{10,}+)""",
    re.IGNORECASE,
)
_SAID_PASSWORD = Rule(
    r"""((?<!\w)(?:password|passwd|passphrase)(?:(?: is| was):?\s{1,3}\\*+["'`]?|\s\\*+["'`]))"""
    r"""((?=[A-Za-z\W]{0,200}\d)(?=[\d\W]{0,200}[A-Za-z])[^\s"'`()\[\]{},;]{4,}+)""",
    re.IGNORECASE,
)
_XML = Rule(
    r"""(<(?:[\w.\-]{1,60}+ (?:name|key)=\\*["'])?([\w.\-]{1,100}+)\\*["']?>)"""
    r"""([^<>\n]{1,1000}+)(?=</)"""
)
_PHRASE = Rule(
    r"""((?:mnemonic|passphrase|(?:seed|recovery|backup|wallet)[ _-]?(?:phrase|words))\\*["']?"""
    r"""\s{0,3}[:=]\s{0,3}\\*["']?)([^\s"'\n,;{}\[\]*][^"'\n;{}\[\]]*+)""",
    re.IGNORECASE,
)
_LARGE, _PIECE = 1 << 14, 1 << 13


def redact_text(text: str, known: Known) -> str:
    """Return a text with the secrets in it hidden.

    Args:
        text: any text.
        known: what finds the values that are known.
    """
    text = hide_blocks(text)
    if len(text) < _LARGE:
        return _redact_piece(text, known)
    # In pieces: each call of a regular expression holds the GIL.
    return "".join(_redact_piece(piece, known) for piece in _pieces(text))


def _pieces(text: str) -> Iterator[str]:
    """Yield a long text in pieces, cut where no secret is likely to be."""
    start = 0
    while len(text) - start > _LARGE:
        end = -1
        for mark in ("\n", ", ", ",", " "):
            end = text.rfind(mark, start + _PIECE // 2, start + _PIECE)
            if end >= 0:
                break
        else:
            end = start + _PIECE - 1
        yield text[start : end + 1]
        start = end + 1
    yield text[start:]


def _redact_piece(text: str, known: Known) -> str:
    text = known.hide(text)
    if "://" in text:
        text = hide_in_urls(text, HIDDEN)
    lowered = text.lower()
    if any(stem in lowered for stem in _STEMS):
        text = _hide_by_keys(text, lowered)
    text = hide_in_commands(text, lowered)
    return hide_shapes(text)


def _hide_by_keys(text: str, lowered: str) -> str:
    if "uthorization" in lowered or "cookie" in lowered:
        text = _HEADER.regex.sub(lambda m: f"{m[1] or m[2] or m[3]}{HIDDEN}", text)
    if "Bearer" in text:
        text = _BEARER.regex.sub(rf"\1{HIDDEN}", text)
    if "phrase" in lowered or "mnemonic" in lowered or "words" in lowered:
        text = _PHRASE.regex.sub(partial(hide_found, ALWAYS), text)
    secret_data = "secret" in lowered and _of_kubernetes(text)
    if "value" in lowered or "'k'" in text or '"k"' in text:
        text = _each(text, _NAME_AND_VALUE, _name_and_value)
    if ":" in text:
        text = _each(text, _NAMED, _in_kubernetes if secret_data else _named)
    if "=" in text or "->" in text:
        text = _each(text, _ASSIGNED, _assigned)
    if "%3" in text:
        text = hide_in_quoted(text, HIDDEN)
    if "'" in text or '"' in text:
        text = _each(text, _QUOTED_KEY, _quoted_in_kubernetes if secret_data else _quoted_key)
    if "</" in text:
        text = _XML.regex.sub(_hide_element, text)
    text = _SAID.regex.sub(partial(hide_found, KEYLIKE), text)
    text = _SAID_PASSWORD.regex.sub(partial(hide_found, PASS), text)
    if " -" in text or text[0] == "-":
        text = _FLAG.regex.sub(_hide_flag, text)
    return text


def _of_kubernetes(text: str) -> bool:
    return re.search(r"""\bkind\\*["']?\s{0,3}:\s{0,3}\\*["']?Secret\b""", text) is not None


def _hide_element(match: re.Match[str]) -> str:
    level = secrecy(match[2])
    return match[0] if not level or is_harmless(match[3], level) else match[1] + HIDDEN


def _hide_flag(match: re.Match[str]) -> str:
    level, value = secrecy(match[1]), match[3]
    if not level or is_harmless(value.strip("\\\"'"), level):
        return match[0]
    quote = _MARK.regex.match(value)
    mark = quote[0] if quote else ""
    return f"{match[1]}{match[2]}{mark}{HIDDEN}{mark}"


Found = tuple[int, str]  # where a value ends, and what stands in for it


def _each(text: str, rule: Rule, find: Callable[[str, re.Match[str]], Found | None]) -> str:
    """Return a text with the values behind the keys that a rule finds replaced.

    Behind a key whose value stays the search goes on at that value: it may hold other keys.
    """
    parts, kept, pos = [], 0, 0
    search = rule.regex.search
    while (match := search(text, pos)) is not None:
        found = find(text, match)
        pos = match.end()
        if found is not None:
            parts += [text[kept:pos], found[1]]
            kept = pos = found[0]
    return "".join([*parts, text[kept:]]) if parts else text


def _level(text: str, match: re.Match[str], key: str) -> int:
    """Return how far a key marks its value as a secret, below the one that it stands under."""
    if not is_part(key):
        return secrecy(key)
    above = text[max(0, match.start() - _NEAR) : match.start()]
    parents = list(_PARENT.regex.finditer(above))
    return secrecy_below(parents[-1][1] if parents else "", key)


def _assigned(text: str, match: re.Match[str]) -> Found | None:
    level = secrecy(match[1])
    if ">" in match[2] and text[match.end() : match.end() + 1] not in ('"', "'"):
        level = PASS if level == ALWAYS else min(level, KEYLIKE)  # it may be prose, or code
    before = text[max(0, match.start() - 1) : match.start()]
    if before in ("?", "&") or (match[1] in QUERY and _FORM.regex.match(text, match.end())):
        level = max(level, KEY) if level >= CODE else max(level, KEYLIKE * (match[1] in QUERY))
    return _value(text, match.end(), level, _BARE_VALUE) if level else None


def _quoted_key(text: str, match: re.Match[str]) -> Found | None:
    level = _level(text, match, match[2])
    if match[3] == "," and text.startswith(("'-", '"-'), match.end()):
        return None  # a program and its first option
    if match[3] == "," and match[2][0] != "-" and level > PASS:
        level = KEY if "authorization" in match[2].lower() else PASS  # two items of a list
    return _value(text, match.end(), level, _BARE_VALUE) if level else None


def _quoted_in_kubernetes(text: str, match: re.Match[str]) -> Found | None:
    if match[2] in ("data", "stringData"):
        return _value(text, match.end(), ALWAYS, _BARE_VALUE)
    return _quoted_key(text, match)


def _name_and_value(text: str, match: re.Match[str]) -> Found | None:
    level = secrecy(match[2])
    return _value(text, match.end(), level, _BARE_VALUE) if level else None


def _in_kubernetes(text: str, match: re.Match[str]) -> Found | None:
    if match[1] in ("data", "stringData"):
        return _block(text, match, ALWAYS)
    return _named(text, match)


def _named(text: str, match: re.Match[str]) -> Found | None:
    """Find the value of `password: x`."""
    level = _level(text, match, match[1])
    if not level:
        return None
    if level >= KEY and (block := _block(text, match, level)) is not None:
        return block
    found = _value(text, match.end(), level, _LINE_VALUE)
    if found is not None and _reads_as_data(text, match, found[0]):
        return found
    # In prose what looks like a key is one; and a password is no word.
    return _value(text, match.end(), PASS if level == ALWAYS else KEYLIKE, _BARE_VALUE)


def _reads_as_data(text: str, match: re.Match[str], end: int) -> bool:
    """Return whether a key and its value stand in a line or a bracket of their own."""
    before = text[max(0, match.start() - 20) : match.start()].rstrip(" \t-")[-1:]
    after = text[end : end + 20].lstrip(" \t")[:1]
    opened = before in ("", "\n", "{", "[", "(", ",", ";", "'", '"')
    if not opened and not ("_" in match[1] or "-" in match[1]):
        return False
    if before == "," and match[1].lower() == "token":
        return False  # prose about a parser's token
    return after != "," or before in ("{", ",")


def _block(text: str, match: re.Match[str], level: int) -> Found | None:
    """Find the lines below a YAML key that are indented further."""
    line_start = text.rfind("\n", 0, match.start()) + 1
    indent = text[line_start : match.start()]
    in_front = indent.strip(" -")
    opened = text[match.end() : match.end() + 1]
    if opened not in ("\n", "|", ">") or (
        # Words before it, but for a logger's or an error's name, are prose.
        in_front and opened == "\n" and level < ALWAYS and not indent.endswith(": ")
    ):
        return None
    indent = "" if in_front else " " * len(indent)
    end = text.find("\n", match.end())
    if end < 0 or text[match.end() : end].strip(" |>-+\t"):
        return None
    first = end = end + 1
    while end < len(text):
        stop = text.find("\n", end)
        stop = len(text) if stop < 0 else stop
        line = text[end:stop]
        if line.strip() and not line.startswith((indent + " ", indent + "\t", indent + "- ")):
            break
        end = stop + 1
    end = min(end, len(text))
    body = text[first:end].rstrip("\n")
    if not body.strip() or body.strip() == HIDDEN:
        return None
    return first + len(body), f"{text[match.end() : first]}{indent}  {HIDDEN}"


def _value(text: str, pos: int, level: int, bare: Rule) -> Found | None:
    """Find the value that stands at a position; ``None`` where it is no secret."""
    if text.startswith(("SecretStr(", "SecretBytes("), pos):
        return None  # as pydantic shows it
    opens = pos if (call := _CALL.regex.match(text, pos)) is None else call.end()
    if text[opens : opens + 1] in ("[", "{", "("):
        end, closed = _closing(text, opens, _LONGEST_BRACKET if level == ALWAYS else _SHORT_BRACKET)
        if _holds_secret(text[opens:end], level) or (not closed and level >= KEY):
            return end, HIDDEN
        return (end, text[pos:end]) if level == ALWAYS else None
    mark = _MARK.regex.match(text, pos)
    if mark is not None and mark[0][0] == "\\":
        end = _closing_mark(text, mark.end(), mark[0])
        inner = text[mark.end() : end]
        return None if is_harmless(inner, level) else (end, f"{mark[0]}{HIDDEN}")
    if (quoted := _QUOTED.regex.match(text, pos)) is not None:
        value = quoted[0].removeprefix("b")
        inner = value[1:].removesuffix(value[0])
        hidden = f"{value[0]}{HIDDEN}{value[0]}"
        return None if is_harmless(inner, level) else (quoted.end(), hidden)
    if (found := bare.regex.match(text, pos)) is None:
        return None
    value = found[0].rstrip(")]}>") or found[0]
    if found[0].startswith("<"):
        value = found[0]
    if value.lower() in _STAY or is_harmless(value, level) or is_harmless(found[0], level):
        return None
    return found.start() + len(value), HIDDEN


def _holds_secret(group: str, level: int) -> bool:
    """Return whether a group in brackets holds a value, of a key or by itself, that is a secret."""
    leaves = (leaf[2] or leaf[4] or "" for leaf in _LEAF.regex.finditer(group) if not leaf[3])
    return any(not is_harmless(leaf, level) and leaf.lower() not in _STAY for leaf in leaves)


def _closing_mark(text: str, pos: int, mark: str) -> int:
    """Return where the same quotation mark, as often escaped, comes next; else the line's end."""
    line_end = text.find("\n", pos)
    line_end = len(text) if line_end < 0 else line_end
    found = text.find(mark, pos, line_end)
    while found > 0 and text[found - 1] == "\\":
        found = text.find(mark, found + 1, line_end)
    return line_end if found < 0 else found


def _closing(text: str, pos: int, longest: int) -> tuple[int, bool]:
    """Return the end of the bracket that opens at a position; the line's end where none closes."""
    depth, at, limit = 0, pos, min(len(text), pos + longest)
    while (token := _BRACKETS.regex.search(text, at, limit)) is not None:
        at = token.end()
        if token[0] in ("[", "{", "("):
            depth += 1
        elif token[0] in ("]", "}", ")"):
            depth -= 1
            if depth == 0:
                return at, True
        else:
            closed = _closing_mark(text, at, token[0])
            at = closed + len(token[0]) if text.startswith(token[0], closed) else at
    line_end = text.find("\n", pos)
    return len(text) if line_end < 0 else line_end, False
