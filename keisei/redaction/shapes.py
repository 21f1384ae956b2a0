"""Hide secrets by their shape: private keys, and keys that begin as those of a service do."""

from __future__ import annotations

import re

from keisei.redaction.known import HIDDEN
from keisei.redaction.rule import Rule

_THIN = Rule(r"(:thin:)[^\s/@]{1,200}+/[^\s@]{1,200}+(?=@)")
_CRYPT = Rule(r"\$(?:2[abxy]?|1|5|6|apr1|y|argon2\w{0,2})\$[\w./$,=+]{8,}+")
_PEM = Rule(
    r"-----BEGIN [A-Z ]{0,30}PRIVATE KEY(?: BLOCK)?-----"
    r"(?s:.*?)(?:-----END [A-Z ]{0,30}PRIVATE KEY(?: BLOCK)?-----|\Z)"
)

_PUTTY = Rule(r"(Private-Lines: \d{1,5}\s{1,3})(?:[\w+/=]{1,200}\s{0,3}){1,2000}(?=Private-MAC|\Z)")

# Keys of well-known shapes, by what they begin with.
_BEGIN = {
    "AKIA": "[A-Z0-9]{16}(?![A-Za-z0-9])", "ASIA": "[A-Z0-9]{16}(?![A-Za-z0-9])",
    **dict.fromkeys(["ghp_", "gho_", "ghu_", "ghs_", "ghr_"], "[A-Za-z0-9]{36,}+"),
    "github_pat_": r"\w{22,}+", "glpat-": r"[\w\-]{20,}+", "glrt-": r"[\w\-]{20,}+",
    "hf_": "[A-Za-z0-9]{30,}+", "xox": r"[abeprs]-[A-Za-z0-9\-]{10,}+", "xapp-": r"[\w\-]{10,}+",
    "AIza": r"[\w\-]{35}", "sk-": r"(?:(?:ant|proj|svcacct|or)-[\w\-]{16,}+|[A-Za-z0-9]{40,}+)",
    "sk_live_": "[A-Za-z0-9]{16,}+", "rk_live_": "[A-Za-z0-9]{16,}+",
    "sk_test_": "[A-Za-z0-9]{16,}+", "whsec_": "[A-Za-z0-9+/=]{16,}+",
    "npm_": "[A-Za-z0-9]{30,}+", "pypi-": r"[\w\-]{40,}+", "dckr_pat_": r"[\w\-]{20,}+",
    "SG.": r"[\w\-]{16,}+\.[\w\-]{16,}+", "shpat_": "[a-fA-F0-9]{20,}+", "r8_": "[A-Za-z0-9]{30,}+",
    "gsk_": "[A-Za-z0-9]{30,}+", "xai-": "[A-Za-z0-9]{30,}+", "nvapi-": r"[\w\-]{30,}+",
    "dapi": "[a-f0-9]{32}", "dop_v1_": "[a-f0-9]{40,}+", "tskey-": r"[\w\-]{16,}+",
    "hvs.": r"[\w\-]{20,}+", "ya29.": r"[\w\-]{20,}+", "lin_api_": "[A-Za-z0-9]{30,}+",
    "AGE-SECRET-KEY-": "[A-Z0-9]{20,}+",
    "eyJ": r"(?<![\w\-]eyJ)[\w\-]{8,}+\.[\w\-]{8,}+\.[\w\-]{8,}+",
    "LS0tLS1CRUdJTi": r"B(?:SU0EgUFJJVkFU|QUklWQVRF|FQyBQUklW|PUEVOU1NI|EU0EgUFJJ)[\w+/=]*+",
}  # fmt: skip
_SHAPES = Rule(
    r"(?<![A-Za-z0-9])(?:" + "|".join(f"{re.escape(b)}{rest}" for b, rest in _BEGIN.items()) + ")"
)
_SHORTEST_SHAPE = 16


def hide_blocks(text: str) -> str:
    """Return a text without the private keys that it holds as blocks of lines."""
    if "PRIVATE KEY" in text:
        text = _PEM.regex.sub(HIDDEN, text)
    if "Private-Lines:" in text:
        text = _PUTTY.regex.sub(rf"\1{HIDDEN}\n", text)
    return text


def hide_shapes(text: str) -> str:
    """Return a text without what is a secret by its shape."""
    if len(text) >= _SHORTEST_SHAPE:
        if any(begin in text for begin in _BEGIN):
            text = _SHAPES.regex.sub(HIDDEN, text)
        if "$" in text:
            text = _CRYPT.regex.sub(HIDDEN, text)
        if ":thin:" in text:
            text = _THIN.regex.sub(rf"\1{HIDDEN}", text)
    return text
